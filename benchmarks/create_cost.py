"""What does a create cost the server, beside the least that could answer it? In CPU time, the same
requests to each in turn. The tasks are manual, so that nothing is called meanwhile."""

from __future__ import annotations

from contextlib import AsyncExitStack
from statistics import median
from typing import Final

from benchmarks.drive import drive, driver_us
from benchmarks.driver.plan import Plan, Result
from benchmarks.observed import reasons, sum_of
from benchmarks.report import Figure
from benchmarks.running import RunningStack
from benchmarks.stack import open_process, open_ringback
from benchmarks.tasks import Settings

QUESTION: Final = "cost of a create"
CONNECTIONS: Final = 100
RATIO_MAX: Final = 1.5
OURS: Final = "Ringback"
BARE: Final = {
    "a bare handler, same server, express lane": "express",
    "a bare handler, same server, ASGI": "ringback",
    "a bare handler, plain hypercorn": "hypercorn",
}


async def measure(settings: Settings) -> list[Figure]:
    """Interleaved rounds, so that a busy moment of the machine hits all alike."""
    rounds, creates = (3, 1_000) if settings.quick else (5, 3_000)
    found: dict[str, list[Result]] = {}
    async with AsyncExitStack() as places:
        stacks = {OURS: await places.enter_async_context(open_ringback(settings.directory))}
        for name, server in BARE.items():
            arguments = ["-m", "benchmarks.bare_app", server]
            bare = await places.enter_async_context(
                open_process(f"bare-{server}", arguments, settings.directory)
            )
            stacks[name] = RunningStack(bare.url, (bare.pid,))
        for number in range(rounds):
            settings.say(f"round {number + 1} of {rounds}: {creates:,} creates to each")
            for name, stack in stacks.items():
                found.setdefault(name, []).append(await drive(_plan(stack, creates)))
    return _figures(found)


def _plan(stack: RunningStack, creates: int) -> Plan:
    return Plan(
        url=stack.url,
        roots=stack.roots,
        tasks=creates,
        connections=CONNECTIONS,
        dispatch="manual",
        warm=creates // 10,
    )


def _figures(found: dict[str, list[Result]]) -> list[Figure]:
    costs = {name: [_cpu_us(result) for result in results] for name, results in found.items()}
    figures = []
    for name, each in costs.items():
        driver = median(driver_us(result) for result in found[name])
        note = f"{min(each):.0f}-{max(each):.0f} in {len(each)} rounds; driver: {driver:.0f} us"
        figures.append(Figure(QUESTION, f"{name}: CPU", median(each), "us", note=note))
    for name in BARE:
        ratio = median(ours / bare for ours, bare in zip(costs[OURS], costs[name], strict=True))
        limit = RATIO_MAX if BARE[name] == "express" else None  # the lane of ours
        figures.append(Figure(QUESTION, f"{OURS}: times {name}", ratio, "×", limit))
    return [*figures, _check([result for results in found.values() for result in results])]


def _check(results: list[Result]) -> Figure:
    """Of manual tasks nothing is called and nothing is asked for."""
    count = sum(sum_of(results, name) for name in ("refused", "unanswered", "stalled"))
    what, note = "creates refused or unanswered, or stalled", ", ".join(reasons(results))
    return Figure(QUESTION, what, count, limit=0, note=note)


def _cpu_us(result: Result) -> float:
    if result.usage is None or not result.accepted:
        raise RuntimeError(f"no create was accepted: {result.refused}, {result.stalled}")
    return result.usage.cpu_s * 1e6 / result.accepted
