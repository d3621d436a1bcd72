"""The ledger's data files, read and validated: every complaint names file and entry."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vlmmem.errors import InputError
from vlmmem.ledger.collection import Ledger, Subject
from vlmmem.ledger.conventions import conventions
from vlmmem.ledger.cost import check_fields
from vlmmem.ledger.entry import CAUSES, KINDS, Document, Figure
from vlmmem.ledger.formulas import FORMULAS
from vlmmem.ledger.verdicts import ERRATA, VERDICTS, Evidence
from vlmmem.strict_json import read_json

FOLDER = Path(__file__).with_name("figures")
SUBJECTS = Path(__file__).with_name("subjects.json")

_FIELDS: Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "line": (int,),
    "section": (str,),
    "kind": (str,),
    "documented": (str,),
    "unit": (str,),
    "verdict": (str,),
    "note": (str,),
    "sources": (list,),
}
_OPTIONAL: Mapping[str, tuple[type, ...]] = {
    "formula": (str, type(None)),
    "convention": (str, type(None)),
    "correct": (str, type(None)),
    "table": (str,),
    "row": (str,),
    "column": (str,),
    "cause": (str,),
    "breaks": (str,),
    "pair": (str, list),
    "arguments": (dict,),
    "evidence": (list,),
    "cost": (dict,),
}


def _pairs(given: object, where: str) -> tuple[str, ...]:
    """The figures that ``pair`` names: one id, or a list of them."""
    names = given if isinstance(given, list) else [given]
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise InputError(f"{where}: 'pair' is {given!r}; a figure's id, or a list of ids, each once, is needed")
    return tuple(names)


def _entry(
    raw: object, shared: Mapping[str, Any], document: Document, file: str, by_id: Mapping[str, Figure]
) -> Figure:
    if not isinstance(raw, dict):
        raise InputError(f"{file}: an entry is {type(raw).__name__}; an object is needed")
    where = f"{file}: {' '.join(str(raw.get('id', 'an entry without id')).split())}"
    entry: dict[str, Any] = {**shared, **raw}
    for place in (shared, raw):
        if not isinstance(place.get("arguments", {}), dict):
            raise InputError(f"{where}: 'arguments' is {place['arguments']!r}; an object is needed")
    entry["arguments"] = {**shared.get("arguments", {}), **raw.get("arguments", {})}
    for name, kinds in {**_FIELDS, **_OPTIONAL}.items():
        if name not in entry:
            if name in _FIELDS:
                raise InputError(f"{where}: {name!r} is missing")
        elif not isinstance(entry[name], kinds) or isinstance(entry[name], bool):
            raise InputError(
                f"{where}: {name!r} is {entry[name]!r}; {' or '.join(k.__name__ for k in kinds)} is needed"
            )
    unknown = sorted(set(entry) - set(_FIELDS) - set(_OPTIONAL))
    if unknown:
        raise InputError(f"{where}: {unknown[0]!r} is not a field of a figure")
    prefix, _, slug = entry["id"].partition(":")
    if prefix != document.id or not slug or slug.strip("abcdefghijklmnopqrstuvwxyz0123456789.-"):
        raise InputError(f"{where}: the id must be {document.id}:slug, slug in a-z, 0-9, '.', '-'")
    if not 1 <= entry["line"] <= document.lines:
        raise InputError(f"{where}: line {entry['line']} is not in 1..{document.lines} of {document.id}")
    for name, choices in (("kind", KINDS), ("verdict", VERDICTS), ("cause", (*CAUSES, None))):
        if entry.get(name) not in choices:
            raise InputError(f"{where}: {name} is {entry.get(name)!r}; one of {', '.join(filter(None, choices))}")
    for name, known in (("formula", FORMULAS), ("convention", conventions())):
        if entry.get(name) is not None and entry[name] not in known:
            raise InputError(f"{where}: {name} {entry[name]!r} is not known; one of {', '.join(known)}")
    if entry.get("convention") and not entry.get("formula"):
        raise InputError(f"{where}: a convention without a formula; name the formula that it reads")
    evidence = []
    for item in entry.get("evidence", []):
        if not isinstance(item, dict) or set(item) != {"source", "says"} or not isinstance(item["says"], str | bool):
            raise InputError(
                f"{where}: evidence {item!r}; {{'source': address, 'says': text or true or false}} is needed"
            )
        evidence.append(Evidence(**item))
    if entry["verdict"] in ERRATA and not entry.get("cause"):
        raise InputError(f"{where}: an erratum needs a cause; one of {', '.join(CAUSES)}")
    if entry["verdict"] not in ERRATA and "cost" in entry:
        raise InputError(f"{where}: 'cost' stands at a figure that is {entry['verdict']}; only an erratum has one")
    if not entry["note"].strip():
        raise InputError(f"{where}: the note is empty; say how the verdict was earned")
    for name in ("documented", "section"):
        if not entry[name].strip():
            raise InputError(f"{where}: {name!r} is empty; the document's own words are needed")
    listed = [*entry["sources"], *(item.source for item in evidence)]
    if not all(isinstance(source, str) and source.strip() for source in listed):
        raise InputError(f"{where}: sources must be addresses")
    sources = tuple(dict.fromkeys(listed))
    if entry["verdict"] in ("sourced", "wrong") and not sources and not entry.get("formula"):
        raise InputError(f"{where}: {entry['verdict']!r} needs the source that was opened")
    return Figure(
        id=entry["id"],
        document=document.id,
        line=entry["line"],
        section=entry["section"],
        kind=entry["kind"],
        documented=entry["documented"],
        unit=entry["unit"],
        declared=entry["verdict"],
        formula_id=entry.get("formula"),
        convention_id=entry.get("convention"),
        note_text=entry["note"],
        correct_text=("" if entry["correct"] is None else entry["correct"]) if "correct" in entry else None,
        sources=sources,
        where=where,
        table=entry.get("table"),
        row=entry.get("row"),
        column=entry.get("column"),
        cause=entry.get("cause"),
        breaks=entry.get("breaks"),
        pairs=_pairs(entry.get("pair", []), where),
        arguments=entry["arguments"],
        evidence=tuple(evidence),
        cost_given=check_fields(entry["cost"], where) if "cost" in entry else None,
        lookup=by_id,
    )


def _documents(path: Path) -> dict[str, Document]:
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path.name}: an object of documents by name is needed")
    known = {}
    for name, fields in data.items():
        where = f"{path.name}: {name}"
        if not isinstance(fields, dict):
            raise InputError(f"{where}: {fields!r} stands where an object is needed")
        names = [each for each in Document.__slots__ if each != "id"]
        for told, wrong in (
            ("is not a field of a document", [each for each in fields if each not in names]),
            ("is missing", [each for each in names if each not in fields]),
        ):
            if wrong:
                raise InputError(f"{where}: {wrong[0]!r} {told}; the fields are {', '.join(names)}")
        document = Document(id=name, **fields)
        if type(document.lines) is not int or document.lines < 1:
            raise InputError(f"{where}: 'lines' is {document.lines!r}; a positive whole number is needed")
        for field_name in ("title", "line_counting"):
            text = getattr(document, field_name)
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{where}: {field_name!r} is {text!r}; text is needed")
        for field_name in ("author", "date", "address"):
            text = getattr(document, field_name)
            if text is not None and (not isinstance(text, str) or not text.strip()):
                raise InputError(f"{where}: {field_name!r} is {text!r}; text or null is needed")
        known[name] = document
    return known


def read_subjects(path: Path = SUBJECTS) -> tuple[Subject, ...]:
    """On what figures disagree: titles, and the ids of all sides. Raises InputError that names the title."""
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path.name}: an object of lists of figures by title is needed")
    for title, figures in data.items():
        if (
            not title.strip()
            or not isinstance(figures, list)
            or not all(isinstance(name, str) for name in figures)
            or not 1 < len(figures) == len(set(figures))
        ):
            raise InputError(f"{path.name}: {title!r}: {figures!r} stands where two ids or more, each once, are needed")
    return tuple(Subject(title, tuple(figures)) for title, figures in data.items())


def read(folder: Path = FOLDER, documents_file: Path | None = None) -> Ledger:
    """Read and validate the figures below ``folder``. Raises InputError that names file and entry."""
    known = _documents(documents_file or Path(__file__).with_name("documents.json"))
    for convention in conventions().values():
        for place in convention.used_at:
            name, _, line = place.partition(":")
            if name not in known or not line.isdecimal() or not 1 <= int(line) <= known[name].lines:
                raise InputError(
                    f"conventions.json: {convention.id}: used_at {place!r} is no line of a document; one such as"
                    " 'footprint:71' is needed"
                )
    by_id: dict[str, Figure] = {}
    paths = sorted(folder.glob("*/*.json"))
    if not paths:
        raise InputError(
            f"{folder.name}: no figures; files such as {next(iter(known), 'document')}/NAME.json are needed"
        )
    for path in paths:
        file = f"{path.parent.name}/{path.name}"
        if path.parent.name not in known:
            raise InputError(f"{file}: {path.parent.name!r} is not a document; one of {', '.join(known)}")
        data = read_json(path)
        if not isinstance(data, dict) or set(data) - {"shared", "figures"} or not isinstance(data.get("figures"), list):
            raise InputError(f"{file}: an object with 'figures' (a list) and perhaps 'shared' is needed")
        shared = data.get("shared", {})
        if not isinstance(shared, dict):
            raise InputError(f"{file}: 'shared' is {shared!r}; an object is needed")
        for raw in data["figures"]:
            entry = _entry(raw, shared, known[path.parent.name], file, by_id)
            if entry.id in by_id:
                raise InputError(f"{entry.where}: the id stands twice (also in {by_id[entry.id].where})")
            by_id[entry.id] = entry
    order = {name: place for place, name in enumerate(known)}
    ordered = sorted(by_id.values(), key=lambda item: (order[item.document], item.line))
    return Ledger(known, {item.id: item for item in ordered}, read_subjects())


@cache
def load() -> Ledger:
    """The package's ledger."""
    return read()


def figures(document: str | None = None, verdict: str | None = None) -> list[Figure]:
    """Figures of the ledger, those of one document or with one verdict where asked.

    Raises InputError for a document or verdict that does not exist.
    """
    book = load()
    for name, value, choices in (("document", document, tuple(book.documents)), ("verdict", verdict, VERDICTS)):
        if value is not None and value not in choices:
            raise InputError(f"{name} {value!r} is not known; one of {', '.join(choices)}")
    return [
        item
        for item in book.figures
        if document in (None, item.document) and (verdict is None or verdict == item.verdict)
    ]


def figure(figure_id: str) -> Figure:
    """One figure by its id. Raises InputError, with the nearest ids, where there is none."""
    by_id = load().by_id
    if figure_id not in by_id:
        from difflib import get_close_matches

        near = get_close_matches(figure_id, by_id, n=3, cutoff=0.4)
        raise InputError(f"figure {figure_id!r} is not in the ledger; nearest: {', '.join(near) or 'none'}")
    return by_id[figure_id]
