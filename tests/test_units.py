"""Units, rounding, and what the digits of a printed figure promise."""

import math
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmmem.errors import InputError
from vlmmem.units import (
    BYTES,
    MOST_DIGITS,
    SCALES,
    Printed,
    exact,
    in_unit,
    parse_size,
    rounded,
    show,
    show_both,
)

SIZES = st.integers(min_value=0, max_value=10**18)
UNITS = st.sampled_from(sorted(BYTES))
KNOWN = ", ".join(unit for unit in SCALES if unit)


def _half_up(value: Fraction, decimals: int) -> str:
    """The standard library's rounding, with digits to spare."""
    with localcontext() as context:
        context.prec = 200
        number = Decimal(value.numerator) / Decimal(value.denominator)
        return f"{number.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_UP):,f}"


def test_bases() -> None:
    # IEC 80000-13: the two ladders, each step 1,000 or 1,024
    for ladder, step in ((("B", "kB", "MB", "GB", "TB"), 1000), (("B", "KiB", "MiB", "GiB", "TiB"), 1024)):
        assert [BYTES[unit] for unit in ladder] == [step**power for power in range(5)]


@given(SIZES, UNITS)
def test_a_size_counted_in_a_unit_comes_back(size: int, unit: str) -> None:
    assert in_unit(size, unit) * BYTES[unit] == size


@given(st.integers(0, 10**6), UNITS)
def test_a_shown_whole_number_is_parsed_back(count: int, unit: str) -> None:
    assert parse_size(show(count * BYTES[unit], unit, 0)) == count * BYTES[unit]


@given(st.integers(0, 10**9), UNITS)
def test_three_decimals_of_a_decimal_unit_are_exact(thousandths: int, unit: str) -> None:
    size = Fraction(thousandths * BYTES[unit], 1000)
    if size.denominator == 1:
        assert parse_size(show(size, unit, 3)) == size


@given(st.fractions(min_value=0, max_value=10**12, max_denominator=10**6), st.integers(0, 6))
def test_rounding_is_the_standard_librarys(value: Fraction, decimals: int) -> None:
    assert rounded(value, decimals) == _half_up(value, decimals)


@given(st.fractions(min_value=0, max_value=10**9, max_denominator=10**4), st.integers(0, 4))
def test_a_rounded_value_prints_its_own_digits(value: Fraction, decimals: int) -> None:
    printed = Printed.parse(f"{rounded(value, decimals)} GB", "GB")
    assert printed.decimals == decimals
    assert printed.matches(value)


@given(st.integers(0, 10**6), st.integers(0, 4), st.fractions(0, 1, max_denominator=1000))
def test_a_value_farther_than_half_a_step_does_not_match(digits: int, decimals: int, beyond: Fraction) -> None:
    text = rounded(Fraction(digits, 10**decimals), decimals)
    printed = Printed.parse(f"{text} GB", "GB")
    for sign in (-1, 1):
        assert printed.matches(printed.low + sign * printed.half_step)  # a tie, either way
        off = printed.half_step * (1 + beyond) + Fraction(1, 10**9)
        assert not printed.matches(printed.low + sign * off)


def test_a_negative_value_rounds_away_from_zero() -> None:
    assert [rounded(value, 0) for value in (-0.5, -1.5, -0.4)] == ["-1", "-2", "0"]


def test_a_float_stands_for_its_shortest_decimal() -> None:
    assert exact(0.1) + exact(0.2) == exact(0.3)
    assert rounded(2.675, 2) == "2.68"  # the binary fraction lies below the tie


def test_sizes_as_they_read() -> None:
    assert show(67_108_864_000) == "62.5 GiB"
    assert show_both(67_108_864_000) == "67.1 GB (62.5 GiB)"
    assert show(Fraction(21, 10), "×", 1) == "2.1×"
    assert show(1_555_000_000_000, "TB/s", 2) == "1.56 TB/s"
    assert show(312 * 10**12, "TFLOP/s", 0) == "312 TFLOP/s"
    assert show(0.004, "ms", 0) == "4 ms"
    assert show(40, "", 0) == "40"


