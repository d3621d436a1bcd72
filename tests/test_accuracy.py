"""The errors of the engines' rules: what is priced, what the table says, when a range is stale. With planted faults."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlmmem.accuracy import (
    LEFT_OUT,
    Prediction,
    covered,
    interval,
    predict,
    predictions,
    ranges,
    reasons,
    settings_of,
    table,
    targets,
    verdicts,
    width,
)
from vlmmem.accuracy.formulas import FORMULAS, Case
from vlmmem.accuracy.intervals import coverage, fit, stale, write
from vlmmem.accuracy.lines import line_of, load_reasons
from vlmmem.accuracy.statistics import conformal, median_absolute
from vlmmem.catalog import find_model, model_facts
from vlmmem.engines.reservation import Reservation
from vlmmem.errors import InputError
from vlmmem.measured import SPLITS, run_of, runs, split_of
from vlmmem.memory.weights import checkpoint_bytes
from vlmmem.record import replace
from vlmmem.terms import Term

from .conftest import ROOT

FOUND, LEFT = predictions()
RUNS = {run.id: run for run in runs()}


def made(error: float, split: str = "fitted", **changes: Any) -> Prediction:
    """A prediction that is off by so much."""
    one = Prediction("r", "vllm", "0.19", "weights", split, 100.0, 99.5, 100.5, 100 * (1 + error), "f", "m", False)
    return replace(one, **changes)


# --- what is priced ---


def test_no_run_is_dropped_in_silence() -> None:
    told = {item.run for item in FOUND} | {item.run for item in LEFT}
    assert [run for run in RUNS if run not in told] == []
    assert all(item.reason and "\n" not in item.reason for item in LEFT)


def test_the_measured_quantity_is_not_used() -> None:
    """A run whose printed figures are changed keeps its predictions, but for those that start from the printed pool."""
    known = {item.run for item in FOUND if item.quantity == "kv_pool"}
    for run in [RUNS[name] for name in sorted(known)][:5]:
        changed = tuple(
            (name, value if value.dimension in ("tokens", "blocks") else replace(value, value=value.value * 0.97))
            for name, value in run.measured
        )
        before, after = (
            {item.quantity: item.predicted for item in predict(one)[0] if "given" not in item.quantity}
            for one in (run, replace(run, measured=changed))
        )
        assert before == after


def test_a_run_without_a_model_says_why() -> None:
    run = next(run for run in RUNS.values() if run.catalogue is None)
    found, left = predict(run)
    assert found == ()
    assert [item.quantity for item in left] == [""]
    assert left[0].reason


def test_what_a_run_does_not_state_is_told() -> None:
    run = replace(next(iter(RUNS.values())), batch_tokens=None, sequences=None, catalogue="llama-3.1-8b", why="")
    _, unknown = settings_of(run, find_model("llama-3.1-8b"))
    assert {"batch_tokens", "sequences"} <= set(unknown)


def test_several_gpus_without_a_split_are_refused() -> None:
    run = replace(
        next(iter(RUNS.values())), gpus=4, tp=None, pp=None, scope="per_gpu", catalogue="llama-3.1-8b", why=""
    )
    with pytest.raises(InputError, match="4 GPUs"):
        settings_of(run, find_model("llama-3.1-8b"))


def test_an_unknown_word_for_a_format_is_refused() -> None:
    run = replace(next(iter(RUNS.values())), kv_dtype="seven bits", catalogue="llama-3.1-8b", why="")
    with pytest.raises(InputError, match="seven bits"):
        settings_of(run, find_model("llama-3.1-8b"))


# --- the table ---


def test_a_line_by_hand() -> None:
    line = line_of([made(0.1), made(-0.3, run="w"), made(0.0)], "vllm", "0.19", "weights", "fitted")
    assert (line.records, line.worst, round(line.worst_error, 9)) == (3, "w", -0.3)
    assert (round(line.mean, 9), round(line.median, 9), round(line.bias, 9)) == (0.133333333, 0.1, -0.066666667)
    assert round(line.within_rounding, 9) == round(1 / 3, 9)


def test_a_changed_number_turns_the_table() -> None:
    """Planted fault: one printed figure of one run is changed."""
    items = [made(0.001 * at, "left out by model", run=f"r{at}") for at in range(5)]
    before = table(items)
    changed = [*items[:-1], replace(items[-1], measured=50.0)]
    assert table(changed) != before
    assert table(changed, split=LEFT_OUT)[0].worst == "r4"


def test_left_out_adds_up_both_ways() -> None:
    items = [made(0.1, "left out by model"), made(0.2, "left out by source"), made(0.9)]
    lines = {line.split: line.records for line in table(items) if line.release == "all"}
    assert lines == {LEFT_OUT: 2, "left out by model": 1, "left out by source": 1, "fitted": 1}


def test_a_split_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no record"):
        table([made(0.1)], split="left out by moon")


def test_targets_look_at_left_out_records_alone() -> None:
    """Planted fault: a fitted record, however bad, moves no target; a left-out one does."""
    good = made(0.001, "left out by model")
    met = {item.target.id: item.met for item in verdicts([good, made(9.0)])}
    missed = {item.target.id: item.met for item in verdicts([good, made(9.0, "left out by source")])}
    assert (met["weights"], missed["weights"]) == (True, False)
    assert met["kv-pool"] is None


def test_every_target_of_the_issue_is_there() -> None:
    assert {item.id: item.limit for item in targets()} == {
        "weights": 0.01,
        "bytes-a-kv-token": 1.0,
        "kv-tokens-given-the-pool": 0.95,
        "kv-pool": 0.02,
        "max-concurrency": 0.03,
        "activation-peak-v1": 0.1,
        "activation-peak-older": 0.15,
        "transformers-peak": 0.03,
        "transformers-forward": 1.0,
    }


# --- the split ---


def test_the_split_follows_its_rule() -> None:
    """Nobody edits a split by hand unnoticed: it follows from the source and the family."""
    wrong = [run.id for run in RUNS.values() if run.split not in ("own", split_of(run.source, run.family))]
    assert wrong == []
    assert {run.split for run in RUNS.values()} <= set(SPLITS)


def test_an_edited_split_is_seen() -> None:
    """Planted fault: a run that was left out is called fitted."""
    run = next(run for run in RUNS.values() if run.split.startswith("left out"))
    edited = run_of({**run.json(), "split": "fitted"})
    assert edited.split != split_of(edited.source, edited.family)


# --- reasons ---


def unexplained() -> list[tuple[str, str]]:
    """The worst case of each quantity among left-out records that misses a target, without a reason."""
    found = []
    for target in targets():
        items = [item for item in FOUND if item.left_out and target.covers(item)]
        for engine, quantity in {(item.engine, item.quantity) for item in items}:
            worst = max(
                (item for item in items if (item.engine, item.quantity) == (engine, quantity)),
                key=lambda item: (not item.within_rounding, abs(item.error)),
            )
            if target.misses(worst) and (worst.run, quantity) not in reasons():
                found.append((worst.run, quantity))
    return found


def test_each_worst_case_beyond_its_target_has_a_reason() -> None:
    assert unexplained() == []


def test_a_missing_reason_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: all reasons are gone."""
    if not reasons():
        pytest.skip("every target is met by every record")
    monkeypatch.setattr("tests.test_accuracy.reasons", dict, raising=True)
    assert unexplained()


