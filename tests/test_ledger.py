"""Gate a: the ledger stands as declared, and each planted fault is one line that names file and entry."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmmem import ledger
from vlmmem.errors import InputError
from vlmmem.ledger.conventions import conventions
from vlmmem.ledger.formulas import FORMULAS

Entry = dict[str, Any]
TOTAL = "footprint/05-total.json"
ONE = "footprint/06-requirements-one-request.json"
TEN = "footprint/07-requirements-ten-requests.json"


def test_every_figure_stands_as_declared() -> None:
    assert ledger.load().check() == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the ledger's data, to plant faults in."""
    return Path(shutil.copytree(ledger.FOLDER, tmp_path / "figures"))


def _change(folder: Path, file: str, figure: str, change: Callable[[Entry], object]) -> None:
    path = folder / file
    content = json.loads(path.read_text(encoding="utf-8"))
    (entry,) = (entry for entry in content["figures"] if entry["id"] == figure)
    change(entry)
    path.write_text(json.dumps(content), encoding="utf-8")


def _told(folder: Path) -> list[str]:
    """What reading and checking complain of; reading stops at its first complaint."""
    try:
        return ledger.read(folder).check()
    except InputError as error:
        return [str(error)]


def test_an_untouched_copy_has_no_fault(folder: Path) -> None:
    assert _told(folder) == []


def _set(**fields: object) -> Callable[[Entry], object]:
    return lambda entry: entry.update(fields)


def _drop(*names: str, **fields: object) -> Callable[[Entry], object]:
    def change(entry: Entry) -> None:
        for name in names:
            del entry[name]
        entry.update(fields)

    return change


def _argue(**arguments: object) -> Callable[[Entry], object]:
    return lambda entry: entry.setdefault("arguments", {}).update(arguments)


