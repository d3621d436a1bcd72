"""The runtime's allowance, as it was measured, by how many GPUs work together."""

import pytest

from vlmmem.errors import InputError
from vlmmem.memory import runtime_allowance, runtime_bytes


@pytest.mark.parametrize(
    ("tp", "pp", "name"),
    [(1, 1, "one-gpu"), (1, 2, "pipeline"), (1, 4, "pipeline"), (2, 1, "tensor"), (8, 2, "tensor")],
)
def test_which_allowance(tp: int, pp: int, name: str) -> None:
    assert runtime_allowance(tp, pp).id == name


def test_gibibytes_as_measured() -> None:
    # vLLM 0.19 on H100, GiB of context and workspaces.
    assert runtime_bytes() == round(0.51 * 2**30) + round(0.25 * 2**30)
    assert runtime_bytes(pp=4) == round(1.48 * 2**30) + round(0.07 * 2**30)
    assert runtime_bytes(tp=2) == round(1.53 * 2**30) + round(2.07 * 2**30)
    assert runtime_allowance().id == "one-gpu"


@pytest.mark.parametrize(("tp", "pp", "field"), [(0, 1, "tp"), (1, 0, "pp"), (1, True, "pp"), (1.0, 1, "tp")])
def test_counts_are_positive_integers(tp: int, pp: int, field: str) -> None:
    with pytest.raises(InputError, match=f"^{field}: .* was given; a positive integer is needed$"):
        runtime_bytes(tp, pp)
