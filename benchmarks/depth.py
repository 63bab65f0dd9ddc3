"""Does a deep queue slow it down? The same calls with ever more tasks queued."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, repeat
from typing import Final

from benchmarks.load import Request, closed_loop, request
from benchmarks.report import Figure, latency_figures, percentile
from benchmarks.stack import Stack, open_stack
from benchmarks.tasks import Settings, batches, create, fill

QUESTION: Final = "queue depth"
DEPTHS: Final = (1_000, 10_000, 100_000, 1_000_000)
RATIO_MAX: Final = 2.0
MEMORY_MAX_MIB: Final = 300.0
CONNECTIONS: Final = 4
CALLS: Final = ("create", "get", "dequeue")


async def measure(settings: Settings) -> list[Figure]:
    figures: list[Figure] = []
    base: dict[str, float] = {}
    queued: list[str] = []
    async with open_stack(settings.directory) as stack:
        for depth in _depths(settings):
            await _deepen(stack, depth, queued, settings)
            if not figures:  # once unmeasured: a cold first depth would flatter all ratios
                await _measure_depth(stack, depth, queued, {}, settings)
            figures += await _measure_depth(stack, depth, queued, base, settings)
    return figures


def _depths(settings: Settings) -> list[int]:
    most = settings.queued or (1_000_000 if settings.full else 100_000)
    if settings.quick and settings.queued is None:
        most = 10_000
    return [*(depth for depth in DEPTHS if depth < most), most]


async def _deepen(stack: Stack, depth: int, queued: list[str], settings: Settings) -> None:
    """Create manual tasks until `depth` are queued. Each measurement leaves the depth as it was."""
    missing, step = depth - len(queued), max(depth // 10, 5000)
    said = 0

    def on_batch(accepted: int) -> None:
        nonlocal said
        if accepted - said >= step:
            said = accepted
            settings.say(f"{len(queued) + accepted:,} of {depth:,} queued")

    tasks = batches(stack.callback("/good"), missing, 1000, "manual")
    queued += await fill(stack.server.url, tasks, on_batch=on_batch)


async def _measure_depth(
    stack: Stack, depth: int, queued: list[str], base: dict[str, float], settings: Settings
) -> list[Figure]:
    count = 300 if settings.quick else 1000
    settings.say(f"create, get, dequeue with {depth:,} queued")
    figures: list[Figure] = []
    for call in CALLS:  # as many are created as are taken, so the depth stays
        load = await closed_loop(
            stack.server.url, _requests(stack, call, count, queued), connections=CONNECTIONS
        )
        what = f"{depth:,} queued: {call}"
        figures += latency_figures(QUESTION, what, load.latencies, load.unwanted)
        figures += _ratios(what, call, load.latencies, base)
    usage = stack.server.usage()
    if usage.rss_mib is not None:
        what = f"{depth:,} queued: server memory"
        figures.append(Figure(QUESTION, what, usage.rss_mib, "MiB", MEMORY_MAX_MIB))
    return figures


def _requests(stack: Stack, call: str, count: int, queued: list[str]) -> Iterator[Request]:
    if call == "create":
        return (create(stack.callback("/good"), number, "manual") for number in range(count))
    if call == "get":
        spread = cycle(queued[:: max(1, len(queued) // count)])
        return (request("GET", f"/api/v1/tasks/{next(spread)}") for _ in range(count))
    return repeat(request("POST", "/api/v1/tasks/dequeue", {}), count)


def _ratios(what: str, call: str, latencies: list[float], base: dict[str, float]) -> list[Figure]:
    """Against the same call at the first depth, whose own figures have nothing to stand beside."""
    figures: list[Figure] = []
    for percent in (50, 95) if latencies else ():
        now = percentile(latencies, percent)
        before = base.setdefault(f"{call} p{percent}", now)
        if what.startswith(f"{DEPTHS[0]:,} "):
            continue
        note = f"against {DEPTHS[0]:,} queued"
        figures.append(
            Figure(
                QUESTION, f"{what}, ratio", now / before, "×", RATIO_MAX,
                note=note, stat=f"p{percent}",
            )
        )  # fmt: skip
    return figures
