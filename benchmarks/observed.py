"""The figures of what the driver saw."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.drive import driver_us
from benchmarks.driver.plan import Latency, Result
from benchmarks.report import Figure, enough
from benchmarks.work import COUNTS, OTHERS


def latency_row(
    question: str, what: str, found: Latency | None, *, p95_limit_ms: float | None = None
) -> list[Figure]:
    """p50, p95 and p99 in one row, each only if enough was measured."""
    if found is None:
        return []
    note = f"{found.count:,} measured, max {found.max:,.0f} ms"
    values, limits = {50: found.p50, 95: found.p95, 99: found.p99}, {95: p95_limit_ms}
    return [
        Figure(question, what, value, "ms", limits.get(percent), note=note, stat=f"p{percent}")
        for percent, value in values.items()
        if enough(found.count, percent)
    ]


def checks(question: str, results: Iterable[Result]) -> list[Figure]:
    """What must be none stands beside every throughput, also when it is none."""
    found = list(results)
    accepted = sum(result.accepted for result in found)
    asked = sum(sum(result.states.values()) for result in found)
    return [
        Figure(question, "lost", sum_of(found, "lost"), limit=0, note=f"{accepted:,} accepted"),
        Figure(question, "duplicates", sum_of(found, "duplicates"), limit=0),
        Figure(
            question, "refused, unanswered, never created, not Completed, or stalled",
            sum(sum_of(found, name) for name in OTHERS),
            limit=0, note=", ".join([f"{asked:,} asked for at the end", *reasons(found)]),
        ),
    ]  # fmt: skip


def sum_of(results: Iterable[Result], name: str) -> int:
    """How often something of ``COUNTS`` happened in all of them."""
    return sum(COUNTS[name](result) for result in results)


def reasons(results: Iterable[Result]) -> list[str]:
    """What came instead of a 201, and why runs were given up."""
    told = ([*result.refused, *filter(None, [result.stalled])] for result in results)
    return sorted({reason for each in told for reason in each})


def costs(question: str, what: str, result: Result) -> list[Figure]:
    """What the server used, and what the driver did beside it."""
    used, figures = result.usage, list[Figure]()
    if used and result.accepted:
        each = used.cpu_s * 1e6 / result.accepted
        note = f"driver: {driver_us(result):.0f} us"
        figures.append(Figure(question, f"{what}server CPU a task", each, "us", note=note))
        figures.append(Figure(question, f"{what}server memory, peak", used.peak_rss_mib, "MiB"))
    return figures
