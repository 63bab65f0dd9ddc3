"""Are 100 callbacks truly in flight at once? Measured where they arrive, not where they are sent."""

from __future__ import annotations

from time import perf_counter
from typing import Final

from benchmarks.report import Figure
from benchmarks.stack import Stack, open_stack
from benchmarks.tasks import Settings, batches, fill, take_account, wait_until_completed

QUESTION: Final = "100 executors"
EXECUTORS: Final = 100
CALLBACK_S: Final = 0.2
CEILING: Final = EXECUTORS / CALLBACK_S


async def measure(settings: Settings) -> list[Figure]:
    count = 1000 if settings.quick else 3000
    async with open_stack(settings.directory, executors=EXECUTORS) as stack:
        settings.say(f"{count:,} tasks with callbacks of {CALLBACK_S * 1000:.0f} ms")
        began = perf_counter()
        url = stack.callback(f"/slow?ms={CALLBACK_S * 1000:.0f}")
        accepted = await fill(stack.server.url, batches(url, count, 100, "auto"))
        ended = await wait_until_completed(stack, len(accepted), settings)
        return await _figures(stack, accepted, began, ended)


async def _figures(
    stack: Stack, accepted: list[str], began: float, ended: float | None
) -> list[Figure]:
    seen = await stack.seen()
    accounted = await take_account(stack, accepted)
    figures = [
        Figure(
            QUESTION, "callbacks in flight at once (peak)", seen["peakInFlight"],
            limit=EXECUTORS, better="higher", note="at the receiver",
        ),
    ]  # fmt: skip
    if seen["firstStarted"] is not None and seen["lastEnded"] > seen["firstStarted"]:
        window = seen["lastEnded"] - seen["firstStarted"]
        rate = seen["total"] / window
        figures += [
            Figure(QUESTION, "callbacks in flight (mean)", seen["busySeconds"] / window),
            Figure(QUESTION, "tasks/s, first to last callback", rate, "/s"),
            Figure(QUESTION, "of the ceiling", 100 * rate / CEILING, "%", note=f"{CEILING:.0f}/s"),
        ]
    if ended is not None:
        rate = len(accepted) / (ended - began)
        figures.append(Figure(QUESTION, "tasks/s, first create to last Completed", rate, "/s"))
    return figures + accounted.figures(QUESTION, f"{len(accepted):,} tasks")
