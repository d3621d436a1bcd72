"""Errata grouped and ordered by what they cost, disagreements by who names whom, and the files made of both."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlmmem import forward_peak_bytes
from vlmmem.cite import downloads
from vlmmem.cite.downloads import DOWNLOADS, disagreement_rows, download, errata_rows
from vlmmem.errors import InputError
from vlmmem.ledger import CAUSES, ERRATA, FOLDER, Ledger, load, read
from vlmmem.ledger.collection import Subject
from vlmmem.ledger.cost import Cost
from vlmmem.ledger.errata import Defect, dear, defects, disagreements
from vlmmem.ledger.files import read_subjects


def ids(defect: Defect) -> list[str]:
    return [item.id for item in defect.figures]


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return load()


def planted(folder: Path, file: str, change: Callable[[dict[str, dict[str, Any]]], object]) -> Ledger:
    """The ledger with entries of one file changed."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    path = folder / file
    content = json.loads(path.read_text(encoding="utf-8"))
    change({entry["id"]: entry for entry in content["figures"]})
    path.write_text(json.dumps(content), encoding="utf-8")
    return read(folder)


def test_no_erratum_is_lost_and_none_stands_twice(ledger: Ledger) -> None:
    found = [name for defect in defects(ledger) for name in ids(defect)]
    assert sorted(found) == sorted(item.id for item in ledger.figures if item.verdict in ERRATA)


def test_the_dearest_comes_first_and_what_costs_nothing_known_last(ledger: Ledger) -> None:
    sizes = [abs(item.worst.cost.bytes) if item.worst.cost else None for item in defects(ledger)]
    known = [size for size in sizes if size is not None]
    assert known == sorted(known, reverse=True)
    assert sizes == known + [None] * (len(sizes) - len(known))
    for defect in defects(ledger):
        costs = [abs(item.cost.bytes) for item in defect.figures if item.cost]
        assert not costs or abs(defect.worst.cost.bytes if defect.worst.cost else 0) == max(costs)


def test_cells_of_one_table_and_cause_are_one_defect(ledger: Ledger) -> None:
    cells = [item.id for item in ledger.table("kv-70b") if item.cause == "copied shape"]
    (copied,) = [defect for defect in defects(ledger) if ids(defect) == cells]
    assert len(cells) == 10
    assert (copied.document, copied.cause) == ("inference", "copied shape")
    assert copied.worst.id == "inference:70b-total-batch-32"
    # caches and totals: notes that differ in more than their numbers, each once, the worst one's first
    assert [item.column for item in copied.notes][:2] == ["Total", "KV Cache"]
    assert copied.notes[0] is copied.worst
    assert len(copied.notes) < len(cells)


@pytest.mark.slow
def test_entries_without_a_table_stand_together_where_their_notes_are_one(tmp_path: Path) -> None:
    pair = ("footprint:estimate-13b", "footprint:estimate-13b-gpus")
    before = [ids(defect) for defect in defects(load())]
    assert [pair[0]] in before
    assert [pair[1]] in before

    def same_note(entries: dict[str, dict[str, Any]]) -> None:
        entries[pair[1]]["note"] = entries[pair[0]]["note"]

    file = "footprint/10-estimate.json"
    assert list(pair) in [ids(defect) for defect in defects(planted(tmp_path / "same", file, same_note))]

    def other_cause(entries: dict[str, dict[str, Any]]) -> None:
        same_note(entries)
        entries[pair[1]]["cause"] = "arithmetic"

    assert list(pair) not in [ids(defect) for defect in defects(planted(tmp_path / "other", file, other_cause))]


def test_sides_that_name_one_another_are_one_disagreement(tmp_path: Path) -> None:
    def sides(ledger: Ledger) -> list[set[str]]:
        return [{item.id for item in each.figures} for each in disagreements(ledger)]

    pair = {"footprint:overhead-share", "footprint:estimate-overhead"}
    assert any(pair <= side for side in sides(load()))

    new = {"footprint:estimate-13b-gpus", "footprint:estimate-overhead"}
    assert not any(new <= side for side in sides(load()))

    def join(entries: dict[str, dict[str, Any]]) -> None:
        entries["footprint:estimate-13b-gpus"]["pair"] = "footprint:estimate-overhead"

    found = sides(planted(tmp_path, "footprint/10-estimate.json", join))
    assert any(new <= side for side in found)
    # the subject in which one of the two stands is not drawn into it
    assert any(pair <= side and not new <= side for side in found)


