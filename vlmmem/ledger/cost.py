"""What an erratum costs whoever plans with it: bytes, and whole GPUs of the kind that the documents plan with."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from vlmmem import catalog
from vlmmem.errors import InputError
from vlmmem.units import BYTES, Number, Printed, exact, show_both

GPU = "a100-80gb"
"""The GPU in whose number a cost is counted: the one that the documents' recommendations name most often."""
NAME = GPU.upper().replace("-", " ")
"""Its short name: a catalogue id is one."""
FIELDS = ("right", "printed", "case")
"""What an entry's ``cost`` may give: two expressions over the package's face, in bytes, and for what they stand."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The amount that is printed, the amount that is right, and what their difference comes to.

    Attributes:
        printed: bytes, "GB" to the letter: 10^9.
        right: bytes that are needed in truth.
        case: for what both stand, where the figure itself does not say.

    >>> cost = Cost(printed=500_000_000, right=1_342_177_280)
    >>> cost.bytes, cost.gpus, cost.text
    (842177280, 0, '0.84 GB (0.78 GiB) short')
    """

    printed: int
    right: int
    case: str | None = None

    @property
    def bytes(self) -> int:
        """Above zero: the plan is short of this much. Below: it buys this much for nothing."""
        return self.right - self.printed

    @property
    def gpus(self) -> int:
        """The same in whole GPUs: as many as hold the right amount, minus as many as hold the printed one."""
        memory = catalog.find_gpu(GPU).memory_bytes
        return -(-self.right // memory) - -(-self.printed // memory)

    @property
    def text(self) -> str:
        """In words, both bases named."""
        if not self.bytes:
            return "nothing"
        size = abs(self.bytes)
        shown = f"{size:,} B" if size < 10**7 else show_both(size, 1 if size >= 10**10 else 2)
        told = f"{shown} {'short' if self.bytes > 0 else 'too much'}"
        if not self.gpus:
            return told
        return f"{told}, {abs(self.gpus)} × {NAME} too {'few' if self.gpus > 0 else 'many'}"

    def json(self) -> dict[str, Any]:
        """As the JSON interface shows it."""
        return {
            "bytes": self.bytes,
            "gpus": self.gpus,
            "gpu": GPU,
            "printed_bytes": self.printed,
            "right_bytes": self.right,
            "case": self.case,
        }


def check_fields(given: object, where: str) -> Mapping[str, str]:
    """The fields of an entry's ``cost``. Raises InputError for any other shape."""
    if (
        not isinstance(given, dict)
        or "right" not in given
        or set(given) - set(FIELDS)
        or not all(isinstance(text, str) and text.strip() for text in given.values())
    ):
        raise InputError(
            f"{where}: 'cost' is {given!r}; an object with 'right', an expression that gives bytes, is needed, and"
            " perhaps 'printed' (the same) and 'case' (text)"
        )
    return given


def printed_ends(printed: Printed, unit: str) -> tuple[Fraction, Fraction] | None:
    """The printed number, or both ends of its range, in bytes; None where its unit is no size."""
    size = BYTES.get({"KB": "kB"}.get(unit, unit))
    return None if size is None else (printed.low * size, printed.high * size)


def _evaluated(source: str, name: str, where: str) -> Fraction:
    from vlmmem.cite.expression import evaluate

    try:
        value = exact(evaluate(source))
    except InputError as error:
        raise InputError(f"{where}: cost: {name}: {error}") from None
    if value < 0:
        raise InputError(f"{where}: cost: {name}: {source!r} is below zero; an amount in bytes is needed")
    return value


def cost_of(
    given: Mapping[str, str] | None, ends: tuple[Fraction, Fraction] | None, right: Number | None, where: str
) -> Cost | None:
    """What an erratum costs, or None where no bytes follow from it.

    Args:
        given: the entry's own ``cost``, if any.
        ends: the printed amount in bytes, both ends of a range; None where no size is printed.
        right: the amount that the figure's formula gives as right, in bytes, if any.
        where: the entry, for complaints.

    Raises InputError for an expression that gives no amount, or where neither the entry nor the figure prints one.
    """
    if given is not None:
        right = _evaluated(given["right"], "right", where)
        if "printed" in given:
            ends = (_evaluated(given["printed"], "printed", where),) * 2
        elif ends is None:
            raise InputError(f"{where}: cost: no size is printed; 'printed', an expression that gives bytes, is needed")
    if right is None or ends is None:
        return None
    # A range is as wrong as its nearer end.
    nearest = min(max(exact(right), ends[0]), ends[1])
    return Cost(round(nearest), round(exact(right)), given.get("case") if given else None)