# What a declared verdict can get wrong: (file, figure, the change, the one line that is told, after "FILE: FIGURE: ")
VERDICTS: dict[str, tuple[str, str, Callable[[Entry], object], str]] = {
    "a printed digit that no longer reproduces": (
        TOTAL,
        "footprint:13b-total",
        _set(documented="101.3 GB"),
        (
            "declared 'reproduced', judged 'contradicted' (the document's own rule gives another value;"
            " printed '101.3 GB', computed 101.2)"
        ),
    ),
    "a printed digit that the convention no longer gives": (
        TEN,
        "footprint:13b-8k-x10",
        _set(documented="99.1 GB"),
        "declared 'convention', judged 'wrong' (no reading prints it; printed '99.1 GB', computed 99.0)",
    ),
    "a digit more than the rule gives": (
        TOTAL,
        "footprint:13b-total-kv",
        _set(documented="66.0 GB"),
        "declared 'convention', judged 'wrong' (no reading prints it; printed '66.0 GB', computed 65.536)",
    ),
    "an erratum that reproduces": (
        TOTAL,
        "footprint:13b-total-weights",
        _set(verdict="wrong", cause="arithmetic"),
        "declared 'wrong', judged 'reproduced' (as it stands; printed '26 GB', computed 26.0)",
    ),
    "a contradiction that is none": (
        TOTAL,
        "footprint:13b-total",
        _set(verdict="contradicted", cause="arithmetic"),
        "declared 'contradicted', judged 'reproduced' (as it stands; printed '101.2 GB', computed 101.2)",
    ),
    "a reproduction that is none": (
        "inference/02-kv-cache.json",
        "inference:70b-kv",
        _set(verdict="reproduced"),
        (
            "declared 'reproduced', judged 'contradicted' (the document's own rule gives another value;"
            " printed '0.50 GB', computed 1.25)"
        ),
    ),
    "a wrong figure declared reproduced": (
        ONE,
        "footprint:30b-32k-x1",
        _set(verdict="reproduced"),
        "declared 'reproduced', judged 'wrong' (no reading prints it; printed '114.5 GB',",
    ),
    "a convention where the rule stands": (
        TOTAL,
        "footprint:13b-total-weights",
        _set(verdict="convention"),
        "declared 'convention', judged 'reproduced' (as it stands; printed '26 GB', computed 26.0)",
    ),
    "a dropped convention": (
        TEN,
        "footprint:13b-8k-x10",
        _drop("convention"),
        "declared 'convention', judged 'wrong' (no reading prints it; printed '99.0 GB', computed 102.4",
    ),
    "a convention that is not needed": (
        TOTAL,
        "footprint:13b-total-weights",
        _set(convention="nominal-parameters"),
        "the literal reading prints it; the convention is to be dropped",
    ),
    "a convention that does not print it": (
        ONE,
        "footprint:30b-32k-x1",
        _set(convention="kib-read-as-kb"),
        "convention 'kib-read-as-kb' does not print it; drop it or name one that does",
    ),
    "a wrong cell that a convention prints": (
        ONE,
        "footprint:13b-4k-x1",
        _drop("convention", verdict="wrong", cause="arithmetic"),
        "no convention is declared, yet 'kib-read-as-kb' prints it",
    ),
    "a sourced figure whose source says otherwise": (
        "footprint/04-fragmentation.json",
        "footprint:static-waste",
        _set(verdict="sourced"),
        "declared 'sourced', judged 'wrong' (",
    ),
    "an unverifiable figure that a source confirms": (
        TOTAL,
        "footprint:total-formula",
        _set(evidence=[{"source": "https://example.org/", "says": True}]),
        "declared 'unverifiable', judged 'sourced' (https://example.org/ says the same;",
    ),
    "an inconsistency that names nothing": (
        TOTAL,
        "footprint:total-formula",
        _set(verdict="inconsistent", cause="own statement"),
        "declared 'inconsistent', judged 'unverifiable' (no source that could be read;",
    ),
    "a pair that does not name it back": (
        TOTAL,
        "footprint:13b-total",
        _set(pair="footprint:13b-total-kv"),
        "names 'footprint:13b-total-kv', whose entry does not name it back; add 'pair'",
    ),
    "a pair that is not there": (
        TOTAL,
        "footprint:13b-total-kv",
        _set(pair="footprint:nowhere"),
        "names 'footprint:nowhere', which is not in the ledger",
    ),
    "a figure that is its own pair": (
        TOTAL,
        "footprint:13b-total-kv",
        _set(pair="footprint:13b-total-kv"),
        "names itself as its pair; the other side is needed",
    ),
    "a unit that is not printed": (
        TOTAL,
        "footprint:13b-total",
        _set(documented="101.2"),
        "'101.2': no number before 'GB'; something like '65.5 GB' or '5-10%' is needed",
    ),
    "a unit that is not printed, of no formula": (
        TOTAL,
        "footprint:total-formula",
        _set(unit="GB"),
        "unit 'GB' is not the unit printed in 'Total Memory = Model Weights + KV Cache + Activations + Overhead'",
    ),
    "a misspelt argument": (
        TEN,
        "footprint:13b-8k-x10",
        _argue(bacth=10),
        "argument 'bacth' is not one of total",
    ),
    "an argument without formula": (
        TOTAL,
        "footprint:total-formula",
        _argue(batch=10),
        "argument 'batch' is not one of a figure without formula",
    ),
    "a missing argument": (
        TOTAL,
        "footprint:13b-total-weights",
        lambda entry: entry["arguments"].pop("model"),
        "argument 'model' is missing",
    ),
    "an argument that is no number": (
        TEN,
        "footprint:13b-8k-x10",
        _argue(share="a tenth"),
        "argument 'share' is 'a tenth'; a whole number, a decimal in quotes or a figure's id is needed",
    ),
    "a number that would fill the memory": (
        TEN,
        "footprint:13b-8k-x10",
        _argue(share="1e999999999"),
        "argument 'share' is '1e999999999'; a whole number, a decimal in quotes or a figure's id is needed",
    ),
    "a float, which is no decimal": (
        TEN,
        "footprint:13b-8k-x10",
        _argue(share=0.1),
        "argument 'share' is 0.1; a whole number, a decimal in quotes or a figure's id is needed",
    ),
    "a figure that proves itself": (
        TOTAL,
        "footprint:13b-total",
        _argue(terms=["footprint:13b-total"]),
        "its own printed value is an argument; it would prove itself",
    ),
    "an argument that is no figure": (
        TOTAL,
        "footprint:13b-total",
        _argue(terms=["footprint:nowhere"]),
        "argument 'footprint:nowhere' is not a figure of the ledger",
    ),
    "a model that is not in the catalogue": (
        TOTAL,
        "footprint:13b-total-weights",
        _argue(model="llama-9"),
        "model 'llama-9' is not in the catalogue; near are ",
    ),
    "a number format that is not in the catalogue": (
        TOTAL,
        "footprint:13b-total-weights",
        _argue(format="fp17"),
        "format 'fp17' is not in the catalogue; known are ",
    ),
    "a GPU that is not in the catalogue": (
        TOTAL,
        "footprint:13b-total-gpus",
        _argue(gpu="a41"),
        "GPU 'a41' is not in the catalogue; known are ",
    ),
    "a division by zero": (
        "footprint/08-observations.json",
        "footprint:linear-requests",
        _argue(to=0),
        "argument 'to' is 0; a number to divide by is needed",
    ),
    "a source that says nothing readable": (
        TOTAL,
        "footprint:13b-total",
        _set(evidence=[{"source": "https://example.org/", "says": "much"}]),
        "'much': no number; something like '65.5 GB' or '5-10%' is needed",
    ),
}


