"""The ledger: what the documents print, figure by figure, and whether it stands.

A figure is data (`figures/<document>/*.json`); its formula, its convention and its verdict are earned by code. `load`
validates everything and names file and entry in every complaint.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from vlmmem.errors import InputError
from vlmmem.ledger.conventions import Convention, conventions, literal
from vlmmem.ledger.formulas import FORMULAS, Arguments, Formula
from vlmmem.ledger.strict import read_json
from vlmmem.ledger.verdicts import ERRATA, VERDICTS, Evidence, Judgement, agrees, judge
from vlmmem.units import Printed

__all__ = [
    "CAUSES",
    "ERRATA",
    "KINDS",
    "VERDICTS",
    "Convention",
    "Document",
    "Evidence",
    "Figure",
    "Formula",
    "Judgement",
    "Ledger",
    "figure",
    "figures",
    "load",
]

FOLDER = Path(__file__).with_name("figures")
KINDS = ("table-cell", "worked-example", "inline", "formula", "code-output", "recommendation", "fact")
"""Every kind of figure."""
CAUSES = (
    "units",
    "copied shape",
    "copied value",
    "arithmetic",
    "wrong formula",
    "misread source",
    "misattribution",
    "own statement",
)
"""Why an erratum went wrong."""


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Complaints of whatever is called here begin with the entry that they are about."""
    try:
        yield
    except InputError as error:
        line = str(error)
        raise InputError(line if line.startswith(where) else f"{where}: {line}") from None


@dataclass(frozen=True, slots=True)
class Document:
    """A published document, as the ledger cites it."""

    id: str
    title: str
    author: str | None
    date: str | None
    address: str | None
    lines: int
    line_counting: str


@dataclass(frozen=True)
class Figure:
    """One documented figure. The public fields are those of the JSON interface."""

    id: str
    document: str
    line: int
    section: str
    kind: str
    documented: str
    unit: str
    declared: str
    formula_id: str | None
    convention_id: str | None
    note_text: str
    correct_text: str | None
    sources: tuple[str, ...]
    where: str
    table: str | None = None
    row: str | None = None
    column: str | None = None
    cause: str | None = None
    breaks: str | None = None
    pair: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    lookup: Mapping[str, "Figure"] = field(default_factory=dict, repr=False, compare=False)

    @property
    def formula(self) -> str | None:
        """Id of the formula that recomputes it."""
        return self.formula_id

    @property
    def convention(self) -> str | None:
        """Id of the convention under which it stands."""
        return self.convention_id

    @property
    def slug(self) -> str:
        """The part of the id behind the document's name."""
        return self.id.partition(":")[2]

    @property
    def anchor(self) -> str:
        """Its anchor on the ledger page."""
        return self.id.replace(":", "-")

    @property
    def printed(self) -> Printed:
        """The figure's number and printed precision."""
        return Printed.parse(self.documented, self.unit)

    @property
    def printed_unit_differs(self) -> bool:
        """Whether ``unit`` is another one than ``documented`` shows; a recommendation may leave its unit unsaid."""
        return bool(self.unit) and self.kind != "recommendation" and self.unit not in self.documented

    def read(self) -> Arguments:
        """The arguments, ready for a formula."""

        def printed(other: str) -> Printed:
            if other == self.id:
                raise InputError(f"{self.where}: its own printed value is an argument; it would prove itself")
            if other not in self.lookup:
                raise InputError(f"{self.where}: argument {other!r} is not a figure of the ledger")
            return self.lookup[other].printed

        return Arguments(self.where, self.arguments, printed)

    @cached_property
    def judgement(self) -> Judgement:
        """The verdict that the rules give, whatever is declared."""
        formula = FORMULAS[self.formula_id] if self.formula_id else None
        convention = conventions()[self.convention_id].settings if self.convention_id else None
        with _placed(self.where):
            return judge(
                self.documented, self.unit, formula, self.read(), literal(), convention, self.evidence, self.breaks
            )

    @property
    def verdict(self) -> str:
        """The verdict, as judged."""
        return self.judgement.verdict

    @property
    def computed_range(self) -> tuple[Fraction, Fraction] | None:
        """The recomputed value in the printed unit (both ends), exactly."""
        return self.judgement.computed.range if self.judgement.computed else None

    @property
    def computed(self) -> float | list[float] | None:
        """The recomputed value in the printed unit: a number, [low, high] for a range, or None."""
        ends = self.computed_range
        if ends is None:
            return None
        low, high = (float(end) for end in ends)
        return low if low == high else [low, high]

    @cached_property
    def note(self) -> str:
        """The reason for the verdict, as plain text."""
        from vlmmem.cite.prose import plain

        return plain(self.note_text)

    @cached_property
    def correct_markup(self) -> str | None:
        """What to use instead, with its roles; from the formula where the entry gives none."""
        if self.correct_text is not None:
            return self.correct_text or None
        formula = FORMULAS[self.formula_id] if self.formula_id else None
        with _placed(self.where):
            return formula.right(self.read()) if formula and formula.right else None

    @cached_property
    def correct(self) -> str | None:
        """What to use instead, with its unit, as plain text; None where nothing else is needed."""
        from vlmmem.cite.prose import plain

        return None if self.correct_markup is None else plain(self.correct_markup)

    def json(self) -> dict[str, Any]:
        """The figure as the JSON interface shows it."""
        return {
            "id": self.id,
            "document": self.document,
            "line": self.line,
            "section": self.section,
            "kind": self.kind,
            "documented": self.documented,
            "unit": self.unit,
            "formula": self.formula,
            "convention": self.convention,
            "computed": self.computed,
            "verdict": self.verdict,
            "correct": self.correct,
            "note": self.note,
            "sources": list(self.sources),
            "table": self.table,
            "row": self.row,
            "column": self.column,
            "cause": self.cause,
            "pair": self.breaks or self.pair,
            "rule": FORMULAS[self.formula_id].text if self.formula_id else None,
            "reading": conventions()[self.convention_id].title if self.convention_id else None,
        }


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
    "pair": (str,),
    "arguments": (dict,),
    "evidence": (list,),
}


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
        pair=entry.get("pair"),
        arguments=entry["arguments"],
        evidence=tuple(evidence),
        lookup=by_id,
    )


