"""Prometheus metrics. A scrape reads counters only; it never searches a table."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from engine import Attempt, Engine, Stats
from engine.core.breaker import BreakerState
from engine.core.destinations import AllFigures

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """The metrics of one engine. ``observe`` is told of every attempt that became durable."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "ringback_attempt_seconds",
            "How long attempts took.",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._stats: Stats | None = None
        self._registry.register(self)

    def observe(self, attempt: Attempt) -> None:
        """Count an attempt."""
        self._seconds.observe(attempt.duration_s)

    async def render(self, engine: Engine) -> str:
        """The text of a scrape."""
        self._stats = await engine.stats()
        return generate_latest(self._registry).decode()

    def collect(self) -> Iterable[Metric]:
        """Called by the registry: everything that the engine counts itself."""
        stats = self._stats
        if stats is None:
            return
        tasks = GaugeMetricFamily("ringback_tasks", "Tasks by status.", labels=["status"])
        for status, count in stats.counts.items():
            tasks.add_metric([status], count)
        yield tasks
        attempts = CounterMetricFamily(
            "ringback_attempts", "Attempts by outcome.", labels=["outcome"]
        )
        for outcome, count in stats.attempts.by_outcome.items():
            attempts.add_metric([outcome], count)
        yield attempts
        yield from _destinations(stats.destinations)
        for name, text, value in (
            ("queue_depth", "Tasks that are Queued.", stats.queue_depth),
            (
                "oldest_waiting_seconds",
                "Age of the oldest Queued task.",
                stats.oldest_waiting_s or 0,
            ),
            ("executors", "Executors there are.", stats.executors),
            ("executors_busy", "Executors that run an attempt.", stats.executors_busy),
            ("stream_watchers", "Open watchers of the status stream.", stats.watchers),
            ("newest_event", "Sequence number of the newest event.", stats.newest_event),
        ):
            yield GaugeMetricFamily(f"ringback_{name}", text, value)
        for name, text, value in (
            ("late_results", "Results that came after the task had moved on.", stats.late_results),
            ("commits", "Transactions committed.", stats.commits),
        ):
            yield CounterMetricFamily(f"ringback_{name}", text, value)


def _destinations(all_of_them: AllFigures) -> Iterable[Metric]:
    """Numbers of all; labels only for the worst that are not well, as each label lives for ever."""
    breakers = GaugeMetricFamily(
        "ringback_breakers", "Circuit breakers that are not closed.", labels=["state"]
    )
    breakers.add_metric([BreakerState.OPEN], all_of_them.open)
    breakers.add_metric([BreakerState.HALF_OPEN], all_of_them.half_open)
    yield breakers
    held = "Destinations that are held to a number of attempts at once."
    yield GaugeMetricFamily("ringback_destinations_held", held, all_of_them.held)
    openings = "How often circuit breakers opened."
    yield CounterMetricFamily("ringback_breaker_openings", openings, all_of_them.openings)
    unwell = GaugeMetricFamily(
        "ringback_destination_unwell",
        "Attempts in flight to destinations that are held or whose breaker is not closed.",
        labels=["destination", "breaker"],
    )
    for one in all_of_them.worst:
        if one.limit is not None:
            unwell.add_metric([one.destination, one.breaker], one.in_flight)
    yield unwell