# Each reads and judges the whole ledger.
@pytest.mark.slow
@pytest.mark.parametrize("fault", VERDICTS)
def test_a_fault_in_a_verdict_is_told(folder: Path, fault: str) -> None:
    file, figure, change, line = VERDICTS[fault]
    _change(folder, file, figure, change)
    told = [each for each in _told(folder) if each.startswith(f"{file}: {figure}: {line}")]
    assert len(told) == 1, _told(folder)
    assert "\n" not in told[0]


def test_a_convention_for_one_cell_alone_is_refused(folder: Path) -> None:
    # token-in-whole-kb is used nowhere else, and prints this cell among others of its table: take the others away
    path = folder / ONE
    content = json.loads(path.read_text(encoding="utf-8"))
    kept = "footprint:30b-128k-x1"
    for entry in content["figures"]:
        if entry["id"] != kept:
            entry["table"] = "another"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert (
        f"{ONE}: {kept}: convention 'token-in-whole-kb' prints 1 cell of the table and footprint does not use it"
        in ("\n".join(_told(folder)))
    )


# What no entry may look like: the whole line that reading raises, after "FILE: FIGURE: "
RULES = ", ".join(FORMULAS)
READINGS = ", ".join(conventions())
SHAPES: dict[str, tuple[Callable[[Entry], object], str]] = {
    "an unknown formula": (
        _set(formula="totl"),
        f"formula 'totl' is not known; one of {RULES}",
    ),
    "an unknown convention": (
        _set(convention="kb-is-kb"),
        f"convention 'kb-is-kb' is not known; one of {READINGS}",
    ),
    "an unknown verdict": (
        _set(verdict="right"),
        "verdict is 'right'; one of wrong, contradicted, inconsistent, reproduced, convention, sourced, unverifiable",
    ),
    "an unknown cause": (
        _set(verdict="wrong", cause="bad luck"),
        (
            "cause is 'bad luck'; one of units, copied shape, copied value, arithmetic, wrong formula, misread source,"
            " misattribution, own statement"
        ),
    ),
    "an unknown kind": (
        _set(kind="cell"),
        "kind is 'cell'; one of table-cell, worked-example, inline, formula, code-output, recommendation, fact",
    ),
    "an unknown field": (_set(verdit="wrong"), "'verdit' is not a field of a figure"),
    "no line": (_drop("line"), "'line' is missing"),
    "no note": (_drop("note"), "'note' is missing"),
    "an empty note": (_set(note=" "), "the note is empty; say how the verdict was earned"),
    "no sources": (_drop("sources"), "'sources' is missing"),
    "sources that are none": (_set(sources=["https://example.org/", ""]), "sources must be addresses"),
    "sources in a list": (_set(sources=[["https://example.org/"]]), "sources must be addresses"),
    "no printed text": (_set(documented=""), "'documented' is empty; the document's own words are needed"),
    "no section": (_set(section=" "), "'section' is empty; the document's own words are needed"),
    "a line before the first": (_set(line=0), "line 0 is not in 1..706 of footprint"),
    "a line after the last": (_set(line=707), "line 707 is not in 1..706 of footprint"),
    "a line that is no whole number": (_set(line=115.0), "'line' is 115.0; int is needed"),
    "a line that is no number": (_set(line=True), "'line' is True; int is needed"),
    "a number for a text": (_set(documented=101.2), "'documented' is 101.2; str is needed"),
    "a text for arguments": (_set(arguments="batch"), "'arguments' is 'batch'; an object is needed"),
    "null for arguments": (_set(arguments=None), "'arguments' is None; an object is needed"),
    "a convention without formula": (
        _drop("formula", "arguments", convention="kb-is-kib"),
        "a convention without a formula; name the formula that it reads",
    ),
    "evidence that is none": (
        _set(evidence=[{"source": "https://example.org/"}]),
        "evidence {'source': 'https://example.org/'}; {'source': address, 'says': text or true or false} is needed",
    ),
    "evidence from nowhere": (_set(evidence=[{"source": 7, "says": True}]), "sources must be addresses"),
    "an erratum without cause": (
        _set(verdict="wrong"),
        f"an erratum needs a cause; one of {', '.join(ledger.CAUSES)}",
    ),
    "wrong, by no source and no formula": (
        _drop("formula", "arguments", verdict="wrong", cause="arithmetic"),
        "'wrong' needs the source that was opened",
    ),
    "sourced, by no source": (
        _drop("formula", "arguments", verdict="sourced"),
        "'sourced' needs the source that was opened",
    ),
}


