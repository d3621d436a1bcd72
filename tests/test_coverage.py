"""Gate: every number of every line is quoted by an entry or excluded with a reason. Each planted fault is one line."""

import json
import os
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmmem import coverage
from vlmmem.cite.book import ledger_problems
from vlmmem.cli import main
from vlmmem.coverage import (
    LARGEST,
    Account,
    Quotation,
    account,
    accounts,
    as_read,
    compare,
    digest,
    documents,
    exclusions,
    line_of,
    numbers_on,
    quotations_of,
    read_text,
    record,
    recorded,
    runs_of,
)
from vlmmem.errors import InputError

TEXT = """\
# A guide to memory

1. Weights: **26 GB** for 13B in FP16
From [here](https://example.org/pdf/2309.06180) (accessed 2025-01-31)
| 4 | 0.5 GB | 140 GB | 140.5 GB |
- 2-4× A100 40GB with TP=2-4, 40-60% waste
"""
QUOTED = [
    Quotation("guide:weights", 3, "Weights: 26 GB for 13B", "guide/1.json: guide:weights"),
    Quotation("guide:kv", 5, "0.5 GB", "guide/1.json: guide:kv"),
    Quotation("guide:weights-4", 5, "140 GB", "guide/1.json: guide:weights-4"),
    Quotation("guide:total", 5, "140.5 GB", "guide/1.json: guide:total"),
    Quotation("guide:gpus", 6, "2-4× A100 40GB with TP=2-4", "guide/1.json: guide:gpus"),
    Quotation("guide:waste", 6, "40-60%", "guide/1.json: guide:waste"),
]
EXCLUDED: dict[str, Any] = {
    "reasons": {
        "list number": "It counts the items of a list.",
        "link": "It is a part of an address.",
        "date of access": "It says when the author read the source.",
        "table head": "It names a row or a column.",
    },
    "excluded": {
        "guide": [
            {"line": 3, "numbers": ["1"], "reason": "list number"},
            {"line": 4, "numbers": ["2309.06180"], "reason": "link"},
            {"line": 4, "numbers": ["2025", "01", "31"], "reason": "date of access"},
            {"line": 5, "numbers": ["4"], "reason": "table head"},
        ]
    },
}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """The document's text in a file."""
    path = tmp_path / "guide.md"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def lines(tmp_path: Path, text: Path) -> Path:
    """The folder of what is kept of the lines, as the maintainer's command records it."""
    folder = tmp_path / "lines"
    folder.mkdir()
    (tmp_path / "documents.json").write_text(json.dumps({"guide": {"lines": TEXT.count("\n")}}))
    (folder / "exclusions.json").write_text(json.dumps(EXCLUDED))
    assert record("guide", text, QUOTED, folder) == []
    return folder


def _account(folder: Path, quoted: list[Quotation] = QUOTED) -> Account:
    return account("guide", recorded("guide", folder), quoted, exclusions("guide", folder))


# --- what a number is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("13B, 80GB, 4k, 2x, 5120-bit", "13 80 4 2 5120"),
        ("40-60% and 60–80%", "40 60 60 80"),
        ("1,049.6 GB, 12,34, 1,0000", "1,049.6 12 34 1 0000"),
        ("0.50, 1e9, 70e9, 2e-3, 3em", "0.50 1e9 70e9 2e-3 3"),
        ("0.1 × (26 + 66) = 9.2, 10×, n², 10², √64", "0.1 26 66 9.2 10 10 64"),
        ("INT8, FP16/BF16, A100, HBM3e, Q4_K_M, kv_2, _4", ""),
        ("LLaMA-2, GPT-4, Llama-3.1-8B-Instruct, v0.6.3, torch.float16, GPTQ-4bit", ""),
        ("LLaMA-2 13B, LLaMA 2 70B, 7B-13B, 4k-128k, 8-bit-wide", "13 2 70 7 13 4 128 8"),
        ("FP16=2, TP=2-4, batch_size=1, [1, 4, 8], cuda:0, (seq=4096)", "2 2 4 1 1 4 8 0 4096"),
        ("https://arxiv.org/pdf/2305.13245v2.pdf, 2025-01-31, 1l8t8n8", "2305.13245 2025 01 31 1"),
        (":.2f, {bs:2d}, 1024 ** 3, 5/6.", "2 2 1024 3 5 6"),
        ("", ""),
    ],
)
def test_numbers(line: str, numbers: str) -> None:
    found = numbers_on(line)
    assert [number.text for number in found] == numbers.split()
    assert [line[number.start : number.stop] for number in found] == numbers.split()


