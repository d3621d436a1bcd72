"""A full server, simulated: how much of the KV cache holds tokens, and how much is reserved, rounded up or left over.

Requests wait without end and start first come, first served, as soon as their reservation finds room. Every step
each running request writes one token; who has written all leaves. Nothing is random but the lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from vlmmem.errors import InputError
from vlmmem.memory.paging import BLOCK_TOKENS, blocks_needed, power_of_two, reserved_slots
from vlmmem.serving.lengths import Request
from vlmmem.workload import check_positive

__all__ = ["MEASURED", "POLICIES", "Measured", "Occupancy", "kv_occupancy", "live_tokens"]

POLICIES = ("max", "pow2", "oracle", "paged")
"""How memory is reserved: one contiguous chunk by one of three rules, or blocks as the tokens come."""


class Measured(NamedTuple):
    """Shares of the KV cache, and requests in the batch, as a paper prints them; None where it prints none."""

    tokens: Fraction
    reserved: Fraction | None
    internal: Fraction | None
    external: Fraction | None
    batch: Fraction


def _measured(*printed: str) -> Measured:
    *shares, batch = (Fraction(value) if value else None for value in printed)
    tokens, reserved, internal, external = (None if share is None else share / 100 for share in shares)
    assert tokens is not None
    assert batch is not None
    return Measured(tokens, reserved, internal, external, batch)


MEASURED = {
    "max": _measured("20.4", "13.3", "57.3", "8.9", "7.00"),
    "pow2": _measured("26.8", "17.9", "13.6", "41.6", "9.81"),
    "oracle": _measured("38.2", "25.2", "0", "36.6", "13.62"),
    "paged": _measured("96.3", "", "", "", "30.42"),
}
"""Figure 2 (shares of the KV cache) and 13a (requests) of arXiv 2309.06180: OPT-13B on an A100 40GB, ShareGPT."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Averages over the steps, in token slots; the five parts add up to the pool.

    Attributes:
        policy: one of `POLICIES`.
        pool: slots of the KV cache.
        tokens: slots that hold a token.
        reserved: slots that a running request will fill later, and nobody else may use now.
        internal: slots that were reserved and will never be filled; with blocks, the room in last blocks.
        rounding: slots by which an allocator of powers of two (buddies) made chunks larger than asked for.
        unallocated: slots in no chunk: too small, or too scattered, for the request that waits.
        batch: running requests.
        preemptions: times that a running request had to give its blocks back, and to wait for others.
    """

    policy: str
    pool: int
    tokens: Fraction
    reserved: Fraction
    internal: Fraction
    rounding: Fraction
    unallocated: Fraction
    batch: Fraction
    preemptions: int

    @property
    def waste(self) -> Fraction:
        """The share of the pool that holds no token."""
        return 1 - self.tokens / self.pool

    @property
    def external(self) -> Fraction:
        """What arXiv 2309.06180 calls external fragmentation and others: rounding and unallocated."""
        return self.rounding + self.unallocated

    @property
    def waste_of_allocated(self) -> Fraction:
        """The share of the allocated slots that holds no token."""
        return 1 - self.tokens / (self.pool - self.unallocated)


class _Contiguous:
    """First fit over free extents; chunks as asked, or aligned powers of two as a buddy allocator gives them."""

    def __init__(self, pool: int, buddies: bool) -> None:
        self.buddies = buddies
        self.free: list[tuple[int, int]] = [(0, pool)]

    def take(self, asked: int) -> tuple[int, int] | None:
        """Place and size of a chunk, or None where no extent is long enough."""
        size = power_of_two(asked) if self.buddies else asked
        for index, (start, length) in enumerate(self.free):
            at = -(-start // size) * size if self.buddies else start
            if at + size <= start + length:
                rest = [(start, at - start), (at + size, start + length - at - size)]
                self.free[index : index + 1] = [extent for extent in rest if extent[1]]
                return at, size
        return None

    def give(self, at: int, size: int) -> None:
        """A chunk comes back, and joins its free neighbours."""
        self.free.append((at, size))
        self.free.sort()
        joined: list[tuple[int, int]] = []
        for start, length in self.free:
            if joined and sum(joined[-1]) == start:
                joined[-1] = (joined[-1][0], joined[-1][1] + length)
            else:
                joined.append((start, length))
        self.free = joined


def live_tokens(prompt: float, answer: float, spread: float) -> float:
    """Tokens that a running request holds on average: its prompt, and half of an answer weighted by its own length.

    A long answer runs longer, so that at a random moment answers average mean x (1 + spread^2); half of it is written.

    Args:
        prompt: mean tokens of a prompt.
        answer: mean tokens of an answer.
        spread: standard deviation / mean of the answers.

    >>> live_tokens(100, 200, 0), live_tokens(100, 200, 1)
    (200.0, 300.0)
    """
    return prompt + answer * (1 + spread**2) / 2


def kv_occupancy(
    policy: str,
    waiting: Sequence[Request],
    pool: int,
    steps: int,
    longest: int = 2048,
    block: int = BLOCK_TOKENS,
    buddies: bool = True,
    warm_up: int = 0,
) -> Occupancy:
    """Run a full server and average what its KV cache holds.

    Args:
        policy: "max", "pow2" or "oracle" reserve one contiguous chunk (see `reserved_slots`); "paged" takes a block
            when the last one is full, and when none is left the youngest request gives its blocks back and waits; its
            tokens are then recomputed in one step (section 4.5 of the paper).
        waiting: requests in order; after the last the first comes again.
        pool: slots of the KV cache.
        steps: decoding steps that are averaged.
        longest: longest sequence that the server allows, which "max" reserves.
        block: tokens of one block, of "paged".
        buddies: whether contiguous chunks are powers of two, as in the paper's Orca; otherwise first fit as asked.
        warm_up: steps before the average begins.

    Raises:
        InputError: an unknown policy, an argument out of range, or a request that the empty pool cannot hold.

    >>> half = kv_occupancy("max", [Request(1, 1023)], pool=4096, steps=1023)
    >>> half.batch, float(half.tokens / half.pool)
    (Fraction(2, 1), 0.25048828125)
    """
    if policy not in POLICIES:
        raise InputError(f"policy: {policy!r} is not known; one of {', '.join(POLICIES)} is needed")
    for field, value in (("pool", pool), ("steps", steps), ("block", block)):
        check_positive(field, value)
    if type(warm_up) is not int or warm_up < 0:
        raise InputError(f"warm_up: {warm_up!r} was given; 0 or a positive integer is needed")
    if not waiting:
        raise InputError("waiting: no request was given; at least one is needed")
    server = _Paged(waiting, pool, block) if policy == "paged" else _Chunked(policy, waiting, pool, longest, buddies)
    sums, done = [0] * 5, -warm_up
    while done < steps:
        # No jump crosses the end of the warm-up, so that what is summed is whole.
        taken, held = server.advance(-done if done < 0 else steps - done)
        done += taken
        if done <= 0:
            server.preemptions = 0
        else:
            sums = [total + part for total, part in zip(sums, held, strict=True)]
    tokens, reserved, internal, rounding, batch = (Fraction(total, steps) for total in sums)
    unallocated = pool - tokens - reserved - internal - rounding
    return Occupancy(policy, pool, tokens, reserved, internal, rounding, unallocated, batch, server.preemptions)


_Held = tuple[int, int, int, int, int]
"""Sums over steps: tokens, reserved, internal, rounding, running requests."""


@dataclass(slots=True)
class _Running:
    prompt: int
    answer: int
    asked: int
    chunk: int
    at: int = 0
    written: int = 0


class _Chunked:
    """One contiguous chunk a request, from its first step to its last."""

    def __init__(self, policy: str, waiting: Sequence[Request], pool: int, longest: int, buddies: bool) -> None:
        self.policy, self.waiting, self.longest = policy, waiting, longest
        self.memory = _Contiguous(pool, buddies)
        self.running: list[_Running] = []
        self.arrived = 0
        self.preemptions = 0

    def advance(self, most: int) -> tuple[int, _Held]:
        """Who is done leaves, who fits comes in, all write until somebody is done: steps taken, and their sums."""
        for one in self.running:
            if one.written == one.answer:
                self.memory.give(one.at, one.chunk)
        self.running = [one for one in self.running if one.written < one.answer]
        while self._admit():
            pass
        taken = min(most, *(one.answer - one.written for one in self.running))
        batch, asked = len(self.running), sum(one.asked for one in self.running)
        before = sum(one.prompt + one.written for one in self.running)
        final = sum(one.prompt + one.answer for one in self.running)
        chunks = sum(one.chunk for one in self.running)
        for one in self.running:
            one.written += taken
        tokens = taken * before + batch * taken * (taken + 1) // 2
        return taken, (tokens, taken * final - tokens, taken * (asked - final), taken * (chunks - asked), taken * batch)

    def _admit(self) -> bool:
        request = self.waiting[self.arrived % len(self.waiting)]
        asked = reserved_slots(self.policy, *request, self.longest)
        chunk = self.memory.take(asked)
        if chunk is None:
            if not self.running:
                raise InputError(f"pool: empty, and no room for a chunk of {asked} slots")
            return False
        self.running.append(_Running(*request, asked, chunk[1], chunk[0]))
        self.arrived += 1
        return True


class _Paged:
    """Blocks as the tokens come. Of blocks only the number matters: each is as good as any other."""

    def __init__(self, waiting: Sequence[Request], pool: int, block: int) -> None:
        self.waiting, self.block = waiting, block
        self.blocks = self.free = pool // block
        self.running: list[_Running] = []
        self.returned: list[_Running] = []
        self.arrived = 0
        self.preemptions = 0

    def advance(self, most: int) -> tuple[int, _Held]:
        """Who is done leaves, who needs a block takes one, who fits comes in, everybody writes a token: one step."""
        for one in self.running:
            if one.written == one.answer:
                self.free += one.chunk
        self.running = [one for one in self.running if one.written < one.answer]
        self._grow()
        while self._admit():
            pass
        for one in self.running:
            one.written += 1
        tokens = sum(one.prompt + one.written for one in self.running)
        allocated = sum(one.chunk for one in self.running) * self.block
        return min(most, 1), (tokens, 0, allocated - tokens, 0, len(self.running))

    def _grow(self) -> None:
        place = 0
        while place < len(self.running):
            one = self.running[place]
            if one.prompt + one.written < one.chunk * self.block:
                place += 1
            elif self.free:
                self.free -= 1
                one.chunk += 1
            else:
                youngest = self.running.pop()
                self.free += youngest.chunk
                self.returned.append(youngest)
                self.preemptions += 1

    def _admit(self) -> bool:
        one = self.returned[-1] if self.returned else _Running(*self.waiting[self.arrived % len(self.waiting)], 0, 0)
        if blocks_needed(one.prompt + one.answer, self.block) > self.blocks:
            raise InputError(f"pool: {self.blocks} blocks, too few for a request of {one.prompt + one.answer} tokens")
        one.chunk = blocks_needed(one.prompt + one.written + 1, self.block)
        if one.chunk > self.free:
            return False
        self.free -= one.chunk
        self.running.append(one)
        if self.returned:
            self.returned.pop()
        else:
            self.arrived += 1
        return True