def test_a_reason_names_a_run(tmp_path: Path) -> None:
    """Planted fault: a reason for a run that is not in the data."""
    file = tmp_path / "reasons.json"
    file.write_text(json.dumps({"reasons": [{"run": "gone", "quantities": ["weights"], "reason": "why"}]}))
    with pytest.raises(InputError, match="gone"):
        load_reasons(file)


# --- ranges ---


def test_conformal_by_hand() -> None:
    sizes = [0.01 * at for at in range(1, 20)]
    assert conformal(sizes, 0.9) == 0.18
    assert conformal(sizes[:9], 0.9) == 0.09
    assert conformal(sizes[:8], 0.9) is None
    assert median_absolute([0.3, -0.1]) == 0.2


def test_the_ranges_are_fresh() -> None:
    assert stale(FOUND) == ()


def test_stale_ranges_are_seen(tmp_path: Path) -> None:
    """Planted fault: a fitted run's figure changes after the ranges were written."""
    file = tmp_path / "intervals.json"
    items = [made(0.002 * at, run=f"r{at}", model=f"m{at}") for at in range(12)]
    write(items, file)
    assert stale(items, file) == ()
    changed = [*items[:-1], replace(items[-1], measured=60.0), replace(items[-2], measured=60.0)]
    assert "python -m vlmmem.accuracy write is needed" in stale(changed, file)[0]


