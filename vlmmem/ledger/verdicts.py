"""The verdict on a figure, earned from its formula, its convention and its evidence at the printed precision.

The order of precedence is the interface's: wrong, contradicted, inconsistent, reproduced, convention, sourced,
unverifiable; the first that applies is given. `judge` never reads the declared verdict; the ledger's check compares the
two, and any difference is an error in both directions.
"""

from dataclasses import dataclass

from vlmmem.errors import InputError
from vlmmem.ledger.conventions import Settings
from vlmmem.ledger.formulas import Arguments, Formula, Outcome
from vlmmem.units import Printed

VERDICTS = ("wrong", "contradicted", "inconsistent", "reproduced", "convention", "sourced", "unverifiable")
"""Every verdict, in the order of precedence."""
ERRATA = VERDICTS[:3]
"""The verdicts that say the document is in error."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a primary source says of a figure.

    Attributes:
        source: the address that was opened (with section or revision).
        says: the source's own number as it prints it, or True where it states the claim, False where it states
            another thing.
    """

    source: str
    says: str | bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with the value that earned it."""

    verdict: str
    computed: Outcome | None
    reason: str


def agrees(documented: str, unit: str, outcome: Outcome) -> bool:
    """Whether an outcome prints the documented digits (or, for a claim, holds).

    >>> from fractions import Fraction
    >>> agrees("9.2 GB", "GB", Outcome(Fraction("9.24"))), agrees("fits", "", Outcome(Fraction(1), holds=False))
    (True, False)
    """
    if outcome.holds is not None:
        return outcome.holds
    ends = outcome.range
    return ends is not None and Printed.parse(documented, unit).matches(*ends)


def supports(documented: str, unit: str, evidence: Evidence) -> bool:
    """Whether a source says the same as the document, at the document's printed precision.

    >>> supports("40-60%", "%", Evidence("arXiv 2309.06180", "60-80%"))
    False
    """
    if isinstance(evidence.says, bool):
        return evidence.says
    said = Printed.parse(evidence.says)
    return Printed.parse(documented, unit).matches(said.low, said.high)


def judge(
    documented: str,
    unit: str,
    formula: Formula | None,
    arguments: Arguments,
    literal: Settings,
    convention: Settings | None,
    evidence: tuple[Evidence, ...],
    breaks: str | None,
) -> Judgement:
    """The verdict that the rules give.

    ``breaks`` is the id of the figure whose statement this one breaks, where the document contradicts itself.
    Raises InputError where a convention is declared that the figure does not need.
    """
    plain = formula.compute(arguments, literal) if formula else None
    read = formula.compute(arguments, convention) if formula and convention else None
    shown = read if read is not None else plain
    against = [item for item in evidence if not supports(documented, unit, item)]
    if against:
        return Judgement("wrong", shown, f"{against[0].source} says otherwise")
    if formula and plain and shown:
        prints, prints_read = agrees(documented, unit, plain), agrees(documented, unit, shown)
        if formula.kind == "code" and not prints:
            return Judgement("contradicted", plain, "the document's own rule gives another value")
        if not prints and not prints_read:
            return Judgement("wrong", shown, "no reading prints it")
        if breaks:
            return Judgement("inconsistent", shown, f"it breaks {breaks}")
        if prints and convention:
            raise InputError(f"{arguments.where}: the literal reading prints it; the convention is to be dropped")
        if not prints:
            return Judgement("convention", shown, "only under the convention")
        return Judgement("sourced" if formula.kind == "fact" else "reproduced", plain, "as it stands")
    if breaks:
        return Judgement("inconsistent", None, f"it breaks {breaks}")
    if evidence:
        return Judgement("sourced", None, f"{evidence[0].source} says the same")
    return Judgement("unverifiable", None, "no source that could be read")