def test_without_a_subject_whoever_names_one_another_is_one_disagreement(ledger: Ledger) -> None:
    found = [{item.id for item in each.figures} for each in disagreements(replace(ledger, subjects=()))]
    (several,) = [sides for sides in found if "footprint:overhead-share" in sides]
    # the sides of two subjects: that is why there are subjects
    assert {"estimation:overhead", "inference:activations-proportional"} < several
    assert len(found) < len(disagreements(ledger))


def test_every_pair_has_one_subject_and_every_subject_its_sides(ledger: Ledger) -> None:
    named = [set(subject.figures) for subject in ledger.subjects]
    assert set().union(*named) == {item.id for item in ledger.figures if item.against}
    for item in ledger.figures:
        for other in item.against:
            assert sum({item.id, other} <= sides for sides in named) == 1, (item.id, other)
    found = disagreements(ledger)
    assert len({each.anchor for each in found}) == len(found) == len(ledger.subjects)
    assert sum(len(each.documents) > 1 for each in found) > len(found) // 3


def test_a_note_names_the_other_side_by_a_role(ledger: Ledger) -> None:
    for item in ledger.figures:
        for other in item.against:
            assert f"<{other}>`" in item.note_text, (item.id, other)


def test_a_side_that_names_no_other_side_is_told(ledger: Ledger) -> None:
    stale = Subject("a subject", ("footprint:13b-layers", "footprint:13b-hidden"))
    first, second = replace(ledger, subjects=(*ledger.subjects, stale)).check()
    assert first.endswith("13b-layers: stands under 'a subject' in subjects.json, and names no other side of it")
    assert "footprint:13b-hidden: " in second


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[]", "an object of lists of figures by title is needed"),
        ('{"a": "b:c"}', "'a': 'b:c' stands where two ids or more, each once, are needed"),
        ('{"a": ["b"]}', "'a': ['b'] stands where two ids or more, each once, are needed"),
        ('{"a": ["b", "b"]}', "'a': ['b', 'b'] stands where two ids or more, each once, are needed"),
        ('{"a": ["b", 1]}', "'a': ['b', 1] stands where two ids or more, each once, are needed"),
        ('{" ": ["b", "c"]}', "' ': ['b', 'c'] stands where two ids or more, each once, are needed"),
    ],
)
def test_a_fault_in_the_subjects_is_told(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "subjects.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_subjects(path)
    assert str(caught.value) == f"subjects.json: {line}"


@pytest.mark.parametrize("given", [1, None, "", ["a", 1], ["a", "a"], [""], {}])
def test_a_pair_is_an_id_or_a_list_of_ids(tmp_path: Path, given: object) -> None:
    with pytest.raises(InputError, match=r"^footprint/10-estimate.json: footprint:estimate-13b: 'pair' is "):
        planted(
            tmp_path,
            "footprint/10-estimate.json",
            lambda entries: entries["footprint:estimate-13b"].update(pair=given),
        )


def test_each_id_of_a_pair_must_name_it_back(tmp_path: Path) -> None:
    def add(entries: dict[str, dict[str, Any]]) -> None:
        entries["footprint:estimate-13b"]["pair"].append("footprint:13b-layers")

    (told,) = planted(tmp_path, "footprint/10-estimate.json", add).check()
    assert told.endswith("names 'footprint:13b-layers', whose entry does not name it back; add 'pair'")


def test_the_interface_shows_one_pair_and_all(ledger: Ledger) -> None:
    broken = ledger.by_id["footprint:estimate-overhead"]
    assert broken.breaks == broken.json()["pair"] == "footprint:overhead-share"
    many = ledger.by_id["footprint:overhead-share"].json()
    assert many["pair"] == many["pairs"][0]
    assert len(many["pairs"]) > 2
    none = ledger.by_id["footprint:13b-layers"].json()
    assert (none["pair"], none["pairs"]) == (None, [])


def test_disagreements_within_a_document_come_before_those_between_two(ledger: Ledger) -> None:
    found = disagreements(ledger)
    counts = [len(each.documents) for each in found]
    assert counts == sorted(counts)
    for each in found:
        assert len(each.figures) > 1
        assert each.standing == tuple(item for item in each.figures if item.verdict not in ERRATA)
        # who breaks a rule must not be told to be used
        assert all(item.verdict in ERRATA for item in each.figures if item.breaks)


def test_what_stands_yet_is_dear(ledger: Ledger) -> None:
    found = dear(ledger)
    assert found[0].id == "footprint:70b-128k-x10"
    # weights, 320 KiB a token, and the peak of one forward pass over all ten prompts
    right = 2 * 68_976_648_192 + 327_680 * 131_072 * 10 + forward_peak_bytes("llama-2-70b", 131_072, 10)
    assert found[0].difference == Cost(3_674_000_000_000, right)
    assert 3 < len(found) <= 12
    sizes = [abs(item.difference.bytes) for item in found if item.difference and item.difference.gpus]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == len(found)
    assert dear(ledger, 2) == found[:2]
    for item in found:
        assert item.verdict not in ERRATA
        assert item.cost is item.json()["cost"] is None
        assert item.difference_why.endswith(".")
    rows = {row["id"] for row in errata_rows()}
    assert not rows & {item.id for item in found}


def test_what_is_compared_with_a_part_only_is_not_dear(ledger: Ledger) -> None:
    """The right amount of OPT-30B leaves activations out, the printed one holds a tenth."""
    item = ledger.by_id["footprint:30b-128k-x10"]
    assert item.difference is None
    assert item not in dear(ledger, 1000)
    # of an erratum it is told all the same, and its text says what is left out
    erratum = ledger.by_id["footprint:30b-32k-x1"]
    assert erratum.cost
    assert "activations not counted" in (erratum.correct or "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"documented": "3,764.0 GB", "verdict": "wrong", "cause": "arithmetic"},
        {"documented": "870.0 GB", "verdict": "wrong", "cause": "arithmetic"},
        {"correct": "something else"},
    ],
)
def test_an_erratum_and_what_has_words_of_its_own_are_not_dear(tmp_path: Path, change: dict[str, str]) -> None:
    name = "footprint:70b-128k-x10"
    ledger = planted(tmp_path, "footprint/07-requirements-ten-requests.json", lambda all_: all_[name].update(change))
    if "verdict" in change:
        assert ledger.by_id[name].verdict == "wrong"
        assert ledger.by_id[name].cost
    assert name not in [item.id for item in dear(ledger)]
    assert len(dear(ledger)) == len(dear(load())) - 1