def test_left_out_records_make_no_range() -> None:
    """Planted fault: left-out records, and records that state too little, are handed to the fit."""
    items = [made(0.5, "left out by model"), made(0.5, unknown=("context",))]
    assert fit(items) == ()


def test_too_few_records_are_assumed() -> None:
    few = fit([made(0.001)] * 30)
    assert [(item.basis, item.records, item.models) for item in few] == [("assumed", 30, 1)]
    assert few[0].half_width >= 0.05
    many = fit([made(0.001 * at, model=f"m{at}") for at in range(9)])
    assert {(item.basis, item.models) for item in many} == {("measured", 9)}


def test_an_interval_holds_its_estimate() -> None:
    low, high, records = interval("vllm", "0.19", "weights", 10**10)
    assert low <= 10**10 <= high
    assert type(low) is type(high) is type(records) is int
    with pytest.raises(InputError, match="0 or more"):
        interval("vllm", "0.19", "weights", -1)
    assert width("vllm", "0.19", "no such figure").basis == "assumed"


def test_a_reservation_gets_ranges() -> None:
    terms = (
        Term("weights", 10**10, "", "derived", ""),
        Term("runtime:non_torch", 10**8, "", "measured", ""),
        Term("runtime:graphs", 10**9, "", "measured", ""),
        Term("kv_cache", 10**10, "", "derived", ""),
    )
    found = ranges(Reservation("vllm", "0.19", terms, kv_tokens=1000, max_concurrency=2.5))
    assert set(found) == {"weights_bytes", "runtime_bytes", "kv_pool_bytes", "kv_tokens", "max_concurrency"}
    for name, size in (("weights_bytes", 10**10), ("runtime_bytes", 11 * 10**8), ("max_concurrency", 2.5)):
        assert found[name]["low"] <= size <= found[name]["high"]
        assert found[name]["basis"] in ("measured", "assumed")


def test_coverage_looks_at_left_out_records_alone() -> None:
    items = [made(0.0, "left out by model"), made(9.0, "left out by source"), made(9.0)]
    assert coverage(items) == (1, 2)
    assert not covered(made(9.0))


# --- formulas of others ---


def test_formulas_by_hand() -> None:
    name = "llama-3.1-8b"
    weights = checkpoint_bytes(name)
    case = Case(model_facts(name)["config"], weights, find_model(name).parameters, 8192, 2, 1, 80 * 2**30, 0.9)
    said = {item.id: item.answer(case) for item in FORMULAS}
    assert said["llm-d-planner"]["kv_bytes_per_token"] == 131072 / 2
    assert said["llm-d-planner"]["activations"] == 4.8 * 2**30
    pool = (80 * 0.9 - 0.6) * 2**30 - weights / 2 - 2.4 * 2**30
    assert said["llm-d-planner"]["kv_pool"] == pytest.approx(pool)
    assert said["one-fifth"]["total"] == pytest.approx(0.6 * weights)
    assert all(item.address.startswith("https://") and item.says for item in FORMULAS)


def test_the_peers_are_of_these_runs() -> None:
    stored = json.loads((ROOT / "book" / "peers-measured.json").read_text(encoding="utf-8"))
    assert set(stored["runs"]) <= set(RUNS)
    assert all(says["answers"] and says["leaves_out"] for says in stored["tools"].values())
    for row in stored["runs"].values():
        assert {item.id for item in FORMULAS} | set(stored["tools"]) == set(row)


def test_a_range_reads_no_measured_run() -> None:
    """`vlmmem estimate --engine` shows ranges; it must not load every run for them."""
    code = "import sys; from vlmmem.accuracy import ranges; print([name for name in sys.modules if 'measured' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
    planted = code.replace("ranges;", "predictions;")
    done = subprocess.run([sys.executable, "-c", planted], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() != "[]"
