"""Conventions: a closed list, each with a reason; a fault in the data is one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlmmem import ledger
from vlmmem.errors import InputError
from vlmmem.ledger.conventions import PATH, Settings, conventions, literal, read

Data = dict[str, Any]


def test_the_literal_reading_takes_units_as_they_stand() -> None:
    assert literal() == Settings(
        kb=1000,
        weights_gb=10**9,
        kv_gb=10**9,
        k=1024,
        parameters=None,
        token_step=None,
        request_decimals=None,
        heads="all",
    )


def test_the_list_is_closed() -> None:
    # A new convention needs a reason, and this line: with enough of them any digits are hit by chance.
    assert list(conventions()) == [
        "kb-is-kib",
        "kib-read-as-kb",
        "kv-gib-as-gb",
        "k-is-1000",
        "request-rounded",
        "token-in-whole-kb",
        "token-in-hundredths-of-mb",
        "all-gib",
        "nominal-parameters",
        "exact-parameters",
        "kv-heads",
    ]


def test_each_has_a_reason_and_a_reading_of_its_own() -> None:
    readings = [literal(), *(item.settings for item in conventions().values())]
    assert len(set(readings)) == len(readings)
    for item in conventions().values():
        assert item.reason.endswith(".")
        assert item.changes


def test_a_place_where_a_document_uses_it_is_a_line_of_that_document() -> None:
    documents = ledger.load().documents
    for item in conventions().values():
        for place in item.used_at:
            name, _, line = place.partition(":")
            assert 1 <= int(line) <= documents[name].lines


@pytest.mark.parametrize(
    "place", ["footprint:0", "footprint:707", "nowhere:1", "footprint", "footprint:x", "footprint:²"]
)
def test_a_place_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str) -> None:
    data = json.loads(PATH.read_text(encoding="utf-8"))
    data["conventions"][0]["used_at"] = [place]
    path = tmp_path / "conventions.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    monkeypatch.setattr(ledger.files, "conventions", lambda: read(path)[1])
    with pytest.raises(InputError) as caught:
        ledger.read()
    assert str(caught.value) == (
        f"conventions.json: kb-is-kib: used_at {place!r} is no line of a document; one such as 'footprint:71' is needed"
    )


def _first(**fields: object) -> Callable[[Data], object]:
    return lambda data: data["conventions"][0].update(fields)


def _literal(**fields: object) -> Callable[[Data], object]:
    return lambda data: data["literal"].update(fields)


NAMES = ", ".join(Settings.__slots__)
FAULTS: dict[str, tuple[Callable[[Data], object], str]] = {
    "a part missing": (lambda data: data.pop("literal"), "an object with 'literal' and 'conventions' is needed"),
    "a part too many": (lambda data: data.update(x=1), "an object with 'literal' and 'conventions' is needed"),
    "the literal reading as a list": (
        lambda data: data.update(literal=[]),
        "'literal' must be an object and 'conventions' a list",
    ),
    "conventions as an object": (
        lambda data: data.update(conventions={}),
        "'literal' must be an object and 'conventions' a list",
    ),
    "a convention that is none": (
        lambda data: data["conventions"].insert(0, "kb"),
        "convention 0 is 'kb'; an object is needed",
    ),
    "no id": (_first(id=None), "convention None: 'id' is missing or not of type str"),
    "no reason": (_first(reason=" "), "convention 'kb-is-kib': 'reason' is missing or not of type str"),
    "no title": (_first(title=""), "convention 'kb-is-kib': 'title' is missing or not of type str"),
    "used at a text": (_first(used_at="x"), "convention 'kb-is-kib': 'used_at' is missing or not of type list"),
    "used at a number": (
        _first(used_at=[58]),
        "convention 'kb-is-kib': used_at is [58]; places such as 'footprint:71' are needed",
    ),
    "an unknown field": (_first(because="x"), "convention 'kb-is-kib': 'because' is not a field of a convention"),
    "an id twice": (_first(id="all-gib"), "convention 'all-gib': stands twice; ids are unique"),
    "an unknown setting": (
        _first(settings={"kib": 1024}),
        f"convention 'kb-is-kib': setting 'kib' is not known; one of {NAMES}",
    ),
    "the literal reading again": (
        _first(settings={"kb": 1000}),
        "convention 'kb-is-kib': reads as the literal reading does; a reading of its own is needed",
    ),
    "another convention again": (
        _first(settings={"k": 1000}),
        "convention 'k-is-1000': reads as kb-is-kib does; a reading of its own is needed",
    ),
    "a size of zero": (
        _first(settings={"kb": 0}),
        "convention 'kb-is-kib': kb is 0; a positive whole number is needed",
    ),
    "a size that is true": (
        _first(settings={"kb": True}),
        "convention 'kb-is-kib': kb is True; a positive whole number is needed",
    ),
    "a size in text": (
        _first(settings={"kb": "1024"}),
        "convention 'kb-is-kib': kb is '1024'; a positive whole number is needed",
    ),
    "no such heads": (
        _first(settings={"heads": "half"}),
        "convention 'kb-is-kib': heads is 'half'; one of all, kv is needed",
    ),
    "no such parameters": (
        _first(settings={"parameters": []}),
        "convention 'kb-is-kib': parameters is []; one of null, nominal, exact is needed",
    ),
    "a literal setting missing": (lambda data: data["literal"].pop("k"), "literal: setting 'k' is missing"),
    "a literal setting unknown": (_literal(kk=1), f"literal: setting 'kk' is not known; one of {NAMES}"),
    "a literal setting wrong": (_literal(k=-1), "literal: k is -1; a positive whole number is needed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_data_is_told(tmp_path: Path, fault: str) -> None:
    change, line = FAULTS[fault]
    data = json.loads(PATH.read_text(encoding="utf-8"))
    change(data)
    path = tmp_path / "conventions.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value) == f"conventions.json: {line}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ":1: Expecting value; valid JSON is needed"),
        ('{"literal": {}, "literal": {}}', ": 'literal' stands twice in one object; once is right"),
        ('{"literal": NaN}', ": NaN is not a number; a finite number is needed"),
        ("[" * 100_000, ": nested too deeply; a few levels are needed"),
    ],
)
def test_what_is_no_json_is_told(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "conventions.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value) == f"conventions.json{line}"


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^conventions\.json: cannot be read \(.*No such file"):
        read(tmp_path / "conventions.json")
