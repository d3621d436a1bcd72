"""What an erratum costs a planner, against arithmetic done by hand."""

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from vlmmem.cli import main
from vlmmem.errors import InputError
from vlmmem.ledger import ERRATA, FOLDER, Ledger, load, read
from vlmmem.ledger.cost import GPU, Cost, check_fields, cost_of, printed_ends
from vlmmem.units import Printed

A100 = 81_920 * 2**20
GB = 10**9


@pytest.mark.parametrize(
    ("printed", "right", "n_bytes", "gpus", "text"),
    [
        # the 70B model's cache by the table, and by its shape; no GPU more or less
        (16 * GB, 42_949_672_960, 26_949_672_960, 0, "26.9 GB (25.1 GiB) short"),
        # one byte more than a GPU holds
        (A100, A100 + 1, 1, 1, "1 B short, 1 × A100 80GB too few"),
        (A100 + 1, A100, -1, -1, "1 B too much, 1 × A100 80GB too many"),
        (3 * A100, A100, -2 * A100, -2, "171.8 GB (160.0 GiB) too much, 2 × A100 80GB too many"),
        (0, 9_999_999, 9_999_999, 1, "9,999,999 B short, 1 × A100 80GB too few"),
        (2 * GB, 2 * GB + 10**7, 10**7, 0, "0.01 GB (0.01 GiB) short"),
        (GB, 11 * GB, 10 * GB, 0, "10.0 GB (9.3 GiB) short"),
        (GB, 11 * GB - 1, 10 * GB - 1, 0, "10.00 GB (9.31 GiB) short"),
        (5, 5, 0, 0, "nothing"),
    ],
)
def test_a_difference_in_bytes_and_gpus(printed: int, right: int, n_bytes: int, gpus: int, text: str) -> None:
    cost = Cost(printed, right, "a case")
    assert (cost.bytes, cost.gpus, cost.text) == (n_bytes, gpus, text)
    assert cost.json() == {
        "bytes": n_bytes,
        "gpus": gpus,
        "gpu": GPU,
        "printed_bytes": printed,
        "right_bytes": right,
        "case": "a case",
    }


@pytest.mark.parametrize(
    ("text", "unit", "ends"),
    [
        ("~87 GB", "GB", (87 * GB, 87 * GB)),
        ("800 KB", "KB", (800_000, 800_000)),
        ("2.5-3 GiB", "GiB", (Fraction(5, 2) * 2**30, 3 * 2**30)),
        ("40-60%", "%", None),
        ("40 layers", "", None),
    ],
)
def test_what_is_printed_is_read_to_the_letter(text: str, unit: str, ends: object) -> None:
    assert printed_ends(Printed.parse(text, unit), unit) == ends


@pytest.mark.parametrize(("right", "n_bytes"), [(9, -1), (10, 0), (15, 0), (20, 0), (23, 3)])
def test_a_range_is_as_wrong_as_its_nearer_end(right: int, n_bytes: int) -> None:
    cost = cost_of(None, (Fraction(10), Fraction(20)), right, "here")
    assert cost is not None
    assert cost.bytes == n_bytes


def test_the_entrys_own_expressions_go_first() -> None:
    given = {"right": 'kv_cache_bytes("llama-3.1-70b", 4096)', "printed": '2 * parse_size("1 GB")', "case": "a case"}
    assert cost_of(given, (Fraction(1), Fraction(1)), 7, "here") == Cost(2 * GB, 1_342_177_280, "a case")
    assert cost_of({"right": "12"}, (Fraction(1), Fraction(1)), 7, "here") == Cost(1, 12)
    assert cost_of(None, (Fraction(1), Fraction(1)), 7, "here") == Cost(1, 7)
    assert cost_of(None, None, 7, "here") is None
    assert cost_of(None, (Fraction(1), Fraction(1)), None, "here") is None


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"right": "1 GB"}, "here: cost: right: '1 GB': not an expression"),
        ({"right": "-1"}, "here: cost: right: '-1' is below zero; an amount in bytes is needed"),
        ({"right": "1", "printed": "'x'"}, "here: cost: printed: 'x': not a number"),
        ({"right": "1"}, "here: cost: no size is printed; 'printed', an expression that gives bytes, is needed"),
    ],
)
def test_a_faulty_expression_is_told(given: dict[str, str], line: str) -> None:
    with pytest.raises(InputError) as caught:
        cost_of(given, None, None, "here")
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    "given", [None, "12", {}, {"printed": "1"}, {"right": 1}, {"right": " "}, {"right": "1", "gpus": "2"}]
)
def test_any_other_shape_is_refused(given: object) -> None:
    with pytest.raises(InputError, match=r"^here: 'cost' is .*; an object with 'right', .* is needed"):
        check_fields(given, "here")


def planted(folder: Path, change: Callable[[dict[str, Any]], None]) -> Ledger:
    """The ledger with one entry changed."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    path = folder / "footprint" / "10-estimate.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(next(entry for entry in content["figures"] if entry["id"] == "footprint:estimate-13b"))
    path.write_text(json.dumps(content), encoding="utf-8")
    return read(folder)


def test_a_planted_expression_turns_the_check_red(tmp_path: Path) -> None:
    ledger = planted(tmp_path, lambda entry: entry.update(cost={"right": "no_such_function()"}))
    assert any("footprint:estimate-13b: cost: right:" in line for line in ledger.check())


def test_only_an_erratum_has_a_cost(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'cost' stands at a figure that is unverifiable; only an erratum has one"):
        planted(tmp_path, lambda entry: entry.update(verdict="unverifiable", cost={"right": "1"}))


def test_the_formulas_right_amount_counts_where_the_entry_says_nothing_else(tmp_path: Path) -> None:
    by_id = load().by_id
    cell = by_id["inference:70b-kv"].cost
    assert cell == Cost(GB // 2, 1_342_177_280)
    assert by_id["footprint:llava-examples-source"].cost is None
    # its formula would give weights and cache at other arguments; its own words stand instead
    ledger = planted(tmp_path, lambda entry: entry.pop("cost"))
    assert ledger.by_id["footprint:estimate-13b"].cost is None


def test_nothing_but_an_erratum_shows_a_cost() -> None:
    for item in load().figures:
        if item.verdict not in ERRATA:
            assert item.cost is None
        elif item.cost is not None:
            assert item.json()["cost"]["bytes"] == item.cost.right - item.cost.printed


def test_the_command_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figure", "inference:70b-total-batch-32"]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["costs"] == "28.1 GB (26.1 GiB) short, 1 × A100 80GB too few"
    assert main(["figure", "footprint:linear-requests"]) == 0
    assert "(LLaMA-2 7B, ten requests of 4,096 tokens, from the exact total of one)" in capsys.readouterr().out
    assert main(["figure", "footprint:13b-total"]) == 0
    assert "costs" not in capsys.readouterr().out
