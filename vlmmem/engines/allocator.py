"""What PyTorch's caching allocator counts as allocated: more than what is asked for, because blocks are not split fine.

A request is rounded up to 512 B. Up to 1 MiB it comes out of segments of 2 MiB, below 10 MiB out of segments of 20
MiB, and from there on a segment is the request rounded up to 2 MiB. A free block that fits is taken first, the
smallest of them; what is left of it becomes a free block again only where it is 512 B or more (small requests) or more
than 1 MiB (large ones). Otherwise the whole block counts, and `max_memory_allocated` shows it: a matrix of 129.5 MiB
counts 130 MiB.

Source: PyTorch v2.3.1, c10/cuda/CUDACachingAllocator.cpp: kMinBlockSize, kSmallSize, kSmallBuffer, kLargeBuffer,
kMinLargeAlloc, kRoundLarge, get_free_block, should_split; the same in v2.10 and v2.13.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable

__all__ = ["ALLOCATOR_SOURCE", "CachingAllocator", "allocated_bytes"]

ALLOCATOR_SOURCE = "https://github.com/pytorch/pytorch/blob/v2.3.1/c10/cuda/CUDACachingAllocator.cpp"

_ROUNDED = 512
_SMALL = 2**20
_SMALL_SEGMENT = 2 * 2**20
_LARGE_SEGMENT = 20 * 2**20
_OWN_SEGMENT = 10 * 2**20
_SEGMENT_ROUNDED = 2 * 2**20


class CachingAllocator:
    """Requests that are kept: nothing is freed, as of weights and of a cache.

    >>> allocator = CachingAllocator()
    >>> allocator.take(int(129.5 * 2**20)) / 2**20, allocator.reserved / 2**20
    (130.0, 130.0)
    """

    def __init__(self) -> None:
        self.allocated = 0
        self.reserved = 0
        # free blocks of each pool: how many there are of a size, and the sizes in order
        self._counts: dict[bool, dict[int, int]] = {True: {}, False: {}}
        self._sizes: dict[bool, list[int]] = {True: [], False: []}

    def take(self, size: int) -> int:
        """Bytes that count for a request of `size` bytes; 0 for none."""
        if size <= 0:
            return 0
        wanted = -(-size // _ROUNDED) * _ROUNDED
        small = wanted <= _SMALL
        sizes, counts = self._sizes[small], self._counts[small]
        at = bisect_left(sizes, wanted)
        if at < len(sizes):
            block = sizes[at]
            counts[block] -= 1
            if not counts[block]:
                del counts[block]
                sizes.pop(at)
        else:
            block = self._segment(wanted, small=small)
            self.reserved += block
        left = block - wanted
        if left >= _ROUNDED if small else left > _SMALL:
            if left not in counts:
                insort(sizes, left)
            counts[left] = counts.get(left, 0) + 1
            block = wanted
        self.allocated += block
        return block

    @staticmethod
    def _segment(wanted: int, *, small: bool) -> int:
        if small:
            return _SMALL_SEGMENT
        if wanted < _OWN_SEGMENT:
            return _LARGE_SEGMENT
        return -(-wanted // _SEGMENT_ROUNDED) * _SEGMENT_ROUNDED


def allocated_bytes(sizes: Iterable[int]) -> int:
    """Bytes that count as allocated when tensors of these sizes are made one after another and kept.

    Args:
        sizes: bytes of each tensor, in order.

    >>> allocated_bytes([100, 600]), allocated_bytes([11 * 2**20, 2**20 // 2])
    (1536, 13107200)
    """
    allocator = CachingAllocator()
    for size in sizes:
        allocator.take(size)
    return allocator.allocated