@pytest.mark.parametrize(
    ("quotation", "line", "runs"),
    [
        ("0.5 GB", "| 0.5 GB | 140.5 GB |", [(0, 1)]),
        ("5 GB", "0.5 GB", []),
        ("40", "40.5", []),
        ("049.6", "1,049.6", []),
        ("weigh", "weights", []),
        ("70B", "Llama-3.1-70B | 70B", [(0, 0), (0, 1)]),
        ("2-4", "2-4 with TP=2-4", [(0, 2), (2, 4)]),
        ("× 3", "2 × 3 × 4", [(1, 2)]),
        ("", "2", []),
    ],
)
def test_where_a_quotation_stands(quotation: str, line: str, runs: list[tuple[int, int]]) -> None:
    assert runs_of(quotation, line) == runs


def test_blanks_and_bold_do_not_count() -> None:
    assert digest("   - **Total**: 800 KB\t") == digest("- Total: 800 KB")
    assert as_read("1024 ** 3") == "1024 ** 3"
    assert digest("1024 ** 3") != digest("1024  3")
    assert re.fullmatch("[0-9a-f]{12}", digest("\ud800"))


@given(st.text(alphabet="aK_ 0123456789.,-–e%²×é", max_size=30))
def test_numbers_stand_apart_and_in_order(line: str) -> None:
    found = numbers_on(line)
    assert all(line[number.start : number.stop] == number.text for number in found)
    assert all(first.stop <= second.start for first, second in pairwise(found))
    assert all(not line[number.start - 1 : number.start].isalpha() for number in found if number.start)
    assert runs_of(line, line) in ([], [(0, len(found))])


# --- the account -----------------------------------------------------------------------------------------------------


def test_everything_is_accounted_for(lines: Path) -> None:
    found = _account(lines)
    assert found.problems == ()
    assert (found.lines, found.numbers, found.entries) == (6, 18, 6)
    assert (found.quoted, found.excluded, found.open) == (12, 6, 0)
    assert found.json()["unaccounted"] == []


def test_the_text_is_not_kept(lines: Path) -> None:
    kept = (lines / "guide.json").read_text(encoding="utf-8")
    assert not any(word in kept for word in ("memory", "Weights", "GB", "waste", "example"))
    assert kept.count("\n") == TEXT.count("\n") + 2


def _replace(id_: str, **fields: Any) -> Callable[[], list[Quotation]]:
    return lambda: [item._replace(**fields) if item.id == id_ else item for item in QUOTED]