class _Asked(dict[str, Any]):
    """Arguments that remember which of them were asked for."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__(arguments)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        return super().__getitem__(name)


@dataclass(frozen=True)
class Ledger:
    """Documents and their figures, in the order of the documents' lines."""

    documents: Mapping[str, Document]
    by_id: Mapping[str, Figure]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Every figure."""
        return tuple(self.by_id.values())

    def table(self, name: str) -> tuple[Figure, ...]:
        """The cells of one documented table, in the order of the document."""
        cells = tuple(item for item in self.figures if item.table == name)
        if not cells:
            tables = sorted({item.table for item in self.figures if item.table})
            raise InputError(f"table {name!r} is not in the ledger; one of {', '.join(tables)}")
        return cells

    def check(self) -> list[str]:
        """Every way in which an entry does not hold, one line each; empty when all stand."""
        problems = []
        for item in self.figures:
            try:
                problems += self._check(item)
            except InputError as error:
                problems.append(str(error))
        return problems

    def _check(self, item: Figure) -> list[str]:
        problems = []
        judged = item.judgement
        _ = item.correct  # what cannot be computed is told here, not on the page
        if judged.verdict != item.declared:
            problems.append(
                f"{item.where}: declared {item.declared!r}, judged {judged.verdict!r} ({judged.reason};"
                f" printed {item.documented!r}, computed {item.computed})"
            )
        for other in filter(None, (item.breaks, item.pair)):
            if other == item.id:
                problems.append(f"{item.where}: names itself as its pair; the other side is needed")
            elif other not in self.by_id:
                problems.append(f"{item.where}: names {other!r}, which is not in the ledger")
            elif item.id not in (self.by_id[other].breaks, self.by_id[other].pair):
                problems.append(f"{item.where}: names {other!r}, whose entry does not name it back; add 'pair'")
        if judged.verdict == "wrong" and item.formula_id and not item.convention_id:
            problems += [
                f"{item.where}: no convention is declared, yet {other.id!r} prints it"
                for other in conventions().values()
                if prints(item, other) and not self._check_convention(item, other)
            ]
        if item.convention_id:
            problems += self._check_convention(item, conventions()[item.convention_id])
        if item.printed_unit_differs:
            problems.append(f"{item.where}: unit {item.unit!r} is not the unit printed in {item.documented!r}")
        return problems + self._check_arguments(item)

    def _check_arguments(self, item: Figure) -> list[str]:
        """What is given and not read was meant for something: a misspelt argument leaves the default standing."""
        given = _Asked(item.arguments)
        if item.formula_id:
            formula, arguments = FORMULAS[item.formula_id], replace(item.read(), values=given)
            formula.compute(arguments, literal())
            if formula.right:
                formula.right(arguments)
        return [
            f"{item.where}: argument {name!r} is not one of {item.formula_id or 'a figure without formula'}"
            for name in given
            if name not in given.asked
        ]

    def _check_convention(self, item: Figure, convention: Convention) -> list[str]:
        """A convention must print the figure, and two cells of its table, or be used elsewhere in the document."""
        if not prints(item, convention):
            return [f"{item.where}: convention {convention.id!r} does not print it; drop it or name one that does"]
        here = (item.document, str(item.line))
        places = [place.partition(":")[::2] for place in convention.used_at]
        places += [(other.document, str(other.line)) for other in self.figures if other.convention_id == convention.id]
        if any(place[0] == item.document and place != here for place in places):
            return []
        cells = self.table(item.table) if item.table else (item,)
        printed = sum(prints(cell, convention) for cell in cells)
        if printed >= 2:
            return []
        told = f"convention {convention.id!r} prints {printed} cell of the table and {item.document} does not use it"
        return [f"{item.where}: {told} elsewhere; two cells are needed"]


def prints(item: Figure, convention: Convention) -> bool:
    """Whether a convention prints a figure's digits."""
    if not item.formula_id:
        return False
    return agrees(item.documented, item.unit, FORMULAS[item.formula_id].compute(item.read(), convention.settings))


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
    return Ledger(known, {item.id: item for item in ordered})


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
