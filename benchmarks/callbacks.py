"""Are 100 executors kept busy by callbacks that take a while? As % of what is possible at all."""

from __future__ import annotations

from typing import Final

from benchmarks.driver.plan import Result
from benchmarks.observed import checks
from benchmarks.report import Figure
from benchmarks.tasks import Settings
from benchmarks.throughput import whole_way
from benchmarks.work import EXECUTORS, Workload, callbacks

QUESTION: Final = "callbacks"
GOALS: Final = {10: None, 50: 95.0, 200: 98.0, 1000: None}  # milliseconds -> % of the ceiling


async def measure(settings: Settings) -> list[Figure]:
    """One duration after the other, each on a fresh server."""
    figures: list[Figure] = []
    results: list[Result] = []
    for milliseconds, goal in GOALS.items():
        work = callbacks(milliseconds, 3.0 if settings.quick else 8.0)
        result = await whole_way(work, settings)
        figures += _shares(f"{milliseconds} ms", work, result, goal)
        results.append(result)
    return figures + checks(QUESTION, results)


def _shares(what: str, work: Workload, result: Result, goal: float | None) -> list[Figure]:
    held = result.held
    figures = []
    if (steady := work.figure(result)) is not None:
        figures.append(
            Figure(
                QUESTION, f"{what}: of the ceiling, steady", steady, "%", goal, "higher",
                note=work.what.removeprefix('% of '),
            )
        )  # fmt: skip
    if (whole := work.also["whole run %"](result)) is not None:
        note = f"{result.rate:,.0f}/s, ramp-up and ramp-down included"
        figures.append(Figure(QUESTION, f"{what}: of the ceiling, whole", whole, "%", note=note))
    late = f"held p50 {held.p50:.1f} ms, p95 {held.p95:.1f} ms" if held else ""
    name = f"{what}: in flight, peak"
    peak = result.peak_in_flight
    return [*figures, Figure(QUESTION, name, peak, limit=EXECUTORS, better="lower", note=late)]
