"""Lengths of prompts and answers: distributions with a stated mean and spread, drawn the same on every machine.

Python promises of its generator that `Random(seed).random()` keeps its sequence from version to version, and of no
other method that it does (documentation of `random`, "Notes on Reproducibility"). So only that one is called, and
the distributions are made from it here.
"""

from dataclasses import dataclass
from math import cos, exp, log, pi, sqrt
from random import Random
from typing import NamedTuple

from vlmmem.errors import InputError
from vlmmem.workload import check_positive

__all__ = ["LENGTHS", "Lengths", "Request", "draw_requests"]


class Request(NamedTuple):
    """Tokens of one request."""

    prompt: int
    answer: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long something is: a distribution by name, with its mean and its spread.

    Attributes:
        shape: "fixed", "uniform" (from 1 to twice the mean), "exponential" or "lognormal".
        mean: tokens, on average before rounding and limits.
        spread: standard deviation / mean, of the lognormal only; the others have their own.
    """

    shape: str
    mean: float
    spread: float = 1.0

    def draw(self, generator: Random, longest: int) -> int:
        """One length, from 1 to `longest` tokens.

        >>> Lengths("fixed", 100).draw(Random(0), 2048)
        100
        """
        if self.shape == "fixed":
            value = self.mean
        elif self.shape == "uniform":
            value = 1 + generator.random() * (2 * self.mean - 1)
        elif self.shape == "exponential":
            value = -self.mean * log(1 - generator.random())
        elif self.shape == "lognormal":
            variance = log(1 + self.spread**2)
            radius = sqrt(-2 * log(1 - generator.random()))
            normal = radius * cos(2 * pi * generator.random())
            value = exp(log(self.mean) - variance / 2 + sqrt(variance) * normal)
        else:
            raise InputError(f"shape: {self.shape!r} is not known; fixed, uniform, exponential or lognormal is needed")
        return max(1, min(longest, round(value)))


LENGTHS: dict[str, tuple[Lengths, Lengths]] = {
    # Means from figure 11 of arXiv 2309.06180. The paper prints no spread; that of the answers is the one with which
    # its figure 2 comes out (see `live_tokens`), the others are round guesses.
    "ShareGPT": (Lengths("lognormal", 161.31, 1.0), Lengths("lognormal", 337.99, 0.9)),
    "Alpaca": (Lengths("lognormal", 19.31, 0.5), Lengths("lognormal", 58.45, 1.0)),
    "fixed": (Lengths("fixed", 161.31), Lengths("fixed", 337.99)),
    "uniform to the limit": (Lengths("fixed", 161.31), Lengths("uniform", 943.0)),
    "long answers": (Lengths("fixed", 161.31), Lengths("fixed", 1886.0)),
}
"""Workloads by name: lengths of prompts and of answers."""


def draw_requests(workload: str, count: int, seed: int, longest: int = 2048) -> list[Request]:
    """Requests of a workload, prompt and answer drawn independently, together at most `longest` tokens.

    Raises InputError for a workload that is not in `LENGTHS`.

    >>> draw_requests("ShareGPT", 2, seed=1)[0]
    Request(prompt=147, answer=241)
    """
    if workload not in LENGTHS:
        raise InputError(f"workload: {workload!r} is not known; one of {', '.join(LENGTHS)} is needed")
    check_positive("count", count)
    if type(longest) is not int or longest < 2:
        raise InputError(f"longest: {longest!r} was given; an integer of at least 2 is needed")
    generator = Random(seed)
    drawn = []
    for _ in range(count):
        prompt = LENGTHS[workload][0].draw(generator, longest - 1)
        drawn.append(Request(prompt, LENGTHS[workload][1].draw(generator, longest - prompt)))
    return drawn
