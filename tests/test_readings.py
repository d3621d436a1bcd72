"""One case under every reading: the ledger's own cells come out of it, and bad cases are told."""

from fractions import Fraction

import pytest

from vlmmem.errors import InputError
from vlmmem.ledger import load, readings
from vlmmem.ledger.conventions import conventions


def test_every_cell_is_printed_by_its_own_convention() -> None:
    cells = [item for item in load().figures if item.convention_id and item.formula_id]
    assert len({item.convention_id for item in cells}) > 3
    for cell in cells:
        assert cell.formula_id
        assert cell.convention_id
        assert cell.printed.matches(readings(cell.formula_id, **cell.arguments)[cell.convention_id])


def test_the_literal_reading_comes_first_and_every_convention_follows() -> None:
    found = readings("kv-per-token", model="llama-2-13b")
    assert list(found) == ["literal", *conventions()]
    assert (found["literal"], found["kb-is-kib"]) == (Fraction("819.2"), Fraction(800))


@pytest.mark.parametrize(
    ("formula", "case", "line"),
    [
        ("totals", {}, "formula 'totals' is not known; one of weights, "),
        ("total", {"model": "llama-2-13b"}, "formula total: argument 'format' is missing"),
        ("kv-cache", {"model": "llama-9", "context": 1}, "model 'llama-9' is not in the catalogue; "),
        ("sum", {"terms": ["footprint:none"]}, "figure 'footprint:none' is not in the ledger; nearest: "),
    ],
)
def test_a_case_that_cannot_be_read_is_told(formula: str, case: dict[str, object], line: str) -> None:
    with pytest.raises(InputError) as told:
        readings(formula, **case)
    assert str(told.value).startswith(line)