# What an entry can get wrong: (the entries, the lines that are told)
ENTRIES: dict[str, tuple[Callable[[], list[Quotation]], list[str]]] = {
    "a changed digit": (
        _replace("guide:total", text="141.5 GB"),
        [
            (
                "guide/1.json: guide:total: '141.5 GB' was not found on line 5 of guide; quote the line to the letter"
                " and record it"
            ),
            "guide: line 5: neither quoted by an entry nor excluded: 140.5",
        ],
    ),
    "a changed word": (
        _replace("guide:weights", text="Weights: 26 GB of 13B"),
        [
            (
                "guide/1.json: guide:weights: 'Weights: 26 GB of 13B' was not found on line 3 of guide; quote the line"
                " to the letter and record it"
            ),
            "guide: line 3: neither quoted by an entry nor excluded: 26, 13",
        ],
    ),
    "another line": (
        _replace("guide:kv", line=4),
        [
            "guide/1.json: guide:kv: '0.5 GB' was not found on line 4 of guide; it stands on line 5",
            "guide: line 5: neither quoted by an entry nor excluded: 0.5",
        ],
    ),
    "a line behind the end": (
        _replace("guide:kv", line=7),
        [
            "guide/1.json: guide:kv: '0.5 GB' was not found on line 7 of guide; it stands on line 5",
            "guide: line 5: neither quoted by an entry nor excluded: 0.5",
        ],
    ),
    "an entry that is gone": (
        lambda: [item for item in QUOTED if item.id != "guide:waste"],
        ["guide: line 6: neither quoted by an entry nor excluded: 40, 60"],
    ),
    "an entry less of two that say the same": (
        lambda: [item for item in QUOTED if item.id != "guide:total"],
        ["guide: line 5: neither quoted by an entry nor excluded: 140.5"],
    ),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_fault_of_an_entry_is_told(lines: Path, name: str) -> None:
    quoted, told = ENTRIES[name]
    assert list(_account(lines, quoted()).problems) == told


def test_an_entry_accounts_for_one_place_of_its_words() -> None:
    line = line_of("16 GB in FP16, 16 GB in BF16", ["16 GB"])
    entries = [Quotation(f"guide:{name}", 1, "16 GB", name) for name in ("fp16", "bf16")]
    assert account("guide", [line], entries[:1], []).unaccounted == ((1, ("16",)),)
    assert account("guide", [line], entries, []).unaccounted == ()
    third = Quotation("guide:int8", 1, "16 GB", "guide/2.json: guide:int8")
    assert account("guide", [line], [*entries, third], []).problems == (
        "guide/2.json: guide:int8: quotes what guide:fp16 quotes, '16 GB'; one entry judges one place",
    )


def test_words_that_stand_once_leave_the_others_their_choice() -> None:
    quoted = ["16 GB", "FP16: 16 GB"]
    line = line_of("FP16: 16 GB, BF16: 16 GB", quoted)
    entries = [Quotation(text, 1, text, text) for text in quoted]
    assert account("guide", [line], entries, []).unaccounted == ()


def _exclude(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        content = json.loads(json.dumps(EXCLUDED))
        change(content)
        (folder / "exclusions.json").write_text(json.dumps(content))

    return write


def _more(line: int, numbers: list[str], reason: str = "link") -> Callable[[Path], None]:
    return _exclude(
        lambda content: content["excluded"]["guide"].append({"line": line, "numbers": numbers, "reason": reason})
    )


EXCLUSIONS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "a number that nobody accounts for": (
        _exclude(lambda content: content["excluded"]["guide"].__delitem__(0) or content["reasons"].pop("list number")),
        ["guide: line 3: neither quoted by an entry nor excluded: 1"],
    ),
    "an exclusion of what is not there": (
        _more(2, ["7"]),
        ["lines/exclusions.json: guide line 2: 7 is not there, or excluded twice; drop it"],
    ),
    "an exclusion on no line": (
        _more(70, ["7"]),
        ["lines/exclusions.json: guide line 70: 7 is not there, or excluded twice; drop it"],
    ),
    "an exclusion twice": (
        _more(4, ["31"]),
        ["lines/exclusions.json: guide line 4: 31 is not there, or excluded twice; drop it"],
    ),
    "an exclusion of what an entry quotes": (
        _more(5, ["140.5"]),
        ["lines/exclusions.json: guide line 5: 140.5 is quoted by an entry; exclude only what none quotes"],
    ),
}


@pytest.mark.parametrize("name", EXCLUSIONS)
def test_a_fault_of_an_exclusion_is_told(lines: Path, name: str) -> None:
    plant, told = EXCLUSIONS[name]
    plant(lines)
    assert list(_account(lines).problems) == told


BAD_EXCLUSIONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a reason that is not listed": (
        _more(2, ["7"], "dull"),
        "guide line 2: reason 'dull' is not listed; one of list number, link, date of access, table head",
    ),
    "a reason that is not used": (
        _exclude(lambda content: content["reasons"].update({"port": "It is a port."})),
        "reason 'port' excludes nothing; drop it",
    ),
    "a reason without a sentence": (
        _exclude(lambda content: content["reasons"].update({"link": " "})),
        "'reasons' must give each reason its sentence",
    ),
    "a document that is none": (
        _exclude(lambda content: content["excluded"].update({"other": []})),
        "'excluded' must be an object of documents by name",
    ),
    "a part that is missing": (
        _exclude(lambda content: content.pop("reasons")),
        "an object with 'reasons' and 'excluded' is needed",
    ),
    "numbers that are no texts": (
        _exclude(lambda content: content["excluded"]["guide"].append({"line": 3, "numbers": [1], "reason": "link"})),
        (
            "guide: \"{'line': 3, 'numbers': [1], 'reason': 'link'}\"; 'line', 'numbers' (a list of texts) and"
            " 'reason' are needed"
        ),
    ),
    "a line that is no number": (
        _exclude(lambda content: content["excluded"]["guide"].append({"line": True, "numbers": ["1"], "reason": "x"})),
        (
            "guide: \"{'line': True, 'numbers': ['1'], 'reason': 'x'}\"; 'line', 'numbers' (a list of texts) and"
            " 'reason' are needed"
        ),
    ),
    "a reason that is no text": (
        _exclude(lambda content: content["excluded"].update(guide=[{"line": 3, "numbers": ["1"], "reason": []}])),
        (
            "guide: \"{'line': 3, 'numbers': ['1'], 'reason': []}\"; 'line', 'numbers' (a list of texts) and 'reason'"
            " are needed"
        ),
    ),
    "no list": (
        _exclude(lambda content: content["excluded"].update(guide=3)),
        "guide: '3'; 'line', 'numbers' (a list of texts) and 'reason' are needed",
    ),
}


