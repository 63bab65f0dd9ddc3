"""How fast does something grow? Least squares, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist, fmean, linear_regression
from typing import Final

import attrs

BLOCKS: Final = 20
_PER_BLOCK: Final = 3  # samples at least, where there are enough
_FEWEST: Final = 4  # blocks, without which nothing is said
CONFIDENCE: Final = 0.95


@attrs.frozen
class Slope:
    """Per hour; the truth is between ``low`` and ``high`` with a probability of 95 %."""

    an_hour: float
    low: float
    high: float


def slope(samples: Sequence[tuple[float, float]]) -> Slope | None:
    """Of (seconds, value); None if there are too few.

    Neighbouring samples say much the same: memory goes up in steps and stays there. Treated as
    independent they would promise far more certainty than there is, so the line is drawn through
    the means of blocks that are long enough to forget each other.
    """
    blocks = _blocks(samples)
    if len(blocks) < _FEWEST:
        return None
    hours = [at / 3600 for at, _ in blocks]
    values = [value for _, value in blocks]
    fitted = linear_regression(hours, values)
    middle, freedom = fmean(hours), len(blocks) - 2
    pairs = zip(hours, values, strict=True)
    left = sum((y - fitted.intercept - fitted.slope * x) ** 2 for x, y in pairs)
    error = math.sqrt(left / freedom / sum((x - middle) ** 2 for x in hours))
    margin = student(freedom) * error
    return Slope(fitted.slope, fitted.slope - margin, fitted.slope + margin)


def _blocks(samples: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    count = min(BLOCKS, len(samples) // _PER_BLOCK)
    cuts = [number * len(samples) // count for number in range(count + 1)] if count else []
    parts = [samples[first:last] for first, last in pairwise(cuts)]
    return [(fmean(at for at, _ in part), fmean(value for _, value in part)) for part in parts]


def student(freedom: int) -> float:
    """The two-sided quantile of Student's t, by its expansion around the normal distribution;
    from 2 degrees of freedom on within 4 % (Abramowitz and Stegun, 26.7.5)."""
    z, n = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
