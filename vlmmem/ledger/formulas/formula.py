"""What a formula is: a function of a figure's arguments and of a reading of the units, with what is right instead."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from vlmmem import catalog
from vlmmem.errors import InputError
from vlmmem.hardware import Gpu
from vlmmem.ledger.conventions import Settings
from vlmmem.model import Model
from vlmmem.units import Printed

_DECIMAL = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")


@lru_cache(maxsize=1024)
def _fraction(value: int | str) -> Fraction:
    return Fraction(value)


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one figure, read by name; every complaint names the figure."""

    where: str
    values: Mapping[str, Any]
    printed: Callable[[str], Printed]

    def _get(self, name: str) -> Any:
        if name not in self.values:
            raise InputError(f"{self.where}: argument {name!r} is missing")
        return self.values[name]

    def has(self, name: str) -> bool:
        """Whether the figure gives this argument."""
        return name in self.values

    def _number(self, value: object, name: str) -> Fraction:
        if isinstance(value, str) and ":" in value:
            return self.printed(value).low
        if type(value) is int or (isinstance(value, str) and _DECIMAL.fullmatch(value)):
            return _fraction(value)
        raise InputError(
            f"{self.where}: argument {name!r} is {value!r}; a whole number, a decimal in quotes or a figure's id"
            " is needed"
        )

    def number(self, name: str, default: int | None = None) -> Fraction:
        """A number: an int, a decimal in quotes ("0.1"), or the id of a figure, whose printed value is taken."""
        return (
            Fraction(default)
            if default is not None and name not in self.values
            else self._number(self._get(name), name)
        )

    def numbers(self, name: str) -> tuple[Fraction, ...]:
        """A list of such numbers."""
        values = self._get(name)
        if not isinstance(values, list) or not values:
            raise InputError(f"{self.where}: argument {name!r} is {values!r}; a list of numbers is needed")
        return tuple(self._number(value, name) for value in values)

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number."""
        number = self.number(name, default)
        if number.denominator != 1:
            raise InputError(f"{self.where}: argument {name!r} is {number}; a whole number is needed")
        return int(number)

    def text(self, name: str) -> str:
        """A word."""
        value = self._get(name)
        if not isinstance(value, str):
            raise InputError(f"{self.where}: argument {name!r} is {value!r}; text is needed")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A word, or a list of words."""
        value = self._get(name)
        words = value if isinstance(value, list) else [value]
        if not words or not all(isinstance(word, str) for word in words):
            raise InputError(f"{self.where}: argument {name!r} is {value!r}; text or a list of texts is needed")
        return tuple(words)

    def model(self) -> Model:
        """The catalogue model named by ``model``."""
        return catalog.find_model(self.text("model"))

    def gpu(self) -> Gpu:
        """The catalogue GPU named by ``gpu``."""
        return catalog.find_gpu(self.text("gpu"))

    def tokens(self, k: int) -> int:
        """The context: "8k" is 8 times ``k``, a count written out is itself."""
        value = self._get("context")
        if isinstance(value, str) and value.endswith("k") and re.fullmatch("[0-9]{1,9}", value[:-1]):
            return int(value[:-1]) * k
        return self.whole("context")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a formula gives: a value or a range in the printed unit, and for a claim whether it holds."""

    low: Fraction | None
    high: Fraction | None = None
    holds: bool | None = None

    @property
    def range(self) -> tuple[Fraction, Fraction] | None:
        """Both ends, or None where the formula gives no number."""
        return None if self.low is None else (self.low, self.low if self.high is None else self.high)


def claimed(arguments: Arguments, ends: tuple[Fraction, ...], limit: Fraction) -> Outcome:
    """The ends of a range against a limit: whether all of them stand on the side that ``claim`` names."""
    side = arguments.text("claim")
    if side not in ("at most", "more than"):
        raise InputError(f"{arguments.where}: argument 'claim' is {side!r}; 'at most' or 'more than' is needed")
    holds = max(ends) <= limit if side == "at most" else min(ends) > limit
    return Outcome(ends[0], ends[-1], holds)


@dataclass(frozen=True, slots=True)
class Right:
    """What to use instead of a figure: in words, with its unit and for what, and in bytes where it is a size.

    ``partial``: a part that the printed amount holds is not counted in the size. ``why``: what parts the rule, even as
    it stands, from the right amount, in one sentence.
    """

    text: str
    size: Fraction | int | None = None
    partial: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class Formula:
    """A rule by which figures are recomputed.

    Attributes:
        id: its name in the ledger.
        text: the rule in symbols.
        source: where the rule stands (``document:line``) or the address of what it was read from.
        kind: "rule" (stated in prose or by a table), "code" (the document's own program or worked step, with its own
            arguments), or "fact" (a primary source, held by the catalogue).
        compute: the rule under a reading.
        right: what to use instead; None where the rule itself is right.
    """

    id: str
    text: str
    source: str
    kind: str
    compute: Callable[[Arguments, Settings], Outcome]
    right: Callable[[Arguments], Right] | None = None