@pytest.mark.parametrize("fault", SHAPES)
def test_a_fault_in_an_entry_is_told(folder: Path, fault: str) -> None:
    change, line = SHAPES[fault]
    _change(folder, TOTAL, "footprint:13b-total", change)
    with pytest.raises(InputError) as caught:
        ledger.read(folder)
    assert str(caught.value) == f"{TOTAL}: footprint:13b-total: {line}"


@pytest.mark.parametrize(
    ("id_", "shown"),
    [
        ("inference:13b", "inference:13b"),
        ("footprint", "footprint"),
        ("footprint:", "footprint:"),
        ("footprint:13B", "footprint:13B"),
        ("footprint:a:b", "footprint:a:b"),
        ("footprint:a b", "footprint:a b"),
        ("footprint:a\nb", "footprint:a b"),
    ],
)
def test_an_id_is_the_document_and_a_slug(folder: Path, id_: str, shown: str) -> None:
    _change(folder, TOTAL, "footprint:13b-total", _set(id=id_))
    assert _told(folder) == [f"{TOTAL}: {shown}: the id must be footprint:slug, slug in a-z, 0-9, '.', '-'"]


def test_an_id_stands_once(folder: Path) -> None:
    _change(folder, TOTAL, "footprint:13b-total", _set(id="footprint:13b-4k-x1"))
    assert _told(folder) == [f"{ONE}: footprint:13b-4k-x1: the id stands twice (also in {TOTAL}: footprint:13b-4k-x1)"]


def test_an_entry_needs_an_id(folder: Path) -> None:
    _change(folder, TOTAL, "footprint:13b-total", _drop("id"))
    assert _told(folder) == [f"{TOTAL}: an entry without id: 'id' is missing"]


# What no file may hold: its text, and the whole line
FILES: dict[str, tuple[str, str]] = {
    "nothing": ("", ":1: Expecting value; valid JSON is needed"),
    "no JSON": ("{'figures': []}", ":1: Expecting property name enclosed in double quotes; valid JSON is needed"),
    "NaN": ('{"figures": [NaN]}', ": NaN is not a number; a finite number is needed"),
    "infinity": ('{"figures": [-Infinity]}', ": -Infinity is not a number; a finite number is needed"),
    "a field that stands twice": (
        '{"figures": [{"id": "a", "id": "b"}]}',
        ": 'id' stands twice in one object; once is right",
    ),
    "a file nested too deeply": ("[" * 100_000 + "]" * 100_000, ": nested too deeply; a few levels are needed"),
    "a number too long to read": (
        '{"figures": [' + "9" * 5000 + "]}",
        ": a number has too many digits; a count is needed",
    ),
}


@pytest.mark.parametrize("fault", FILES)
def test_a_file_that_is_no_json_is_told(folder: Path, fault: str) -> None:
    text, line = FILES[fault]
    (folder / TOTAL).write_text(text, encoding="utf-8")
    assert _told(folder) == [f"05-total.json{line}"]


def test_a_file_that_is_no_text_is_told(folder: Path) -> None:
    (folder / TOTAL).write_bytes(b"\xff")
    (line,) = _told(folder)
    assert line.startswith("05-total.json: cannot be read ('utf-8' codec can't decode byte 0xff")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ([], "an object with 'figures' (a list) and perhaps 'shared' is needed"),
        ({"figures": {}}, "an object with 'figures' (a list) and perhaps 'shared' is needed"),
        ({"figures": [], "figurs": []}, "an object with 'figures' (a list) and perhaps 'shared' is needed"),
        ({"figures": [], "shared": []}, "'shared' is []; an object is needed"),
        ({"figures": ["a"]}, "an entry is str; an object is needed"),
        (
            {"figures": [{"id": "footprint:a"}], "shared": {"arguments": 7}},
            "footprint:a: 'arguments' is 7; an object is needed",
        ),
    ],
)
def test_a_file_of_another_shape_is_told(folder: Path, content: object, line: str) -> None:
    (folder / TOTAL).write_text(json.dumps(content), encoding="utf-8")
    assert _told(folder) == [f"{TOTAL}: {line}"]


