"""How many tasks a second go the whole way, created one by one and by hundreds?"""

from __future__ import annotations

from typing import Final

from benchmarks.drive import drive
from benchmarks.driver.plan import Result
from benchmarks.observed import checks, costs, latency_row
from benchmarks.report import Figure
from benchmarks.stack import open_ringback
from benchmarks.tasks import Settings
from benchmarks.work import Workload, batches, single

SINGLE: Final = "single"
BATCHES: Final = "batches"


async def measure_single(settings: Settings) -> list[Figure]:
    """One task a create, over 100 connections."""
    work = single(2_000 if settings.quick else 10_000)
    return figures(SINGLE, work, await whole_way(work, settings))


async def measure_batches(settings: Settings) -> list[Figure]:
    """A hundred tasks a create."""
    work = batches(4_000 if settings.quick else 20_000)
    return figures(BATCHES, work, await whole_way(work, settings))


async def whole_way(work: Workload, settings: Settings) -> Result:
    """The work on a fresh server."""
    settings.say(f"{work.title}: {work.tasks:,} tasks")
    async with open_ringback(settings.directory) as stack:
        return await drive(work.plan_for(stack, work.tasks))


def figures(question: str, work: Workload, result: Result) -> list[Figure]:
    """Rates, latencies, and what must be none."""
    rates = {
        "tasks/s": (result.rate, f"{work.title}: first create to last callback"),
        "tasks/s, steady": (result.steady_rate, "the middle 60 % of the callbacks"),
        "accepted/s": (result.create_rate, "first create to last answer"),
    }
    return [
        *(
            Figure(question, name, rate, "/s", note=note)
            for name, (rate, note) in rates.items()
            if rate is not None
        ),
        *latency_row(question, "create", result.create),
        *latency_row(question, "create sent to callback answered", result.end_to_end),
        *costs(question, "", result),
        *checks(question, [result]),
    ]
