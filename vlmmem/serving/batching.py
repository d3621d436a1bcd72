"""Slots of a batch, step by step: static batching against continuous batching.

A step advances every sequence in the batch by one token. Static batching starts a batch together and waits for its
longest answer; continuous batching (iteration-level scheduling, in-flight batching) gives a slot to the next request
as soon as it is free. Sources: Yu et al., Orca, OSDI 2022, section 3; arXiv 2309.06180, section 2.3.
"""

import heapq
from dataclasses import dataclass
from fractions import Fraction

from vlmmem.errors import InputError
from vlmmem.workload import check_positive

MOST_SLOTS = 10_000
"""Slots up to which the harmonic number is summed; its exact digits grow with them."""

__all__ = ["Batching", "continuous_batching", "exponential_factor", "static_batching"]


@dataclass(frozen=True, slots=True)
class Batching:
    """What a schedule makes of its slots.

    Attributes:
        slots: sequences that fit into a batch.
        steps: decoding steps until the last answer is complete.
        tokens: tokens generated, one a sequence and step.
        started, finished: for each request, the first step in which it has a slot and its last one, counted from 1.
    """

    slots: int
    steps: int
    tokens: int
    started: tuple[int, ...]
    finished: tuple[int, ...]

    @property
    def slot_steps(self) -> int:
        """Slots times steps: what the batch could have generated."""
        return self.slots * self.steps

    @property
    def idle(self) -> int:
        """Slot-steps in which nothing was generated."""
        return self.slot_steps - self.tokens

    @property
    def utilisation(self) -> Fraction:
        """The share of the slot-steps that generated a token."""
        return Fraction(self.tokens, self.slot_steps)

    @property
    def busy(self) -> tuple[int, ...]:
        """Sequences that advance in each step."""
        change = [0] * (self.steps + 1)
        for first, last in zip(self.started, self.finished, strict=True):
            change[first - 1] += 1
            change[last] -= 1
        total, busy = 0, []
        for difference in change[:-1]:
            total += difference
            busy.append(total)
        return tuple(busy)


def _check(slots: int, answers: tuple[int, ...]) -> None:
    check_positive("slots", slots)
    if not answers:
        raise InputError("answers: none was given; at least one length is needed")
    for length in answers:
        check_positive("answers", length)


def static_batching(slots: int, *answers: int) -> Batching:
    """Batches of `slots` requests in order; each batch ends with its longest answer.

    Args:
        slots: sequences in a batch.
        answers: tokens that each request generates.

    The drawing in `inference`, lines 274 to 278, is this:

    >>> drawn = static_batching(3, 12, 4, 8)
    >>> drawn.steps, drawn.tokens, drawn.slot_steps, drawn.utilisation
    (12, 24, 36, Fraction(2, 3))
    """
    _check(slots, answers)
    now, started, finished = 0, [], []
    for first in range(0, len(answers), slots):
        batch = answers[first : first + slots]
        started += [now + 1] * len(batch)
        finished += [now + length for length in batch]
        now += max(batch)
    return Batching(slots, now, sum(answers), tuple(started), tuple(finished))


def continuous_batching(slots: int, *answers: int) -> Batching:
    """Requests in order, each in the slot that is free first; all wait from the beginning.

    Args:
        slots: sequences that may run at once.
        answers: tokens that each request generates.

    >>> drawn = continuous_batching(3, 12, 4, 8, 8, 4)
    >>> drawn.finished, drawn.steps, drawn.utilisation
    ((12, 4, 8, 12, 12), 12, Fraction(1, 1))
    """
    _check(slots, answers)
    free = [0] * min(slots, len(answers))  # more are never used
    started, finished = [], []
    for length in answers:
        now = heapq.heappop(free)
        started.append(now + 1)
        finished.append(now + length)
        heapq.heappush(free, now + length)
    return Batching(slots, max(finished), sum(answers), tuple(started), tuple(finished))


def exponential_factor(slots: int) -> Fraction:
    """Continuous over static throughput, answers exponentially long and steps of equal time: 1 + 1/2 + ... + 1/slots.

    That is the mean of the longest of `slots` exponential lengths, over the mean of one.

    >>> exponential_factor(4)
    Fraction(25, 12)

    Raises InputError unless `slots` is a positive integer up to 10,000.
    """
    check_positive("slots", slots)
    if slots > MOST_SLOTS:
        raise InputError(f"slots: {slots} was given; at most {MOST_SLOTS:,} are summed exactly")
    return sum((Fraction(1, place) for place in range(1, slots + 1)), Fraction(0))
