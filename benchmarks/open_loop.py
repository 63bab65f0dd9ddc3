"""How long does a task take at a load that the server can bear? Creates come when they are due,
whatever the server makes of those before, and the clock of each starts when it is due."""

from __future__ import annotations

from typing import Final

from benchmarks.observed import checks, costs, latency_row
from benchmarks.report import Figure
from benchmarks.tasks import Settings
from benchmarks.throughput import whole_way
from benchmarks.work import RATE, open_loop, single

QUESTION: Final = "open loop"
SHARES: Final = (0.3, 0.6, 0.9)  # of the capacity
CREATE_P95_MS: Final = 10.0  # at RATE


async def measure(settings: Settings) -> list[Figure]:
    """The capacity, then parts of it."""
    full = await whole_way(single(2_000 if settings.quick else 10_000), settings)
    if full.rate is None:
        return checks(QUESTION, [full])
    figures = [Figure(QUESTION, "capacity", full.rate, "/s", note="single creates, closed loop")]
    rates = {f"{share:.0%} of it": full.rate * share for share in SHARES}
    results = [full]
    for name, rate in {"fixed": RATE, **rates}.items():
        work = open_loop(rate, 3.0 if settings.quick else 8.0)
        result = await whole_way(work, settings)
        results.append(result)
        what = f"{rate:,.0f}/s, {name}"
        limit = CREATE_P95_MS if rate == RATE else None
        figures += [
            *latency_row(QUESTION, f"{what}: create", result.create, p95_limit_ms=limit),
            *latency_row(QUESTION, f"{what}: due to callback answered", result.end_to_end),
            *latency_row(QUESTION, f"{what}: sent after it was due", result.behind),
            *costs(QUESTION, f"{what}: ", result),
        ]
    return figures + checks(QUESTION, results)
