"""What a column of errors says: mean, median, bias, worst, quantiles. Standard library only."""

from collections.abc import Sequence
from math import ceil

__all__ = ["bias", "conformal", "mean_absolute", "median_absolute"]


def mean_absolute(errors: Sequence[float]) -> float:
    """The mean of the errors without their signs.

    >>> mean_absolute([0.1, -0.3])
    0.2
    """
    return sum(map(abs, errors)) / len(errors)


def median_absolute(errors: Sequence[float]) -> float:
    """The median of the errors without their signs.

    >>> median_absolute([0.1, -0.3, 0.2])
    0.2
    """
    sizes = sorted(map(abs, errors))
    middle = len(sizes) // 2
    return sizes[middle] if len(sizes) % 2 else (sizes[middle - 1] + sizes[middle]) / 2


def bias(errors: Sequence[float]) -> float:
    """The mean of the errors with their signs: above zero where predictions are too large.

    >>> bias([0.5, -0.25])
    0.125
    """
    return sum(errors) / len(errors)


def conformal(residuals: Sequence[float], level: float) -> float | None:
    """The half-width that split conformal prediction takes from residuals: their ceil((n + 1) level)-th smallest size.

    A new record of the same kind lies within it with at least that probability. None where there are too few
    residuals for the level: below nine for 90 %.

    Source: Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, Distribution-free predictive inference for regression,
    https://arxiv.org/abs/1604.04173, section 2.2.

    >>> conformal([0.01, -0.02, 0.03], 0.5), conformal([0.01, -0.02, 0.03], 0.9)
    (0.02, None)
    """
    rank = ceil((len(residuals) + 1) * level - 1e-9)
    return sorted(map(abs, residuals))[rank - 1] if rank <= len(residuals) else None
