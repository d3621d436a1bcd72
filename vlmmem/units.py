"""Bytes to and from the units that people read, and the precision at which a figure is printed.

Inside the package sizes are integers of bytes. A unit appears only where a human reads and names its base:
kB, MB, GB, TB are powers of 1,000, KiB, MiB, GiB, TiB are powers of 1,024 (IEC 80000-13).
"""

import re
from fractions import Fraction

from vlmmem.errors import InputError
from vlmmem.record import record

BYTES: dict[str, int] = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
"""Bytes in one of each unit."""

SCALES: dict[str, Fraction] = {
    **{unit: Fraction(size) for unit, size in BYTES.items()},
    **{f"{unit}/s": Fraction(size) for unit, size in BYTES.items()},
    **{prefix + "FLOP": Fraction(10**power) for prefix, power in (("", 0), ("G", 9), ("T", 12), ("P", 15))},
    **{prefix + "FLOP/s": Fraction(10**power) for prefix, power in (("", 0), ("G", 9), ("T", 12), ("P", 15))},
    "FLOP/byte": Fraction(1),
    "bit": Fraction(1),
    "bits": Fraction(1),
    "byte": Fraction(1),
    "bytes": Fraction(1),
    "s": Fraction(1),
    "ms": Fraction(1, 10**3),
    "µs": Fraction(1, 10**6),
    "ns": Fraction(1, 10**9),
    "%": Fraction(1, 100),
    "×": Fraction(1),
    "": Fraction(1),
}
"""What one of each unit is worth in the package's own terms: bytes, FLOP, seconds, bits, or a bare ratio."""

Number = int | float | Fraction

MOST_DIGITS = 300
"""Digits of the largest number that is read or shown, before the point and behind it: a float's range."""


