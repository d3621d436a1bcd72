"""A documented figure: what stands in the document, and the verdict that its formula and its evidence earn."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

from vlmmem.errors import InputError
from vlmmem.ledger.conventions import Settings, conventions, literal
from vlmmem.ledger.cost import Cost, cost_of, printed_ends
from vlmmem.ledger.formulas import FORMULAS, Arguments, Right
from vlmmem.ledger.verdicts import ERRATA, Evidence, Judgement, agrees, judge
from vlmmem.units import Printed

KINDS = ("table-cell", "worked-example", "inline", "formula", "code-output", "recommendation", "fact")
"""Every kind of figure."""
CAUSES: Mapping[str, str] = {
    "units": "a number of one unit stands under the name of another, or two units are added as if they were one",
    "copied shape": "the number belongs to another model: its layers, heads or widths were put in",
    "copied value": "the number belongs to another row, another case or another part of the document",
    "arithmetic": "the document's own numbers, by its own rule, do not come to what it prints",
    "wrong formula": "the rule itself, or the reason given, is not how it works",
    "misread source": "the source that is cited or meant says another thing",
    "misattribution": "the source that is named does not say it",
    "own statement": "it breaks what the same documents state, or do, elsewhere",
}
"""Why an erratum went wrong, each cause spelt out."""


@contextmanager
def placed(where: str) -> Iterator[None]:
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
    pairs: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    cost_given: Mapping[str, str] | None = None
    lookup: Mapping[str, "Figure"] = field(default_factory=dict, repr=False, compare=False)

    @property
    def formula(self) -> str | None:
        """Id of the formula that recomputes it."""
        return self.formula_id

    @property
    def rule(self) -> str | None:
        """The formula in symbols; for an expression over the package's face, the expression."""
        if self.formula_id is None:
            return None
        expression = self.arguments.get("expression")
        ends = expression if isinstance(expression, list) else [expression]
        return FORMULAS[self.formula_id].text if expression is None else " to ".join(map(str, ends))

    @property
    def against(self) -> tuple[str, ...]:
        """Ids of the figures that contradict it, the one whose rule it breaks first."""
        return tuple(dict.fromkeys(filter(None, (self.breaks, *self.pairs))))

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
    def cell(self) -> str:
        """Row and column of its table, as a reader names the cell; empty where it stands in none."""
        return " · ".join(filter(None, (self.row, self.column)))

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
        with placed(self.where):
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
    def _right(self) -> Right | None:
        """What the formula gives as right."""
        formula = FORMULAS[self.formula_id] if self.formula_id else None
        with placed(self.where):
            return formula.right(self.read()) if formula and formula.right else None

    @cached_property
    def correct_markup(self) -> str | None:
        """What to use instead, with its roles; from the formula where the entry gives none."""
        if self.correct_text is not None:
            return self.correct_text or None
        return self._right.text if self._right else None

    @cached_property
    def correct(self) -> str | None:
        """What to use instead, with its unit, as plain text; None where nothing else is needed."""
        from vlmmem.cite.prose import plain

        return None if self.correct_markup is None else plain(self.correct_markup)

    @property
    def cost(self) -> Cost | None:
        """What planning with an erratum costs; None for any other figure, and where no bytes follow from it."""
        return self.difference if self.verdict in ERRATA else None

    @cached_property
    def difference(self) -> Cost | None:
        """What parts the printed amount from the right one, whatever the verdict; None where no bytes follow from it.

        The formula's right amount counts where the entry says nothing else: neither ``cost`` nor ``correct``. For a
        figure that is no erratum it counts only if no part of it is left out.
        """
        right = self._right.size if self._right and self.correct_text is None else None
        if self._right and self._right.partial and self.verdict not in ERRATA:
            return None
        try:
            ends = printed_ends(self.printed, self.unit)
        except InputError:  # a sentence without a number
            ends = None
        return cost_of(self.cost_given, ends, right, self.where)

    @property
    def difference_why(self) -> str:
        """What parts the rule from the right amount, in one sentence; empty where its formula does not say."""
        return self._right.why if self._right else ""

    def json(self) -> dict[str, Any]:
        """The figure as the JSON interface shows it: ``pair`` is one id or None, ``pairs`` every side against it."""
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
            "cost": self.cost.json() if self.cost else None,
            "pair": self.against[0] if self.against else None,
            "pairs": list(self.against),
            "rule": self.rule,
            "reading": conventions()[self.convention_id].title if self.convention_id else None,
        }


def prints(item: Figure, settings: Settings) -> bool:
    """Whether a reading prints a figure's digits."""
    if not item.formula_id:
        return False
    return agrees(item.documented, item.unit, FORMULAS[item.formula_id].compute(item.read(), settings))
