"""Gpu: what a device holds and how fast it is, each value with its source."""

from dataclasses import dataclass

from vlmmem.errors import InputError
from vlmmem.model import Source

__all__ = ["BASES", "Gpu", "Runtime"]

BASES = ("measured", "derived", "assumed", "documented")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    `memory_bytes` is what a program can have, in bytes, and `memory_basis` how it is known; `vendor_gb` is
    the number that the vendor prints with "GB", whatever base it means. `bandwidth` is the peak of its
    memory in bytes a second, `flops_16bit` the peak of its 16-bit matrix units in FLOP a second, dense (no
    sparsity).

    >>> from vlmmem import find_gpu
    >>> gpu = find_gpu("a100-80gb")
    >>> gpu.memory_bytes == 81_920 * 2**20, gpu.vendor_gb
    (True, 80)
    """

    id: str
    name: str
    aliases: tuple[str, ...]
    vendor: str
    memory_bytes: int
    memory_basis: str
    vendor_gb: int
    memory_type: str
    bus_width_bits: int | None
    bandwidth: int
    flops_16bit: int
    sources: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        for field in ("memory_bytes", "vendor_gb", "bandwidth", "flops_16bit"):
            value = getattr(self, field)
            if type(value) is not int or value <= 0:
                raise InputError(f"{self.id}: {field!r} is {value!r}; a positive integer is needed")
        if self.memory_basis not in BASES:
            raise InputError(f"{self.id}: 'memory_basis' is {self.memory_basis!r}; one of {', '.join(BASES)} is needed")


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a GPU holds for the driver, the libraries and their workspaces, by how many GPUs work together.

    `context_bytes` are gone before any weight is loaded, `workspace_bytes` come with the first passes.
    """

    id: str
    name: str
    aliases: tuple[str, ...]
    context_bytes: int
    workspace_bytes: int
    sources: tuple[Source, ...] = ()
