"""Percentiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.driver.plan import Latency


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank: the smallest measured value that ``percent`` of all values do not exceed."""
    if not values:
        raise ValueError("no values, no percentile")
    return _ranked(sorted(values), percent)


def latency(values: Sequence[float], scale: float = 1000.0) -> Latency | None:
    """The summary of ``values``, in seconds unless ``scale`` says otherwise; None if there are none."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p95, p99 = (_ranked(ordered, percent) * scale for percent in (50, 95, 99))
    return Latency(count=len(ordered), p50=p50, p95=p95, p99=p99, max=ordered[-1] * scale)


def _ranked(ordered: Sequence[float], percent: float) -> float:
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