@pytest.mark.parametrize(
    ("text", "unit", "low", "high", "decimals", "approximate"),
    [
        ("9.2 GB", "GB", "9.2", "9.2", 1, False),
        ("~65.5 GB", "GB", "65.5", "65.5", 1, True),
        ("5-10% of (Model Weights + KV Cache)", "%", "5", "10", 0, False),
        ("5–10 %", "%", "5", "10", 0, False),
        ("1,049.6 GB", "GB", "1049.6", "1049.6", 1, False),
        ("2.0 to 3.25 GB", "GB", "2", "3.25", 2, False),
        ("7B × 2 bytes = 14 GB", "GB", "14", "14", 0, False),
        ("7B × 2 bytes = 14 GB", "bytes", "2", "2", 0, False),
        (">90%", "%", "90", "90", 0, False),
        ("3× A100 40GB GPUs", "×", "3", "3", 0, False),
        ("800 KB/token", "KB/token", "800", "800", 0, False),
        ("LLaMA-2 13B: 26 GB.", "GB", "26", "26", 0, False),
        ("32768", "", "32768", "32768", 0, False),
    ],
)
def test_what_is_read_of_a_printed_figure(
    text: str, unit: str, low: str, high: str, decimals: int, approximate: bool
) -> None:
    printed = Printed.parse(text, unit)
    assert (printed.low, printed.high) == (Fraction(low), Fraction(high))
    assert (printed.decimals, printed.approximate, printed.text) == (decimals, approximate, text)


@pytest.mark.parametrize("text", ["1,0496 GB", "3.1.5 GB", "12,34.5 GB", "about GB", "", "GB 12"])
def test_no_part_of_a_misprinted_number_is_taken(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Printed.parse(text, "GB")
    assert str(caught.value) == (f"{text!r}: no number before 'GB'; something like '65.5 GB' or '5-10%' is needed")


def test_a_range_matches_only_with_both_ends() -> None:
    printed = Printed.parse("5-10%")
    assert printed.matches(5, 10)
    assert printed.matches(Fraction("5.5"), Fraction("9.5"))
    assert not printed.matches(5)
    assert not printed.matches(5, 11)
    assert not Printed.parse("5%").matches(5, 10)


@pytest.mark.parametrize(
    ("text", "size"),
    [("80GiB", 80 * 2**30), (" 24 GB ", 24 * 10**9), ("1.5 kB", 1500), ("1,024 MiB", 2**30), ("0 B", 0)],
)
def test_sizes_are_parsed(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["80", "80 Gb", "80 KB", "GB", "", "-1 GB", "1e9 B", "1,5 GB", "1 GB 2", "80 gib"])
def test_what_is_no_size_is_told(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_size(text)
    assert str(caught.value) == f"{text!r} is not a size; a number and one of {', '.join(BYTES)} is needed"


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: in_unit(1, "Gb"), f"unit 'Gb' is not known; one of {KNOWN}"),
        (lambda: show(1, "KB"), f"unit 'KB' is not known; one of {KNOWN}"),
        (lambda: exact(math.nan), "nan: not a number that can be shown; a finite number is needed"),
        (lambda: exact(-math.inf), "-inf: not a number that can be shown; a finite number is needed"),
        # Fraction("1e999999999") would fill the memory
        (
            lambda: exact("1e999999999"),  # type: ignore[arg-type]
            "'1e999999999': not a number; an int, a float or a Fraction is needed",
        ),
        (lambda: exact(True), "True: not a number; an int, a float or a Fraction is needed"),
        (lambda: exact(None), "None: not a number; an int, a float or a Fraction is needed"),  # type: ignore[arg-type]
        (lambda: rounded(1, -1), "decimals: -1 was given; a whole number from 0 to 300 is needed"),
        (lambda: rounded(1, 10**9), "decimals: 1000000000 was given; a whole number from 0 to 300 is needed"),
        (lambda: rounded(1, 1.0), "decimals: 1.0 was given; a whole number from 0 to 300 is needed"),  # type: ignore[arg-type]
        (lambda: rounded(10**MOST_DIGITS, 0), "a number of more than 300 digits cannot be shown"),
        (lambda: parse_size("0.5 B"), "'0.5 B' is not a whole number of bytes"),
        (
            lambda: parse_size("9" * 5000 + " B"),
            f"{'9' * 20}...: 5000 characters; a number of up to 300 is needed",
        ),
        (
            lambda: Printed.parse("9" * 5000 + " B"),
            f"{'9' * 20}...: 5000 characters; a number of up to 300 is needed",
        ),
        (lambda: Printed.parse("none"), "'none': no number; something like '65.5 GB' or '5-10%' is needed"),
    ],
)
def test_every_complaint_says_what_would_be_right(call: Callable[[], object], line: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == line


def _in_one_line(call: Callable[[], object]) -> None:
    try:
        call()
    except InputError as error:
        line = str(error)
    else:
        line = ""
    assert "\n" not in line


@given(st.text(max_size=60), st.sampled_from(["", "GB", "%", "×"]))
def test_any_text_is_read_or_refused(text: str, unit: str) -> None:
    _in_one_line(lambda: Printed.parse(text, unit))
    _in_one_line(lambda: parse_size(text))


@given(st.floats(), st.integers(-3, 310))
def test_any_float_is_shown_or_refused(value: float, decimals: int) -> None:
    _in_one_line(lambda: rounded(value, decimals))
