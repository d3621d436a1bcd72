"""The verdict that the rules give: the first of the interface's seven that applies."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmmem.errors import InputError
from vlmmem.ledger.conventions import conventions, literal
from vlmmem.ledger.formulas import Arguments, Formula, Outcome
from vlmmem.ledger.verdicts import ERRATA, VERDICTS, Evidence, Judgement, agrees, judge, supports

READING = conventions()["kb-is-kib"].settings
YES, NO = Evidence("https://example.org/yes", True), Evidence("https://example.org/no", False)
NOTHING = Arguments("here", {}, lambda name: (_ for _ in ()).throw(AssertionError(name)))


def _rule(kind: str, plain: str, read: str) -> Formula:
    """A rule that gives one value as it stands and another under the convention."""
    return Formula("f", "f", "footprint:1", kind, lambda _, s: Outcome(Fraction(read if s == READING else plain)))


def _judge(
    kind: str | None,
    plain: str = "8",
    read: str = "8",
    convention: bool = False,
    evidence: tuple[Evidence, ...] = (),
    breaks: str | None = None,
) -> Judgement:
    formula = _rule(kind, plain, read) if kind else None
    return judge("9.2 GB", "GB", formula, NOTHING, literal(), READING if convention else None, evidence, breaks)


@pytest.mark.parametrize(
    ("expected", "case"),
    [
        ("reproduced", {"kind": "rule", "plain": "9.24"}),
        ("reproduced", {"kind": "code", "plain": "9.15"}),
        ("sourced", {"kind": "fact", "plain": "9.2"}),
        ("convention", {"kind": "rule", "read": "9.2", "convention": True}),
        ("convention", {"kind": "fact", "read": "9.2", "convention": True}),
        ("wrong", {"kind": "rule"}),
        ("wrong", {"kind": "fact"}),
        ("wrong", {"kind": "rule", "convention": True}),
        ("contradicted", {"kind": "code"}),
        ("contradicted", {"kind": "code", "read": "9.2", "convention": True}),
        ("inconsistent", {"kind": "rule", "plain": "9.2", "breaks": "footprint:other"}),
        ("inconsistent", {"kind": None, "breaks": "footprint:other"}),
        ("wrong", {"kind": "rule", "plain": "9.2", "evidence": (YES, NO)}),
        ("wrong", {"kind": None, "evidence": (NO,), "breaks": "footprint:other"}),
        ("contradicted", {"kind": "code", "breaks": "footprint:other"}),
        ("inconsistent", {"kind": None, "evidence": (YES,), "breaks": "footprint:other"}),
        ("reproduced", {"kind": "rule", "plain": "9.2", "evidence": (YES,)}),
        ("sourced", {"kind": None, "evidence": (YES,)}),
        ("unverifiable", {"kind": None}),
    ],
)
def test_the_first_that_applies(expected: str, case: dict[str, object]) -> None:
    assert _judge(**case).verdict == expected  # type: ignore[arg-type]


def test_the_order_is_the_interfaces() -> None:
    assert VERDICTS == (
        "wrong",
        "contradicted",
        "inconsistent",
        "reproduced",
        "convention",
        "sourced",
        "unverifiable",
    )
    assert ERRATA == ("wrong", "contradicted", "inconsistent")


def test_a_case_that_several_fit_gets_the_first() -> None:
    """Precedence over every combination, restated from the interface."""
    for kind, plain, read, evidence, breaks in product(
        (None, "rule", "code", "fact"), ("8", "9.2"), ("8", "9.2"), ((), (YES,), (NO,)), (None, "footprint:other")
    ):
        prints = kind is not None and plain == "9.2"
        prints_read = kind is not None and read == "9.2"
        fits = {
            "wrong": NO in evidence or (kind in ("rule", "fact") and not prints and not prints_read),
            "contradicted": kind == "code" and not prints,
            "inconsistent": breaks is not None,
            "reproduced": kind in ("rule", "code") and prints,
            "convention": kind is not None and not prints and prints_read,
            "sourced": (kind == "fact" and prints) or (kind is None and YES in evidence),
            "unverifiable": True,
        }
        expected = next(verdict for verdict in VERDICTS if fits[verdict])
        if prints and not any(fits[verdict] for verdict in ERRATA):
            continue  # there the convention itself is the fault: the next test
        judged = _judge(kind, plain, read, kind is not None, evidence, breaks).verdict
        assert judged == expected, (kind, plain, read, evidence, breaks)


def test_a_convention_that_is_not_needed_is_an_error() -> None:
    for kind in ("rule", "code", "fact"):
        with pytest.raises(InputError) as caught:
            _judge(kind, plain="9.2", read="9.2", convention=True)
        assert str(caught.value) == "here: the literal reading prints it; the convention is to be dropped"


def test_the_value_that_earned_the_verdict_is_kept() -> None:
    def shown(judged: Judgement) -> Fraction | None:
        assert judged.computed is not None
        return judged.computed.low

    assert shown(_judge("rule", "9.24", "7")) == Fraction("9.24")
    assert shown(_judge("rule", "8", "9.2", convention=True)) == Fraction("9.2")
    assert shown(_judge("code", "8", "9.2", convention=True)) == 8
    assert _judge(None).computed is None


def test_a_claim_stands_or_falls_by_itself() -> None:
    for holds in (True, False):
        assert agrees("fits on one GPU", "", Outcome(Fraction(57), holds=holds)) is holds
    assert not agrees("9.2 GB", "GB", Outcome(None))


@pytest.mark.parametrize(
    ("documented", "unit", "says", "supported"),
    [
        ("40-60%", "%", "60-80%", False),
        ("40-60%", "%", "40-60%", True),
        ("40-60%", "%", "40%", False),
        ("9.2 GB", "GB", "9.24 GB", True),
        ("9.2 GB", "GB", "9.26 GB", False),
        ("10-20×", "×", "10-20x", True),
    ],
)
def test_a_source_is_compared_at_the_documents_precision(
    documented: str, unit: str, says: str, supported: bool
) -> None:
    assert supports(documented, unit, Evidence("https://example.org/", says)) is supported


@given(st.integers(0, 10**6), st.integers(0, 3), st.fractions(-2, 2, max_denominator=97))
def test_the_printed_precision_decides(digits: int, decimals: int, steps: Fraction) -> None:
    """A value prints the digits exactly when it lies within half a step of them."""
    value = Fraction(digits, 10**decimals)
    text = f"{digits // 10**decimals}" + (f".{digits % 10**decimals:0{decimals}d}" if decimals else "")
    off = value + steps / 10**decimals
    assert agrees(f"{text} GB", "GB", Outcome(off)) is (abs(steps) <= Fraction(1, 2))