@pytest.mark.parametrize("name", BAD_EXCLUSIONS)
def test_exclusions_are_read_strictly(lines: Path, name: str) -> None:
    plant, told = BAD_EXCLUSIONS[name]
    plant(lines)
    with pytest.raises(InputError) as caught:
        exclusions("guide", lines)
    assert str(caught.value) == f"lines/exclusions.json: {told}"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (3, "3"),
        ({}, "{}"),
        ({"digest": 1}, "{'digest': 1}"),
        ({"digest": "a", "text": ""}, "{'digest': 'a', 'text': ''}"),
        ({"digest": "a", "numbers": ["x"]}, "{'digest': 'a', 'numbers': ['x']}"),
        ({"digest": "a", "numbers": "1"}, "{'digest': 'a', 'numbers': '1'}"),
        ({"digest": "a", "quotations": {"b": []}}, "{'digest': 'a', 'quotations': {'b': []}}"),
        ({"digest": "a", "quotations": {"b": [[0, 1]]}}, "{'digest': 'a', 'quotations': {'b': [[0, 1]]}}"),
        ({"digest": "a", "quotations": {"b": [[0]]}}, "{'digest': 'a', 'quotations': {'b': [[0]]}}"),
        ({"digest": "a", "quotations": {"b": [[False, 0]]}}, "{'digest': 'a', 'quotations': {'b': [[False, 0]]}}"),
    ],
)
def test_lines_are_read_strictly(lines: Path, line: object, told: str) -> None:
    path = lines / "guide.json"
    content = json.loads(path.read_text())
    content[1] = line
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        recorded("guide", lines)
    needed = "a digest, perhaps 'numbers' and 'quotations', is needed"
    assert str(caught.value) == f"lines/guide.json: line 2: {told!r}; {needed}"


@pytest.mark.parametrize(("content", "found"), [("[]", "0"), ("{}", "no")])
def test_every_line_is_kept(lines: Path, content: str, found: str) -> None:
    (lines / "guide.json").write_text(content)
    with pytest.raises(InputError, match=f"lines/guide.json: {found} lines; 6 are needed, as documents.json says"):
        recorded("guide", lines)


# --- the documents ---------------------------------------------------------------------------------------------------


def test_every_number_of_the_documents_is_accounted_for() -> None:
    for found in accounts(quotations=quotations_of):
        assert found.problems == ()


@pytest.mark.slow
@pytest.mark.parametrize("document", documents())
def test_a_changed_quotation_of_any_entry_is_told(document: str) -> None:
    lines, quoted, excluded = recorded(document), quotations_of(document), exclusions(document)
    for place, item in list(enumerate(quoted))[::7]:
        changed = [*quoted[:place], item._replace(text=f"{item.text} more"), *quoted[place + 1 :]]
        assert account(document, lines, changed, excluded).problems[0].startswith(f"{item.where}: ")


def test_the_ledgers_gate_tells_what_is_unaccounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(coverage.LINES.parent / "documents.json", tmp_path)
    folder = Path(shutil.copytree(coverage.LINES, tmp_path / "lines"))
    content = json.loads((folder / "exclusions.json").read_text(encoding="utf-8"))
    content["excluded"]["footprint"] = [item for item in content["excluded"]["footprint"] if item["line"] != 71]
    (folder / "exclusions.json").write_text(json.dumps(content))
    assert ledger_problems() == []
    monkeypatch.setattr(coverage, "LINES", folder)
    assert ledger_problems() == ["footprint: line 71: neither quoted by an entry nor excluded: 800, 8192, 10"]