def test_a_folder_is_a_document(folder: Path) -> None:
    (folder / "footprint").rename(folder / "fotprint")
    first = min(path.name for path in (folder / "fotprint").iterdir())
    assert _told(folder) == [f"fotprint/{first}: 'fotprint' is not a document; one of footprint, inference, estimation"]


def test_an_empty_ledger_does_not_stand(tmp_path: Path) -> None:
    assert _told(tmp_path) == [f"{tmp_path.name}: no figures; files such as footprint/NAME.json are needed"]


DOCUMENTS: dict[str, tuple[Callable[[Entry], object], str]] = {
    "a document that is none": (_set(footprint=7), "footprint: 7 stands where an object is needed"),
    "a field that is missing": (
        lambda documents: documents["footprint"].pop("title"),
        "footprint: 'title' is missing; the fields are title, author, date, address, lines, line_counting",
    ),
    "a field that is none": (
        lambda documents: documents["footprint"].update(autor="x"),
        (
            "footprint: 'autor' is not a field of a document; the fields are title, author, date, address, lines,"
            " line_counting"
        ),
    ),
    "lines as text": (
        lambda documents: documents["footprint"].update(lines="706"),
        "footprint: 'lines' is '706'; a positive whole number is needed",
    ),
    "an empty title": (
        lambda documents: documents["footprint"].update(title=""),
        "footprint: 'title' is ''; text is needed",
    ),
    "a date as a number": (
        lambda documents: documents["footprint"].update(date=2025),
        "footprint: 'date' is 2025; text or null is needed",
    ),
}


