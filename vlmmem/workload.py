"""Workload and Parallelism: what is asked of a model, and over how many GPUs it is split."""

from vlmmem.errors import InputError
from vlmmem.record import record

__all__ = ["Parallelism", "Workload", "check_positive"]


def check_positive(field: str, value: object) -> None:
    """Raise InputError unless `value` is an integer above zero; True and 2.0 are not."""
    if type(value) is not int or value <= 0:
        raise InputError(f"{field}: {value!r} was given; a positive integer is needed")


@record(frozen=True, slots=True)
class Workload:
    """`batch` sequences at once, each of `context` tokens, prompt and answer together.

    Each sequence shows `images` images of `image_size` (width, height) pixels; their tokens count in the context.

    >>> Workload(context=8192, batch=10).tokens
    81920
    """

    context: int
    batch: int = 1
    images: int = 0
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_positive("context", self.context)
        check_positive("batch", self.batch)
        if type(self.images) is not int or self.images < 0:
            raise InputError(f"images: {self.images!r} was given; an integer of 0 or more is needed")
        if self.image_size is not None:
            width, height = self.image_size
            check_positive("image_size", width)
            check_positive("image_size", height)
        elif self.images:
            raise InputError(f"images: {self.images} are given without image_size; (width, height) in pixels is needed")

    @property
    def tokens(self) -> int:
        """Tokens of all sequences together."""
        return self.context * self.batch


@record(frozen=True, slots=True)
class Parallelism:
    """`tp` GPUs split each layer (tensor parallelism), `pp` groups of those split the layers (pipeline).

    >>> Parallelism(tp=4, pp=2).gpus
    8
    """

    tp: int = 1
    pp: int = 1

    def __post_init__(self) -> None:
        check_positive("tp", self.tp)
        check_positive("pp", self.pp)

    @property
    def gpus(self) -> int:
        """GPUs that hold the model once."""
        return self.tp * self.pp