# --- the text --------------------------------------------------------------------------------------------------------


def _told(lines: Path, copy: str) -> list[str]:
    return [item.told() for item in compare(recorded("guide", lines), copy.split("\n"), QUOTED)]


def test_the_same_text_has_no_difference(lines: Path) -> None:
    assert _told(lines, TEXT) == []
    assert _told(lines, TEXT.replace("**", "").replace("\n", "  \n\n  ")) == []


# What a copy can have otherwise: (what is replaced, by what, the lines that are told)
COPIES: dict[str, tuple[str, str, list[str]]] = {
    "a changed number": (
        "140.5",
        "141",
        [
            (
                "line 5 is another (line 5 of the text); numbers not there: 140.5; other numbers: 141;"
                " entries not to be found: guide:total; entries that still stand: guide:kv, guide:weights-4"
            )
        ],
    ),
    "a changed word": (
        "guide to",
        "guide on",
        ["line 1 is another (line 1 of the text)"],
    ),
    "a line less": (
        "| 4 | 0.5 GB | 140 GB | 140.5 GB |\n",
        "",
        [
            (
                "line 5 is missing; numbers not there: 4, 0.5, 140, 140.5; entries not to be found: guide:kv,"
                " guide:weights-4, guide:total"
            )
        ],
    ),
    "a line more": (
        "\n1.",
        "\nfor 7B\n1.",
        ["line 3 of the text is not in the document (7)"],
    ),
    "a line more without numbers": (
        "\n1.",
        "\nwords\n1.",
        ["line 3 of the text is not in the document"],
    ),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_difference_is_told(lines: Path, name: str) -> None:
    old, new, told = COPIES[name]
    assert old in TEXT
    assert _told(lines, TEXT.replace(old, new)) == told


def test_a_text_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "copy.md"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo \x0c\x1e\n")
    assert read_text(path, 2) == ["one", "two \x0c\x1e"]


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Path.exists, "cannot be read (No such file or directory); the document's text in a file is needed"),
        (lambda path: path.mkdir(), "cannot be read (Is a directory); the document's text in a file is needed"),
        (_pipe, "is no file; the document's text in a file is needed"),
        (lambda path: path.write_bytes(b"13B \xff"), "byte 4 is not UTF-8; save the text as UTF-8"),
        (
            lambda path: path.write_bytes(b" " * (LARGEST + 1)),
            f"larger than {LARGEST} bytes, which no document is; the document's text is needed",
        ),
        (
            lambda path: path.write_bytes(b"\n" * 11),
            "11 lines; at most 10 are compared with this document",
        ),
    ],
)
def test_what_is_no_text_gets_one_line(tmp_path: Path, make: Callable[[Path], object], told: str) -> None:
    path = tmp_path / "copy.md"
    make(path)
    with pytest.raises(InputError) as caught:
        read_text(path, 10)
    assert str(caught.value) == f"{path}: {told}"


@pytest.mark.slow
def test_a_long_line_takes_no_long_time() -> None:
    line = "2 " * 100_000
    assert len(numbers_on(line)) == 100_000
    assert len(runs_of("2", line)) == 100_000


# --- the commands ----------------------------------------------------------------------------------------------------


def test_recording_refuses_what_does_not_stand(lines: Path, text: Path) -> None:
    before = (lines / "guide.json").read_text()
    entries = [*QUOTED, Quotation("guide:x", 5, "4.5 GB", "guide/1.json: guide:x")]
    assert record("guide", text, entries, lines) == [
        (
            "guide/1.json: guide:x: '4.5 GB' does not stand on line 5 of guide; quote it to the letter, whole words and"
            " numbers"
        )
    ]
    assert (lines / "guide.json").read_text() == before


def test_recording_needs_every_line(lines: Path, text: Path) -> None:
    text.write_text("one\ntwo\n")
    with pytest.raises(InputError, match=r"guide.md: 2 lines; 6 are needed, as documents.json says of guide"):
        record("guide", text, QUOTED, lines)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "'record DOCUMENT FILE' is needed"),
        (["write", "footprint", "x"], "'record DOCUMENT FILE' is needed"),
        (["record", "guide", "x"], "document 'guide' is not known; one of footprint, inference, estimation"),
        (["record", "footprint", "/nowhere"], "/nowhere: cannot be read (No such file or directory); the document's"),
    ],
)
def test_a_wrong_call_of_the_recording_gets_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert coverage.main(words) == 2
    assert capsys.readouterr().err.startswith(f"vlmmem: error: {told}")


