"""Steps that the documents take with numbers that they print: sums, shares, quotients, comparisons."""

# ruff: noqa: ARG001 (every rule takes a reading, whether it needs one or not)

from fractions import Fraction

from vlmmem.errors import InputError
from vlmmem.ledger.conventions import Settings
from vlmmem.ledger.formulas.formula import Arguments, Formula, Outcome, claimed


def _share(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(arguments.number("share") * sum(arguments.numbers("of"), Fraction(0)))


def _sum(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(sum(arguments.numbers("terms"), Fraction(0)))


def _product(arguments: Arguments, settings: Settings) -> Outcome:
    result = Fraction(1)
    for factor in arguments.numbers("factors"):
        result *= factor
    return Outcome(result)


def _gpus_needed(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(Fraction(-(-arguments.number("total") // arguments.gpu().vendor_gb)))


def _quotient(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(_divided(arguments))


def _saved(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(100 * (1 - _divided(arguments)))


def _divided(arguments: Arguments) -> Fraction:
    if not arguments.number("to"):
        raise InputError(f"{arguments.where}: argument 'to' is 0; a number to divide by is needed")
    return arguments.number("of") / arguments.number("to")


def _ratio(arguments: Arguments, settings: Settings) -> Outcome:
    ratio, claimed = _divided(arguments), arguments.number("claimed")
    return Outcome(ratio, holds=abs(ratio - claimed) <= claimed / 100)


def _drawn(arguments: Arguments, settings: Settings) -> Outcome:
    return Outcome(Fraction(arguments.text("drawing").count("█")))


def claim(arguments: Arguments, low: Fraction, high: Fraction) -> Outcome:
    """Whether values stand on the claimed side of a GPU's memory as sold, or of another printed figure."""
    limit = Fraction(arguments.gpu().vendor_gb) if arguments.has("gpu") else arguments.number("limit")
    return claimed(arguments, (low, high), limit)


def _compare(arguments: Arguments, settings: Settings) -> Outcome:
    values = arguments.numbers("values")
    return claim(arguments, min(values), max(values))


FORMULAS = (
    Formula("share", "A = s × (W + KV)", "footprint:84", "code", _share),
    Formula("sum", "sum of the terms printed", "footprint:108", "code", _sum),
    Formula("product", "product of the factors printed", "footprint:36", "code", _product),
    Formula("quotient", "printed value / printed value", "inference:34", "code", _quotient),
    Formula("ratio", "printed value / printed value, as a claim", "footprint:152", "code", _ratio),
    Formula("saved", "1 − printed value / printed value, in %", "footprint:178", "code", _saved),
    Formula("drawn-cells", "filled cells of the drawing", "inference:276", "code", _drawn),
    Formula("gpus-needed", "⌈M / GPU memory⌉", "footprint:115", "code", _gpus_needed),
    Formula(
        "comparison",
        "printed values against a GPU's memory or another printed value",
        "footprint:166",
        "code",
        _compare,
    ),
)