def exact(value: Number) -> Fraction:
    """The rational number that is meant.

    A float stands for the shortest decimal that prints it: 0.1 is one tenth, not the nearest binary fraction.

    >>> exact(0.1) == Fraction(1, 10)
    True

    Raises InputError for what is no number: text, True, NaN, infinity.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        raise InputError(f"{value!r}: not a number; an int, a float or a Fraction is needed")
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise InputError(f"{value}: not a number that can be shown; a finite number is needed")
        return Fraction(repr(value))
    return Fraction(value)


def _read(digits: str) -> Fraction:
    """The number that digits with commas and a point stand for."""
    if len(digits) > MOST_DIGITS:
        raise InputError(f"{digits[:20]}...: {len(digits)} characters; a number of up to {MOST_DIGITS} is needed")
    return Fraction(digits.replace(",", ""))


def in_unit(value: Number, unit: str) -> Fraction:
    """The value (bytes, FLOP, seconds or a ratio) counted in ``unit``, exactly.

    >>> in_unit(2**30, "GB")
    Fraction(2097152, 1953125)
    >>> in_unit(2**30, "GiB")
    Fraction(1, 1)
    """
    if unit not in SCALES:
        raise InputError(f"unit {unit!r} is not known; one of {', '.join(u for u in SCALES if u)}")
    return exact(value) / SCALES[unit]


def rounded(value: Number, decimals: int) -> str:
    """The value in digits, half away from zero, thousands separated by commas.

    >>> rounded(Fraction(141245, 1000), 2), rounded(1049.6, 1), rounded(-0.5, 0)
    ('141.25', '1,049.6', '-1')

    Raises InputError for a number of more than 300 digits, or as many decimals: nobody reads them.
    """
    number = exact(value)
    if type(decimals) is not int or not 0 <= decimals <= MOST_DIGITS:
        raise InputError(f"decimals: {decimals!r} was given; a whole number from 0 to {MOST_DIGITS} is needed")
    if abs(number) >= 10**MOST_DIGITS:
        raise InputError(f"a number of more than {MOST_DIGITS} digits cannot be shown")
    scaled = abs(number) * 10**decimals + Fraction(1, 2)
    digits = scaled.numerator // scaled.denominator
    whole, rest = divmod(digits, 10**decimals)
    sign = "-" if number < 0 and digits else ""
    return f"{sign}{whole:,}" + (f".{rest:0{decimals}d}" if decimals else "")


def show(value: Number, unit: str = "GiB", decimals: int = 1) -> str:
    """The value as a human reads it, its unit named.

    >>> show(67_108_864_000), show(67_108_864_000, "GB"), show(0.1, "%", 0)
    ('62.5 GiB', '67.1 GB', '10 %')
    """
    digits = rounded(in_unit(value, unit), decimals)
    return digits if not unit else f"{digits}{'' if unit == '×' else ' '}{unit}"


def show_both(n_bytes: Number, decimals: int = 1) -> str:
    """A size in both bases, the vendor's and the driver's.

    >>> show_both(67_108_864_000)
    '67.1 GB (62.5 GiB)'
    """
    return f"{show(n_bytes, 'GB', decimals)} ({show(n_bytes, 'GiB', decimals)})"


def show_fitting(n_bytes: int) -> str:
    """A size in both bases, in the unit that shows its digits.

    >>> show_fitting(67_108_864_000), show_fitting(18_907_136), show_fitting(0)
    ('67.1 GB (62.5 GiB)', '18.9 MB (18.0 MiB)', '0 B')
    """
    if n_bytes < _LEAST_MB:
        return f"{n_bytes:,} B"
    if n_bytes < _LEAST_GB:
        return f"{show(n_bytes, 'MB')} ({show(n_bytes, 'MiB')})"
    return show_both(n_bytes)


# From here on a size is told in GB, and in MB, with a digit that says something.
_LEAST_GB, _LEAST_MB = 10**9, 10**5

# Whole numbers only: of "1,0496" or "3.1.5" no part is taken.
_NUMBER = r"(?<![\d])(?<!\d[.,])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\d]|[.,]\d)"
_PRINTED = (
    rf"\s*(?P<about>[~≈])?\s*(?P<below>[<>]=?|≥|≤)?\s*(?P<low>{_NUMBER})"
    rf"(?:\s*(?:-|–|to)\s*(?P<high>{_NUMBER}))?\s*(?P<unit>[^\d\s.,;:()]*)"
)


@record(frozen=True, slots=True)
class Printed:
    """A figure as somebody printed it, and what its digits promise.

    Attributes:
        text: to the letter.
        low, high: the number, or the ends of the range (equal where it is one number).
        decimals: decimals shown, the finer of the two ends.
        unit: as printed, so ``GB`` says nothing yet about its base; empty where none is.
        approximate: whether it stands behind ``~`` or ``≈``.
    """

    text: str
    low: Fraction
    high: Fraction
    decimals: int
    unit: str
    approximate: bool

    @classmethod
    def parse(cls, text: str, unit: str = "") -> "Printed":
        """Read the first number, or range, of ``text`` that stands before ``unit`` (where given).

        >>> Printed.parse("~65.5 GB").low, Printed.parse("5-10%").high, Printed.parse("1,049.6 GB").decimals
        (Fraction(131, 2), Fraction(10, 1), 1)
        >>> Printed.parse("7B × 2 bytes = 14 GB", "GB").low
        Fraction(14, 1)

        Raises InputError where there is no such number.
        """
        match = next((found for found in re.finditer(_PRINTED, text) if not unit or found["unit"] == unit), None)
        if not match:
            where = f" before {unit!r}" if unit else ""
            raise InputError(f"{text!r}: no number{where}; something like '65.5 GB' or '5-10%' is needed")
        low, high = match["low"], match["high"] or match["low"]
        decimals = max(len(number.partition(".")[2]) for number in (low, high))
        return cls(text, _read(low), _read(high), decimals, match["unit"], bool(match["about"]))

    @property
    def half_step(self) -> Fraction:
        """Half of the last printed digit: how far a value may lie from the digits and still print them."""
        return Fraction(1, 2 * 10**self.decimals)

    def matches(self, low: Number, high: Number | None = None) -> bool:
        """Whether a value, or a range, prints these digits. A tie is allowed either way.

        >>> Printed.parse("72.1 GB").matches(Fraction(7205, 100)), Printed.parse("9.2 GB").matches(9.1)
        (True, False)
        """
        ends = (exact(low), exact(low if high is None else high))
        return all(
            abs(end - printed) <= self.half_step for end, printed in zip(ends, (self.low, self.high), strict=True)
        )


def parse_size(text: str) -> int:
    """Bytes in a size such as ``80GiB`` or ``24 GB``; the unit must name its base.

    >>> parse_size("80GiB"), parse_size("1.5 kB")
    (85899345920, 1500)

    Raises InputError for anything else.
    """
    match = re.fullmatch(rf"\s*({_NUMBER})\s*([A-Za-z]+)\s*", text)
    if not match or match[2] not in BYTES:
        raise InputError(f"{text!r} is not a size; a number and one of {', '.join(BYTES)} is needed")
    size = _read(match[1]) * BYTES[match[2]]
    if size.denominator != 1:
        raise InputError(f"{text!r} is not a whole number of bytes")
    return int(size)
