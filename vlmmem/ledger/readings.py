"""One case under every reading: what each convention makes of a documents' rule."""

from fractions import Fraction
from typing import Any

from vlmmem.errors import InputError
from vlmmem.ledger.conventions import conventions, literal
from vlmmem.ledger.files import figure
from vlmmem.ledger.formulas import FORMULAS, Arguments


def readings(formula: str, **case: Any) -> dict[str, Fraction]:
    """What a documents' rule prints for a case: under the literal reading, then under each convention.

    Args:
        formula: id of the rule, such as "total" or "kv-cache".
        case: its arguments as the ledger's entries give them: catalogue ids, whole numbers, decimals as text, a context
            as tokens (8192) or as printed ("8k"), ids of figures.

    Returns: the values by id of the convention ("literal" first), in the unit that the rule prints (GB for sizes).

    >>> found = readings("total", model="llama-2-13b", context="8k", batch=10, format="fp16", share="0.1")
    >>> float(found["literal"]), float(found["kib-read-as-kb"])
    (102.4197504, 99.0)

    Raises InputError for a rule or a value that is not known, and for a rule that gives no number.
    """
    if formula not in FORMULAS:
        raise InputError(f"formula {formula!r} is not known; one of {', '.join(FORMULAS)}")
    given = Arguments(f"formula {formula}", case, lambda name: figure(name).printed)
    settings = {"literal": literal(), **{name: item.settings for name, item in conventions().items()}}
    found = {}
    for name, reading in settings.items():
        value = FORMULAS[formula].compute(given, reading).low
        if value is None:
            raise InputError(f"formula {formula!r} gives no number; one that does is needed, such as 'total'")
        found[name] = value
    return found
