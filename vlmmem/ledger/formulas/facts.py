"""Facts that the catalogue holds, and what follows from them by the package's own functions."""

# ruff: noqa: ARG001 (every rule takes a reading, whether it needs one or not)

from fractions import Fraction
from typing import Any

from vlmmem.errors import InputError
from vlmmem.ledger.conventions import Settings
from vlmmem.ledger.formulas.formula import Arguments, Formula, Outcome, claimed
from vlmmem.units import exact, in_unit


def _whole(arguments: Arguments, owner: object, kind: str) -> Outcome:
    value = getattr(owner, arguments.text("field"), None)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{arguments.where}: {arguments.text('field')!r} is not a whole-number field of a {kind}")
    return Outcome(_in_unit(arguments, value))


def _field(arguments: Arguments, settings: Settings) -> Outcome:
    return _whole(arguments, arguments.model(), "model")


def _gpu_field(arguments: Arguments, settings: Settings) -> Outcome:
    return _whole(arguments, arguments.gpu(), "GPU")


def _in_unit(arguments: Arguments, value: Any) -> Fraction:
    """The value in the unit named by ``in``; the package's own terms (bytes, FLOP, seconds, counts) without one."""
    return in_unit(value, arguments.text("in")) if arguments.has("in") else exact(value)


def _evaluated(arguments: Arguments, source: str) -> Fraction:
    from vlmmem.cite.expression import evaluate

    try:
        return _in_unit(arguments, evaluate(source))
    except InputError as error:
        raise InputError(f"{arguments.where}: {error}") from None


def _ends(arguments: Arguments) -> tuple[Fraction, ...]:
    given = arguments.texts("expression")
    if len(given) > 2:
        raise InputError(f"{arguments.where}: 'expression' has {len(given)} values; one, or both ends of a range")
    return tuple(_evaluated(arguments, source) for source in given)


def _computed(arguments: Arguments, settings: Settings) -> Outcome:
    ends = _ends(arguments)
    return Outcome(ends[0], ends[-1])


def _computed_claim(arguments: Arguments, settings: Settings) -> Outcome:
    return claimed(arguments, _ends(arguments), _evaluated(arguments, arguments.text("limit")))


FORMULAS = (
    Formula("model-field", "a field of the published config", "the catalogue's sources", "fact", _field),
    Formula("gpu-field", "a field of the GPU's data sheet", "the catalogue's sources", "fact", _gpu_field),
    Formula("computed", "computed from the catalogue", "the catalogue's sources", "fact", _computed),
    Formula("computed-rule", "the document's rule on its own numbers", "the entry's line", "rule", _computed),
    Formula(
        "computed-claim",
        "a computed value against a computed limit",
        "the entry's line",
        "rule",
        _computed_claim,
    ),
)
