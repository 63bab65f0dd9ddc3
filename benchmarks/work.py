"""The work that every stack gets alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import attrs

from benchmarks.driver.plan import Latency, Plan, Result
from benchmarks.running import RunningStack

EXECUTORS: Final = 100  # callbacks at a time, in every stack
RATE: Final = 300.0  # creates a second of the open loop
_REACH: Final = 2_000.0  # tasks a second; a higher ceiling does not make a longer run
_WARM: Final = 300  # tasks of a run that go ahead of those measured


@attrs.frozen(kw_only=True)
class Workload:
    """One kind of work, and the figure that it is done for."""

    name: str
    title: str
    what: str  # what the figure is
    unit: str
    better: Literal["higher", "lower"]
    figure: Callable[[Result], float | None]
    also: Mapping[str, Callable[[Result], float | None]]
    plan: Plan  # but for the stack and the tasks
    tasks: int

    def plan_for(self, stack: RunningStack, tasks: int, *, ask: int | None = None) -> Plan:
        """The plan of one run; ``ask`` limits how many tasks are asked for at its end."""
        warm = min(_WARM, tasks)
        return attrs.evolve(
            self.plan, url=stack.url, roots=stack.roots, tasks=tasks, warm=warm, ask=ask
        )


def p95(part: Callable[[Result], Latency | None]) -> Callable[[Result], float | None]:
    """The p95 of a part of the result."""

    def of(result: Result) -> float | None:
        found = part(result)
        return found.p95 if found else None

    return of


_CREATE: Final = p95(lambda result: result.create)
_END_TO_END: Final = p95(lambda result: result.end_to_end)


def single(tasks: int) -> Workload:
    """As fast as 100 connections can create one by one."""
    return Workload(
        name="single",
        title="single creates, 100 connections, closed loop",
        what="tasks/s, first create to last callback",
        unit="/s",
        better="higher",
        figure=lambda result: result.rate,
        also={"create p95 ms": _CREATE, "end to end p95 ms": _END_TO_END},
        plan=Plan(url="", tasks=0, connections=100),
        tasks=tasks,
    )


def batches(tasks: int) -> Workload:
    """As fast as 4 connections can create by hundreds."""
    return Workload(
        name="batches",
        title="batches of 100, 4 connections, closed loop",
        what="tasks/s, first create to last callback",
        unit="/s",
        better="higher",
        figure=lambda result: result.rate,
        also={"created/s": lambda result: result.create_rate, "batch p95 ms": _CREATE},
        plan=Plan(url="", tasks=0, batch=100, connections=4),
        tasks=tasks,
    )


def callbacks(milliseconds: int, seconds: float) -> Workload:
    """Callbacks that take a while, fed far ahead: how well are 100 of them kept in flight?"""
    ceiling = EXECUTORS * 1000 / milliseconds
    tasks = max(500, round(min(ceiling, _REACH) * seconds / 100) * 100)

    def share(rate: float | None) -> float | None:
        return None if rate is None else 100 * rate / ceiling

    return Workload(
        name=f"callbacks-{milliseconds}",
        title=f"callbacks of {milliseconds} ms, {EXECUTORS} at a time",
        what=f"% of the ceiling of {ceiling:,.0f}/s, the middle 60 % of the callbacks",
        unit="%",
        better="higher",
        figure=lambda result: share(result.steady_rate),
        also={
            "whole run %": lambda result: share(result.rate),
            "in flight, peak": lambda result: float(result.peak_in_flight),
            "held p95 ms": p95(lambda result: result.held),
        },
        plan=Plan(url="", tasks=0, batch=100, connections=2, callback_ms=milliseconds),
        tasks=tasks,
    )


def open_loop(rate: float, seconds: float) -> Workload:
    """Creates on a schedule, whatever the stack makes of them."""
    return Workload(
        name="open-loop" if rate == RATE else f"open-loop-{rate:.0f}",
        title=f"open loop, {rate:.0f} creates/s",
        what="ms from due to callback answered, p95",
        unit="ms",
        better="lower",
        figure=_END_TO_END,
        also={
            "p50 ms": lambda result: result.end_to_end.p50 if result.end_to_end else None,
            "p99 ms": lambda result: result.end_to_end.p99 if result.end_to_end else None,
            "create p95 ms": _CREATE,
            "sent late p95 ms": p95(lambda result: result.behind),
        },
        plan=Plan(url="", tasks=0, connections=1000, rate=rate),
        tasks=round(rate * seconds),
    )


def workloads(*, quick: bool, tasks: int | None = None) -> list[Workload]:
    """What all stacks are compared by."""
    count = tasks or (2_000 if quick else 10_000)
    seconds = 3.0 if quick else 8.0
    return [
        single(count),
        batches(count),
        callbacks(200, seconds),
        callbacks(50, seconds),
        open_loop(RATE, seconds),
    ]


def _unfinished(result: Result) -> int:
    """Of the tasks asked for at the end, those that are not Completed."""
    return sum(count for state, count in result.states.items() if state != "Completed")


COUNTS: Final[Mapping[str, Callable[[Result], int]]] = {
    "lost": lambda result: result.lost,
    "duplicates": lambda result: result.duplicates,
    "unknown": lambda result: result.unknown,
    "refused": lambda result: sum(result.refused.values()),
    "unfinished": _unfinished,
    "unanswered": lambda result: result.unanswered,
    "stalled": lambda result: int(result.stalled is not None),
}
"""What should be none."""

OTHERS: Final = tuple(name for name in COUNTS if name not in ("lost", "duplicates"))
"""Of these, what tables show as one sum."""
