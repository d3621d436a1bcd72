"""Errata by what they cost, those of one root cause together; and the statements that disagree with one another."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vlmmem.ledger.collection import Ledger
from vlmmem.ledger.entry import Figure
from vlmmem.ledger.verdicts import ERRATA

_VARYING = re.compile(r"\{\w+\}`[^`]*`|\d[\d.,]*")


def _weight(item: Figure) -> int:
    """Bytes by which an erratum misleads, either way; below any cost where none follows from it."""
    return abs(item.cost.bytes) if item.cost else -1


@dataclass(frozen=True, slots=True)
class Defect:
    """Errata that went wrong for one reason: cells of one table, or entries whose notes say the same.

    Attributes:
        figures: in the order of the document.
    """

    figures: tuple[Figure, ...]

    @property
    def worst(self) -> Figure:
        """The one that costs most; the first of several."""
        return max(self.figures, key=_weight)

    @property
    def document(self) -> str:
        """The document in which all of them stand."""
        return self.worst.document

    @property
    def cause(self) -> str:
        """Why all of them went wrong."""
        return self.worst.cause or ""

    @property
    def notes(self) -> tuple[Figure, ...]:
        """Of each note the first figure that has it, the worst one's first; notes that differ in numbers are one."""
        found: dict[str, Figure] = {}
        for item in (self.worst, *self.figures):
            found.setdefault(_VARYING.sub("#", item.note_text), item)
        return tuple(found.values())


def defects(ledger: Ledger) -> tuple[Defect, ...]:
    """Every erratum of a ledger, grouped; the dearest first, those without a cost last."""
    groups: dict[tuple[str, str, str | None], list[Figure]] = {}
    for item in ledger.figures:
        if item.verdict in ERRATA:
            groups.setdefault((item.document, item.table or item.note_text, item.cause), []).append(item)
    found = (Defect(tuple(items)) for items in groups.values())
    return tuple(sorted(found, key=lambda defect: -_weight(defect.worst)))


def dear(ledger: Ledger, most: int = 12) -> tuple[Figure, ...]:
    """Figures that are no errata, yet a GPU or more from the right amount; the dearest first, at most so many."""
    found = [
        (abs(item.difference.bytes), item)
        for item in ledger.figures
        if item.verdict not in ERRATA and item.difference and item.difference.gpus
    ]
    return tuple(item for _, item in sorted(found, key=lambda each: -each[0])[:most])


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Statements of one thing that cannot all be followed.

    Attributes:
        figures: every side, in the order of the documents.
        title: the thing; empty where nobody named it.
    """

    figures: tuple[Figure, ...]
    title: str = ""

    @property
    def documents(self) -> tuple[str, ...]:
        """The documents that take part, each once."""
        return tuple(dict.fromkeys(item.document for item in self.figures))

    @property
    def anchor(self) -> str:
        """Its anchor on the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or self.figures[0].anchor

    @property
    def standing(self) -> tuple[Figure, ...]:
        """The sides that keep a verdict that is no erratum."""
        return tuple(item for item in self.figures if item.verdict not in ERRATA)


def disagreements(ledger: Ledger) -> tuple[Disagreement, ...]:
    """The sides of each subject, and whoever else name one another as pairs: within a document first, then across.

    A figure stands in as many as it has subjects; that it stands in two of them does not make them one.
    """
    titled = [(subject.title, set(subject.figures) & set(ledger.by_id)) for subject in ledger.subjects]
    group: dict[str, set[str]] = {}
    for item in ledger.figures:
        for other in item.against:
            if not any({item.id, other} <= members for _, members in titled):
                joined = group.get(item.id, {item.id}) | group.get(other, {other})
                group.update(dict.fromkeys(joined, joined))
    untitled = {id(members): members for members in group.values()}.values()
    groups = [*titled, *(("", members) for members in untitled)]
    found = (_in_order(ledger, members, title) for title, members in groups if len(members) > 1)
    return tuple(sorted(found, key=lambda each: (len(each.documents), _place(ledger, each.figures[0]))))


def _place(ledger: Ledger, item: Figure) -> tuple[int, int]:
    return list(ledger.documents).index(item.document), item.line


def _in_order(ledger: Ledger, members: Iterable[str], title: str) -> Disagreement:
    items = (ledger.by_id[name] for name in members)
    return Disagreement(tuple(sorted(items, key=lambda item: (*_place(ledger, item), item.id))), title)
