"""Gate j, first half: a changed value in the ledger or the catalogue is caught by the committed export.

Values of every data file, of each kind of field, are changed one at a time: either the loader refuses it, or the
export differs from the committed one. (The second half, changed operators and constants, is tools/mutants.py.)
"""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vlmmem.ledger
from vlmmem import catalog, images, measured
from vlmmem.cite import __main__ as command
from vlmmem.cite import export
from vlmmem.errors import InputError
from vlmmem.ledger.conventions import read as read_conventions
from vlmmem.ledger.files import read_subjects

Keys = tuple[str | int, ...]


def test_the_export_is_accepted() -> None:
    assert export.changes() == []


def test_everything_published_is_committed() -> None:
    committed = {path.name for path in export.FOLDER.glob("*.json")}
    assert committed == set(export.published())


# --- one value changed at a time ---


def leaves(value: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Every value of parsed JSON and the keys that lead to it."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*keys, key))
    else:
        yield keys, value


def other(value: object) -> object:
    """The least change that a slip would make."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
    return "x"


def variants(data: Any) -> Iterator[tuple[Keys, Any]]:
    """The data with one value changed, for each value."""
    for keys, value in leaves(data):
        changed = copy.deepcopy(data)
        place = changed
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = other(value)
        yield keys, changed


def committed(name: str) -> Any:
    return json.loads((export.FOLDER / name).read_text(encoding="utf-8"))


def _conventions(path: Path) -> Any:
    return tuple(read_conventions(path)[1].values())


def _documents(path: Path) -> Any:
    return tuple(vlmmem.ledger.read(documents_file=path).documents.values())


PACKAGE = Path(vlmmem.__file__).parent
DATA: dict[str, tuple[str, Callable[[Path], Any]]] = {
    **{
        f"models/{path.name}": (f"catalog/configs/{path.name}", catalog.load_stated_models)
        for path in sorted((PACKAGE / "catalog" / "configs").glob("*.json"))
    },
    **{
        f"runs/{path.name}": (f"measured/runs/{path.name}", measured.read_runs)
        for path in sorted((PACKAGE / "measured" / "runs").glob("*.json"))
    },
    "processors": ("catalog/processors.json", images.load_stated_processors),
    "gpus": ("catalog/gpus.json", catalog.load_gpus),
    "links": ("catalog/links.json", catalog.load_links),
    "formats": ("catalog/formats.json", catalog.load_formats),
    "runtimes": ("catalog/runtime.json", catalog.load_runtimes),
    "conventions": ("ledger/conventions.json", _conventions),
    "documents": ("ledger/documents.json", _documents),
    "subjects": ("ledger/subjects.json", read_subjects),
}


def test_every_data_file_of_the_package_is_watched() -> None:
    # typed.json holds exemptions, which test_typed.py proves one by one; published/ is the export itself; what is kept
    # of the documents' lines is held by test_coverage.py; GGUF's types are compared with the gguf package, and the
    # errors of likely peaks with the oracle's record. What the engines' rules need is held by the logs that their own
    # tests compare with, and the accuracy's files by test_accuracy.py.
    rooms = {"typed.json", "readers/gguf_types.json", "catalog/likely_peaks.json"} | {name for name, _ in DATA.values()}
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.json")}
    elsewhere = ("published/", "ledger/figures/", "ledger/lines/", "cite/typed", "engines/", "accuracy/")
    unwatched = {name for name in found if not name.startswith(elsewhere)}
    assert unwatched == rooms - {"typed.json"}


def _leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish only what a test puts in: the rest would be computed anew for each change."""
    for kind in ("stated_models", "gpus", "links", "runtimes"):
        monkeypatch.setattr(catalog, kind, tuple)
    monkeypatch.setattr(images, "stated_processors", tuple)
    monkeypatch.setattr(measured, "runs", tuple)
    monkeypatch.setattr(export, "conventions", dict)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DATA)
