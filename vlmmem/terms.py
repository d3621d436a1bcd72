"""Term: one part of the memory of one GPU, with the arithmetic that gives it."""

from vlmmem.record import record

__all__ = ["Term"]


@record(frozen=True, slots=True)
class Term:
    """One term of the memory of one GPU.

    `name` is weights, kv_cache, activations, vision or runtime; parts of a term follow a colon
    (weights:vision). `formula` is the arithmetic with its numbers. `basis` is measured, derived, assumed or
    documented.
    """

    name: str
    bytes: int
    formula: str
    basis: str
    source: str

    @property
    def kind(self) -> str:
        """The name without the part: weights of weights:vision."""
        return self.name.partition(":")[0]
