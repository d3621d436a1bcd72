"""Gpu: what a device holds and how fast it is, each value with its source."""

from vlmmem.errors import InputError
from vlmmem.model import Source
from vlmmem.record import record

__all__ = ["BASES", "Gpu", "Link", "Runtime"]

BASES = ("measured", "derived", "assumed", "documented")


@record(frozen=True, slots=True)
class Gpu:
    """One GPU.

    `memory_bytes` is what a program can have, in bytes, and `memory_basis` how it is known; `vendor_gb` is
    the number that the vendor prints with "GB", whatever base it means. `bandwidth` is the peak of its
    memory in bytes a second, `flops_16bit` the peak of its 16-bit matrix units in FLOP a second, dense (no
    sparsity). `l2_bytes` is its L2 cache, `multiprocessors` the processors that share it (AMD: compute units,
    and one L2 slice for every 38 of them), `sram_bytes` the L1 cache and shared memory of one of those. The
    latencies, in picoseconds, are what one load after another took in public measurements, None where there are none.
    `cuda_memory_bytes` is what CUDA says is there in all: engines count from it. It is less than the driver's figure,
    by a little more or less with the driver, and None where no log was found.

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
    l2_bytes: int
    multiprocessors: int
    sram_bytes: int
    sram_latency_ps: int | None = None
    l2_latency_ps: int | None = None
    memory_latency_ps: int | None = None
    cuda_memory_bytes: int | None = None
    sources: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        for field in (
            "memory_bytes",
            "vendor_gb",
            "bandwidth",
            "flops_16bit",
            "l2_bytes",
            "multiprocessors",
            "sram_bytes",
        ):
            value = getattr(self, field)
            if type(value) is not int or value <= 0:
                raise InputError(f"{self.id}: {field!r} is {value!r}; a positive integer is needed")
        seen = self.cuda_memory_bytes
        if seen is not None and not 0 < seen <= self.memory_bytes:
            raise InputError(
                f"{self.id}: 'cuda_memory_bytes' is {seen!r}; "
                f"no more than 'memory_bytes', {self.memory_bytes}, is needed"
            )
        if self.memory_basis not in BASES:
            raise InputError(f"{self.id}: 'memory_basis' is {self.memory_basis!r}; one of {', '.join(BASES)} is needed")


@record(frozen=True, slots=True)
class Link:
    """What joins two GPUs: `bandwidth` is its peak in bytes a second, in one direction.

    >>> from vlmmem import find_link
    >>> find_link("nvlink-4").bandwidth
    450000000000
    """

    id: str
    name: str
    aliases: tuple[str, ...]
    bandwidth: int
    sources: tuple[Source, ...] = ()


@record(frozen=True, slots=True)
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