def test_the_recording_command(
    lines: Path, text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quoted = list(QUOTED)
    monkeypatch.setattr(coverage, "LINES", lines)
    monkeypatch.setattr(coverage, "quotations_of", {"guide": quoted}.__getitem__)
    (lines / "guide.json").unlink()
    assert coverage.main(["record", "guide", str(text)]) == 0
    assert capsys.readouterr().out == "lines/guide.json: written\n"
    assert _account(lines).problems == ()
    quoted.append(Quotation("guide:x", 1, "5 GB", "x"))
    assert coverage.main(["record", "guide", str(text)]) == 1
    assert capsys.readouterr().out.startswith("x: '5 GB' does not stand on line 1 of guide; ")


@pytest.fixture
def command(
    lines: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """`vlmmem coverage` over the guide instead of the documents: exit code and output."""
    monkeypatch.setattr(coverage, "LINES", lines)
    monkeypatch.setattr(coverage, "accepted_quotations", {"guide": QUOTED}.__getitem__)

    def call(*arguments: str) -> tuple[int, str]:
        code = main(["coverage", *arguments])
        said = capsys.readouterr()
        assert said.err == ""
        return code, said.out

    return call


def test_the_command(command: Callable[..., tuple[int, str]]) -> None:
    code, out = command()
    assert code == 0
    head, row = (line.split() for line in out.splitlines())
    assert dict(zip(head, row, strict=True)) == {
        "document": "guide",
        "lines": "6",
        "numbers": "18",
        "entries": "6",
        "quoted": "12",
        "excluded": "6",
        "unaccounted": "0",
    }
    code, out = command("--json")
    assert (code, json.loads(out)["differences"]) == (0, None)


def test_the_command_tells_what_is_unaccounted(command: Callable[..., tuple[int, str]], lines: Path) -> None:
    EXCLUSIONS["a number that nobody accounts for"][0](lines)
    code, out = command("--document", "guide")
    assert (code, out.splitlines()[2:]) == (1, ["guide: line 3: neither quoted by an entry nor excluded: 1"])
    code, out = command("--json")
    assert (code, json.loads(out)["documents"][0]["unaccounted"]) == (1, [{"line": 3, "numbers": ["1"]}])


def test_the_command_compares_a_copy(command: Callable[..., tuple[int, str]], text: Path) -> None:
    code, out = command("--document", "guide", "--text", str(text))
    assert (code, out.splitlines()[-1]) == (0, "every line of the text is the one that the ledger judges (guide)")
    text.write_text(TEXT.replace("26 GB", "27 GB"), encoding="utf-8")
    code, out = command("--document", "guide", "--text", str(text))
    assert (code, out.splitlines()[2:]) == (
        1,
        [
            (
                "line 3 is another (line 3 of the text); numbers not there: 26; other numbers: 27; entries not to be"
                " found: guide:weights"
            )
        ],
    )
    code, out = command("--document", "guide", "--text", str(text), "--json")
    assert code == 1
    assert json.loads(out)["differences"] == [
        {
            "line": 3,
            "copy_line": 3,
            "recorded": ["1", "26", "13"],
            "found": ["1", "27", "13"],
            "standing": [],
            "gone": ["guide:weights"],
        }
    ]


def test_the_command_reads_the_documents(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["coverage", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["documents"]
    assert [item["document"] for item in found] == ["footprint", "inference", "estimation"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--document", "guide"], "document 'guide' is not known; one of footprint, inference, estimation"),
        (["--text", "x"], "--text is given without --document; both are needed, as the text is of one document"),
        (["--document", "footprint", "--text", "/nowhere/x"], "/nowhere/x: cannot be read (No such file or directory)"),
        (["--document", "footprint", "--text", ""], ": cannot be read "),
        (["--document", "footprint", "--text", "a\0b"], "a\0b: cannot be read (embedded null byte)"),
    ],
)
def test_bad_input_gets_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert main(["coverage", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"vlmmem: error: {told}".replace("error: :", "error: .:"))
    assert said.err.count("\n") == 1