def test_every_cause_is_spelt_out() -> None:
    assert all(meaning and not meaning.endswith(".") for meaning in CAUSES.values())


@pytest.mark.parametrize("name", DOWNLOADS)
def test_a_file_has_a_row_an_entry(name: str) -> None:
    rows: list[dict[str, Any]] = errata_rows() if name.startswith("errata") else disagreement_rows()
    text = download(name)
    assert rows
    if name.endswith(".json"):
        assert json.loads(text) == rows
    else:
        read_back = list(csv.DictReader(io.StringIO(text)))
        assert [row["id"] for row in read_back] == [row["id"] for row in rows]
        assert list(read_back[0]) == list(rows[0])


def test_the_rows_are_those_of_the_page(ledger: Ledger) -> None:
    rows = errata_rows()
    assert [row["id"] for row in rows] == [name for defect in defects(ledger) for name in ids(defect)]
    row = next(row for row in rows if row["id"] == "inference:70b-total-batch-32")
    assert (row["cost_bytes"], row["cost_gpus"], row["cost_gpu"]) == (28_057_085_952, 1, "a100-80gb")
    assert row["cause_means"] == CAUSES["copied shape"]
    sides = disagreement_rows()
    assert [row["id"] for row in sides] == [item.id for each in disagreements(ledger) for item in each.figures]
    broken = next(row for row in sides if row["id"] == "footprint:estimate-overhead")
    assert (broken["breaks"], broken["stands"]) == ("footprint:overhead-share", False)


def test_a_spreadsheet_takes_no_printed_text_for_a_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"documented": "=1+1", "right": "-x", "cost": -5, "none": None, "sources": ["a", "b"], "why": "@"}
    monkeypatch.setattr(downloads, "errata_rows", lambda: [row])
    (read_back,) = csv.reader(io.StringIO(download("errata.csv").partition("\n")[2]))
    assert read_back == ["'=1+1", "'-x", "-5", "", "a ; b", "'@"]


def test_an_empty_list_is_an_empty_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "errata_rows", list)
    assert download("errata.csv").strip() == ""
    assert json.loads(download("errata.json")) == []
