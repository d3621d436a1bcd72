"""Workload and Parallelism: what is asked of a model, and over how many GPUs it is split."""

from dataclasses import dataclass

from vlmmem.errors import InputError

__all__ = ["Parallelism", "Workload"]


@dataclass(frozen=True, slots=True)
class Workload:
    """`batch` sequences at once, each of `context` tokens, prompt and answer together.

    >>> Workload(context=8192, batch=10).tokens
    81920
    """

    context: int
    batch: int = 1

    def __post_init__(self) -> None:
        _positive("context", self.context)
        _positive("batch", self.batch)

    @property
    def tokens(self) -> int:
        """Tokens of all sequences together."""
        return self.context * self.batch


@dataclass(frozen=True, slots=True)
class Parallelism:
    """`tp` GPUs split each layer (tensor parallelism), `pp` groups of them split the layers (pipeline parallelism).

    >>> Parallelism(tp=4, pp=2).gpus
    8
    """

    tp: int = 1
    pp: int = 1

    def __post_init__(self) -> None:
        _positive("tp", self.tp)
        _positive("pp", self.pp)

    @property
    def gpus(self) -> int:
        """GPUs that hold the model once."""
        return self.tp * self.pp


def _positive(field: str, value: object) -> None:
    if type(value) is not int or value <= 0:
        raise InputError(f"{field}: {value!r} was given; a positive integer is needed")
