"""How fast does the API answer while all 100 executors are calling?"""

from __future__ import annotations

from typing import Final

import attrs

from benchmarks.drive import drive
from benchmarks.driver.plan import Plan, Readers
from benchmarks.observed import checks, latency_row
from benchmarks.report import Figure
from benchmarks.stack import open_ringback
from benchmarks.tasks import Settings
from benchmarks.work import EXECUTORS

QUESTION: Final = "API under load"
P95_MS: Final = 100.0
CALLBACK_MS: Final = 200.0
READERS: Final = (
    Readers(what="create", rate=50),
    Readers(what="get", rate=50),
    Readers(what="list", rate=20),
)


async def measure(settings: Settings) -> list[Figure]:
    """Readers ask on a schedule of their own, beside as many callbacks as are possible."""
    seconds = 4 if settings.quick else 12
    plan = Plan(
        url="",
        tasks=round(seconds * EXECUTORS * 1000 / CALLBACK_MS),
        batch=50,
        connections=1,
        ahead=5 * EXECUTORS,
        callback_ms=CALLBACK_MS,
        warm=EXECUTORS,
        readers=READERS,
        readers_in_flight=EXECUTORS * 9 // 10,
    )
    settings.say(f"create, get and list beside {EXECUTORS} callbacks, for {seconds} s")
    async with open_ringback(settings.directory) as stack:
        result = await drive(attrs.evolve(plan, url=stack.url, roots=stack.roots))
    figures: list[Figure] = []
    if found := result.in_flight:
        note = f"{found.count:,} samples while readers asked"
        figures.append(Figure(QUESTION, "callbacks in flight, median", found.p50, note=note))
    rates: dict[str, float] = {reader.what: reader.rate for reader in READERS}
    for reading in result.readings:
        what = f"{reading.what}, {rates[reading.what]:.0f}/s"
        figures += latency_row(QUESTION, what, reading.latency, p95_limit_ms=P95_MS)
        wrong = sum(reading.refused.values())
        note = ", ".join(f"{count} x {reason}" for reason, count in reading.refused.items())
        figures.append(Figure(QUESTION, f"{what}: not answered well", wrong, limit=0, note=note))
    if result.steady_rate is not None:
        figures.append(Figure(QUESTION, "tasks/s meanwhile", result.steady_rate, "/s"))
    return figures + checks(QUESTION, [result])
