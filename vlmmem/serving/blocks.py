"""A pool of equal blocks with reference counts: sharing and copy-on-write, as a block manager does it."""

from collections.abc import Hashable

from vlmmem.errors import InputError
from vlmmem.memory.paging import BLOCK_TOKENS
from vlmmem.workload import check_positive

__all__ = ["BlockPool"]


class BlockPool:
    """Physical blocks, and each sequence's block table.

    The operations are the three of arXiv 2309.06180, section 5.2: fork, append, free.

    >>> pool = BlockPool(blocks=9, block=4)
    >>> pool.append("A1", 7)
    >>> pool.fork("A1", "A2")
    >>> pool.used, pool.append("A1", 1), pool.append("A2", 1), pool.used
    (2, None, None, 3)
    """

    def __init__(self, blocks: int, block: int = BLOCK_TOKENS) -> None:
        check_positive("blocks", blocks)
        check_positive("block", block)
        self.blocks, self.block = blocks, block
        self.tables: dict[Hashable, list[int]] = {}
        self.lengths: dict[Hashable, int] = {}
        self.owners = [0] * blocks
        self.copies = 0
        """Blocks copied because a sequence wrote into one that it shared."""
        self._free = list(range(blocks - 1, -1, -1))

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody owns."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Blocks with an owner, shared ones once."""
        return self.blocks - len(self._free)

    @property
    def stored_tokens(self) -> int:
        """Tokens that stand in the pool, shared ones once."""
        filled: dict[int, int] = {}
        for name, table in self.tables.items():
            for place, block in enumerate(table):
                here = min(self.block, self.lengths[name] - place * self.block)
                filled[block] = max(here, filled.get(block, 0))
        return sum(filled.values())

    def needed(self, name: Hashable, tokens: int) -> int:
        """Free blocks that `append` would take: new ones, and one for a copy of a shared last block."""
        table, length = self.tables.get(name, []), self.lengths.get(name, 0)
        new = -(-(length + tokens) // self.block) - len(table)
        shared = bool(tokens and length % self.block and self.owners[table[-1]] > 1)
        return new + shared

    def append(self, name: Hashable, tokens: int) -> None:
        """Write tokens behind a sequence, which begins here if it is new. Raises InputError where blocks are short."""
        if type(tokens) is not int or tokens < 0:
            raise InputError(f"tokens: {tokens!r} was given; 0 or a positive integer is needed")
        needed = self.needed(name, tokens)
        if needed > len(self._free):
            raise InputError(f"tokens: {needed} blocks are needed and {len(self._free)} are free")
        table, length = self.tables.setdefault(name, []), self.lengths.get(name, 0)
        if tokens and length % self.block and self.owners[table[-1]] > 1:
            self.owners[table[-1]] -= 1
            table[-1] = self._take()
            self.copies += 1
        while len(table) * self.block < length + tokens:
            table.append(self._take())
        self.lengths[name] = length + tokens

    def fork(self, name: Hashable, new: Hashable) -> None:
        """A second sequence with the same past: it shares every block. Raises InputError for unknown or taken names."""
        if name not in self.tables or new in self.tables:
            raise InputError(f"fork: from {name!r} to {new!r}; a sequence that is there and a new name are needed")
        self.tables[new], self.lengths[new] = list(self.tables[name]), self.lengths[name]
        for block in self.tables[new]:
            self.owners[block] += 1

    def free(self, name: Hashable) -> None:
        """A sequence has ended: blocks that nobody else owns are free again. Raises InputError for an unknown name."""
        if name not in self.tables:
            raise InputError(f"free: {name!r} holds no blocks")
        for block in self.tables.pop(name):
            self.owners[block] -= 1
            if not self.owners[block]:
                self._free.append(block)
        del self.lengths[name]

    def _take(self) -> int:
        block = self._free.pop()
        self.owners[block] = 1
        return block