def test_no_change_of_a_data_file_escapes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, load = DATA[kind]
    data = json.loads((PACKAGE / file).read_text(encoding="utf-8"))
    room = kind.split("/", maxsplit=1)[0]
    if "/" in kind:  # of a long file an entry or two: each variant is a copy of all of it
        data[room] = data[room][:: 1 + len(data[room]) // 2]
    here = {entry["id"] for entry in data.get(room, ()) if isinstance(entry, dict)} if "/" in kind else None
    accepted = [entry for entry in committed(f"{room}.json") if here is None or entry["id"] in here]
    escaped, tried = [], 0
    items: Any = ()
    ledger = vlmmem.ledger.Ledger({}, {})
    monkeypatch.setattr(export, "load", lambda: ledger)
    _leave_out(monkeypatch)
    every = list(variants(data))
    # At most some hundred of each file, spread over its entries and fields; of the models' many files some of each.
    most = 130 if here is None else 8
    for keys, changed in every[:: 1 + len(every) // most]:
        tried += 1
        path = tmp_path / Path(file).name
        path.write_text(json.dumps(changed), encoding="utf-8")
        try:
            items = load(path)
        except InputError:
            continue
        match room:
            case "models":
                monkeypatch.setattr(catalog, "stated_models", lambda found=items: found)
            case "processors":
                monkeypatch.setattr(images, "stated_processors", lambda found=items: found)
            case "runs":
                monkeypatch.setattr(measured, "runs", lambda found=items: found)
            case "conventions":
                monkeypatch.setattr(export, "conventions", lambda found=items: {item.id: item for item in found})
            case "documents":
                ledger = vlmmem.ledger.Ledger({item.id: item for item in items}, {})
            case "subjects":
                ledger = vlmmem.ledger.Ledger({}, {}, items)
            case _:
                monkeypatch.setattr(catalog, room, lambda found=items: found)
        if json.loads(export.as_text(export.published()[f"{room}.json"])) == accepted:
            escaped.append(keys)
    assert escaped == []
    assert tried > (10 if here is None else 3)


@pytest.mark.slow
def test_no_change_of_the_ledger_escapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "figures"
    shutil.copytree(vlmmem.ledger.FOLDER, folder)
    accepted = {name: {entry["id"]: entry for entry in committed(name)} for name in ("figures.json", "grounds.json")}
    escaped, tried = [], 0
    ledger = vlmmem.ledger.Ledger({}, {})
    monkeypatch.setattr(export, "load", lambda: ledger)
    _leave_out(monkeypatch)
    for path in sorted(folder.glob("*/*.json")):
        text = path.read_text(encoding="utf-8")
        here = {entry["id"] for entry in json.loads(text)["figures"]}
        # One in 43, so that each kind of field has its turn: all 10,000 take a quarter of an hour.
        for keys, changed in list(variants(json.loads(text)))[::43]:
            tried += 1
            path.write_text(json.dumps(changed), encoding="utf-8")
            try:
                found = vlmmem.ledger.read(folder).by_id
                ledger = vlmmem.ledger.Ledger({}, {name: found[name] for name in here & set(found)})
                published = {name: json.loads(json.dumps(export.published()[name])) for name in accepted}
            except InputError:
                continue
            if all(
                {entry["id"]: entry for entry in published[name]} == {key: accepted[name][key] for key in here}
                for name in accepted
            ):
                escaped.append((path.name, keys))
        path.write_text(text, encoding="utf-8")
    assert escaped == []
    assert tried > 150


# --- what is told, and what accepting does ---


@pytest.fixture
def copied(tmp_path: Path) -> tuple[Path, Path]:
    """A root with a CHANGELOG, and a copy of the export."""
    folder = tmp_path / "published"
    shutil.copytree(export.FOLDER, folder)
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n### Accepted figures\n\n- before\n", encoding="utf-8")
    return tmp_path, folder


def _edit(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.slow
def test_a_changed_value_is_told_by_entry_and_field(copied: tuple[Path, Path]) -> None:
    _, folder = copied
    _edit(folder, "gpus.json", '"memory_bytes": 16106127360', '"memory_bytes": 16000000000')
    assert export.changes(folder) == ["published/gpus.json: t4: memory_bytes was 16000000000, is 16106127360"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "figures.json").unlink(), "is new"),
        (lambda folder: (folder / "figures.json").write_text("[]"), "is new"),
        (lambda folder: (folder / "figures.json").write_text("{"), "is new"),
        (lambda folder: _edit(folder, "models.json", '"id": "phi-2"', '"id": "phi-3"'), "phi-3 is gone"),
        (lambda folder: _edit(folder, "formats.json", "\n ", "\n  "), "not as it would be written"),
    ],
)
def test_a_spoilt_export_is_told(copied: tuple[Path, Path], spoil: Callable[[Path], object], told: str) -> None:
    spoil(copied[1])
    assert any(told in line for line in export.changes(copied[1]))


@pytest.mark.slow
def test_accepting_rewrites_the_export_and_says_why(copied: tuple[Path, Path]) -> None:
    root, folder = copied
    _edit(folder, "gpus.json", '"memory_bytes": 16106127360', '"memory_bytes": 16000000000')
    with pytest.raises(InputError, match="a reason of one line"):
        export.accept(root, " ", folder)
    assert len(export.accept(root, "The driver says so", folder)) == 1
    assert export.changes(folder) == []
    assert export.accept(root, "Nothing more", folder) == []
    lines = (root / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    assert lines[4].startswith("- The driver says so (1 ")
    assert lines[5] == "- before"


@pytest.mark.slow
def test_accepting_needs_a_changelog_with_its_heading(copied: tuple[Path, Path]) -> None:
    root, folder = copied
    _edit(folder, "gpus.json", "16106127360", "16000000000")
    (root / "CHANGELOG.md").write_text("# Changes\n", encoding="utf-8")
    with pytest.raises(InputError, match="has no heading"):
        export.accept(root, "The driver says so", folder)


def test_the_gate_runs_in_the_quick_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("check", "pages", "ledger_texts", "ledger_problems"):
        monkeypatch.setattr(f"vlmmem.cite.book.{name}", lambda *_: [])
    monkeypatch.setattr(export, "changes", lambda: ["published/gpus.json: t4: memory_bytes was 1, is 2"])
    assert command.main(["check"]) == 1
    assert "t4: memory_bytes was 1, is 2; 'make accept" in capsys.readouterr().out
