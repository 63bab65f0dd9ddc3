"""Figures of recent attempts, over a bounded window."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import attrs

from .task import Attempt, CallbackResult


@attrs.frozen(kw_only=True)
class Latency:
    """Durations in seconds; ``None`` as long as nothing was measured."""

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


@attrs.frozen(kw_only=True)
class AttemptFigures:
    """Attempts since the start by outcome; latency and success rate of the recent ones."""

    total: int
    by_outcome: dict[str, int]
    latency: Latency
    success_rate: float | None


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which ``share`` of the sorted values lie (nearest rank)."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def outcome_name(result: CallbackResult) -> str:
    """``success``, or the class of error."""
    return "success" if result.error_class is None else result.error_class.value


class Tally:
    """Counts attempts; remembers the last ``window`` of them."""

    def __init__(self, window: int) -> None:
        self._recent: deque[tuple[float, bool]] = deque(maxlen=window)
        self._by_outcome: Counter[str] = Counter()

    def add(self, attempt: Attempt) -> None:
        """One more attempt."""
        name = outcome_name(attempt.result)
        self._by_outcome[name] += 1
        self._recent.append((attempt.duration_s, name == "success"))

    def figures(self) -> AttemptFigures:
        """The figures now."""
        ordered = sorted(duration for duration, _ in self._recent)
        good = sum(success for _, success in self._recent)
        return AttemptFigures(
            total=self._by_outcome.total(),
            by_outcome=dict(self._by_outcome),
            latency=Latency(
                p50_s=percentile(ordered, 0.5),
                p95_s=percentile(ordered, 0.95),
                p99_s=percentile(ordered, 0.99),
            ),
            success_rate=good / len(ordered) if ordered else None,
        )
