"""The figures together: their order, their tables, and every way in which one of them does not hold."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vlmmem.errors import InputError
from vlmmem.ledger.conventions import Convention, conventions, literal
from vlmmem.ledger.entry import Document, Figure, prints
from vlmmem.ledger.formulas import FORMULAS


class _Asked(dict[str, Any]):
    """Arguments that remember which of them were asked for."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__(arguments)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        return super().__getitem__(name)


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing of which figures say what cannot all be followed.

    Attributes:
        title: the question to which they give different answers.
        figures: ids of all sides.
    """

    title: str
    figures: tuple[str, ...]


@dataclass(frozen=True)
class Ledger:
    """Documents and their figures, in the order of the documents' lines; and the subjects on which they disagree."""

    documents: Mapping[str, Document]
    by_id: Mapping[str, Figure]
    subjects: tuple[Subject, ...] = ()

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
        _ = item.correct, item.cost  # what cannot be computed is told here, not on the page
        if judged.verdict != item.declared:
            problems.append(
                f"{item.where}: declared {item.declared!r}, judged {judged.verdict!r} ({judged.reason};"
                f" printed {item.documented!r}, computed {item.computed})"
            )
        for other in item.against:
            if other == item.id:
                problems.append(f"{item.where}: names itself as its pair; the other side is needed")
            elif other not in self.by_id:
                problems.append(f"{item.where}: names {other!r}, which is not in the ledger")
            elif item.id not in self.by_id[other].against:
                problems.append(f"{item.where}: names {other!r}, whose entry does not name it back; add 'pair'")
        problems += [
            f"{item.where}: stands under {subject.title!r} in subjects.json, and names no other side of it"
            for subject in self.subjects
            if item.id in subject.figures and not set(item.against) & set(subject.figures)
        ]
        if judged.verdict == "wrong" and item.formula_id and not item.convention_id:
            problems += [
                f"{item.where}: no convention is declared, yet {other.id!r} prints it"
                for other in conventions().values()
                if prints(item, other.settings) and not self._check_convention(item, other)
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
        if not prints(item, convention.settings):
            return [f"{item.where}: convention {convention.id!r} does not print it; drop it or name one that does"]
        here = (item.document, str(item.line))
        places = [place.partition(":")[::2] for place in convention.used_at]
        places += [(other.document, str(other.line)) for other in self.figures if other.convention_id == convention.id]
        if any(place[0] == item.document and place != here for place in places):
            return []
        cells = self.table(item.table) if item.table else (item,)
        printed = sum(prints(cell, convention.settings) for cell in cells)
        if printed >= 2:
            return []
        told = f"convention {convention.id!r} prints {printed} cell of the table and {item.document} does not use it"
        return [f"{item.where}: {told} elsewhere; two cells are needed"]