@pytest.mark.parametrize("fault", DOCUMENTS)
def test_a_fault_in_the_documents_is_told(tmp_path: Path, fault: str) -> None:
    change, line = DOCUMENTS[fault]
    documents = json.loads((ledger.FOLDER.parent / "documents.json").read_text(encoding="utf-8"))
    change(documents)
    path = tmp_path / "documents.json"
    path.write_text(json.dumps(documents), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        ledger.read(ledger.FOLDER, path)
    assert str(caught.value) == f"documents.json: {line}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=25)
@given(st.data())
def test_whatever_stands_in_a_field_gets_a_line_or_stands(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("any") / "figures"
    (folder / "footprint").mkdir(parents=True)
    content = json.loads((ledger.FOLDER / TOTAL).read_text(encoding="utf-8"))
    entry = data.draw(st.sampled_from(content["figures"]))
    name = data.draw(
        st.sampled_from(sorted({*entry, "evidence", "cause", "breaks", "table", "convention", "arguments"}))
    )
    if name == "arguments" and entry.get("arguments"):
        entry["arguments"][data.draw(st.sampled_from(sorted(entry["arguments"])))] = data.draw(JSON)
    else:
        entry[name] = data.draw(JSON)
    (folder / TOTAL).write_text(json.dumps(content), encoding="utf-8")
    for line in _told(folder):
        assert "\n" not in line
        assert line.startswith((TOTAL, "05-total.json"))


# --- what the ledger says --------------------------------------------------------------------------------------------


def _at(document: str, line: int, documented: str) -> ledger.Figure:
    (found,) = (
        item
        for item in ledger.load().figures
        if (item.document, item.line, item.documented) == (document, line, documented)
    )
    return found


@pytest.mark.parametrize(
    ("document", "line", "documented", "verdict", "convention", "computed"),
    [
        ("footprint", 60, "800 KB", "convention", "kb-is-kib", 800),
        ("footprint", 71, "~65.5 GB", "convention", "kib-read-as-kb", 65.536),
        ("footprint", 90, "9.2 GB", "reproduced", None, 9.2),
        ("footprint", 115, "101.2 GB", "reproduced", None, 101.2),
        ("footprint", 126, "56.8 GB", "convention", "kib-read-as-kb", 56.76),
        ("footprint", 136, "99.0 GB", "convention", "kib-read-as-kb", 99.0),
        ("inference", 92, "0.50 GB", "contradicted", None, 1.25),
    ],
)
def test_the_verdicts_that_set_the_level(
    document: str, line: int, documented: str, verdict: str, convention: str | None, computed: float
) -> None:
    item = _at(document, line, documented)
    assert (item.verdict, item.convention, item.computed) == (verdict, convention, computed)


def test_the_notes_name_causes_and_pairs() -> None:
    assert "kB" not in _at("footprint", 90, "9.2 GB").note
    assert "5-10" in _at("footprint", 90, "9.2 GB").note
    both = _at("footprint", 71, "~65.5 GB").note
    assert "67.1 GB" in both
    assert "62.5 GiB" in both
    assert "99.0 GB" in _at("footprint", 115, "101.2 GB").note
    assert "101.2 GB" in _at("footprint", 136, "99.0 GB").note
    assert "32 layers" in _at("inference", 92, "0.50 GB").note
    correct = _at("footprint", 126, "56.8 GB").correct or ""
    assert " GB" in correct
    assert " GiB" in correct


def test_both_tables_are_there_cell_by_cell() -> None:
    book = ledger.load()
    one, ten = book.table("requirements-x1"), book.table("requirements-x10")
    contexts = ["4k Tokens", "8k Tokens", "32k Tokens", "128k Tokens"]
    for table, rows in ((one, ["7B", "13B", "30B", "70B", "175B"]), (ten, ["7B", "13B", "30B", "70B"])):
        assert [(item.row, item.column) for item in table] == [(row, at) for row in rows for at in contexts]
    assert len(one) + len(ten) == 36


def test_twenty_cells_fall_under_several_conventions() -> None:
    cells = ledger.load().table("requirements-x1")
    assert Counter(item.verdict for item in cells)["wrong"] == 3
    assert len({item.convention for item in cells if item.convention}) >= 5


def test_every_figure_has_the_interfaces_fields() -> None:
    types: dict[str, tuple[type, ...]] = {
        "id": (str,),
        "document": (str,),
        "line": (int,),
        "section": (str,),
        "kind": (str,),
        "documented": (str,),
        "unit": (str,),
        "formula": (str, type(None)),
        "convention": (str, type(None)),
        "computed": (float, list, type(None)),
        "verdict": (str,),
        "correct": (str, type(None)),
        "note": (str,),
        "sources": (list,),
    }
    for item in ledger.load().figures:
        found = json.loads(json.dumps(item.json(), allow_nan=False))
        assert list(types) == list(found)[: len(types)]
        for name, kinds in types.items():
            assert type(found[name]) in kinds, (item.id, name)
        assert found["kind"] in ledger.KINDS
        assert found["verdict"] in ledger.VERDICTS
        assert all(isinstance(source, str) for source in found["sources"])
        if isinstance(found["computed"], list):
            low, high = found["computed"]
            assert low < high
        assert "{" + "calc" not in found["note"] + (found["correct"] or "")
        assert "{" + "fig" not in found["note"] + (found["correct"] or "")


def test_figures_are_listed_in_the_documents_order() -> None:
    order = list(ledger.load().documents)
    places = [(order.index(item.document), item.line) for item in ledger.load().figures]
    assert places == sorted(places)


def test_figures_can_be_chosen() -> None:
    chosen = ledger.figures("inference", "wrong")
    assert chosen
    assert {(item.document, item.verdict) for item in chosen} == {("inference", "wrong")}
    assert ledger.figures() == list(ledger.load().figures)
    assert {item.document for item in ledger.figures("estimation")} == {"estimation"}


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: ledger.figures("foot"), "document 'foot' is not known; one of footprint, inference, estimation"),
        (
            lambda: ledger.figures(verdict="right"),
            f"verdict 'right' is not known; one of {', '.join(ledger.VERDICTS)}",
        ),
        (lambda: ledger.figure("@@@@"), "figure '@@@@' is not in the ledger; nearest: none"),
        (
            lambda: ledger.load().table("weight"),
            (
                "table 'weight' is not in the ledger; one of "
                + ", ".join(sorted({item.table for item in ledger.figures() if item.table}))
            ),
        ),
    ],
)
def test_what_is_not_there_is_told(call: Callable[[], object], line: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == line


def test_an_unknown_figure_is_told_with_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        ledger.figure("footprint:13b-totl")
    assert str(caught.value).startswith(
        "figure 'footprint:13b-totl' is not in the ledger; nearest: footprint:13b-total"
    )
