"""What the driver is asked to do, and what it answers; both travel as JSON."""

from __future__ import annotations

from typing import Literal

import attrs

from benchmarks.running import Usage


@attrs.frozen(kw_only=True)
class Readers:
    """Clients that ask while the load runs, on a schedule of their own."""

    what: Literal["create", "get", "list"]  # a manual task, a task known by then, the newest 20
    rate: float  # a second, all connections together
    connections: int = 20


@attrs.frozen(kw_only=True)
class Plan:
    """One run. Latencies of a load with a ``rate`` count from when a request was due, so that a
    server that is slow cannot slow down its own measurement."""

    url: str
    tasks: int
    batch: int = 1  # tasks a create
    connections: int = 100  # with a rate: at most
    rate: float | None = None  # creates a second; None: each connection as fast as it is answered
    ahead: int | None = None  # creates wait while so many accepted tasks are not called back
    dispatch: Literal["auto", "manual"] = "auto"  # of manual tasks no callback is awaited
    callback_ms: float = 0.0  # how long a callback is held until it is answered
    warm: int = 0  # tasks that go the whole way before, unmeasured
    readers: tuple[Readers, ...] = ()
    readers_in_flight: int = 0  # readers ask while so many callbacks are in flight
    ask: int | None = None  # tasks whose state is asked for at the end; None: all
    ask_connections: int = 8
    final_s: float = 10.0  # time the last ones get to become final, once all were asked for
    stall_s: float = 15.0  # the run ends when nothing moves for so long
    limit_s: float = 300.0  # and after so long in any case
    roots: tuple[int, ...] = ()  # processes whose usage is told, see running.py


@attrs.frozen(kw_only=True)
class Latency:
    """Milliseconds; a percentile is a measured value by nearest rank."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float


@attrs.frozen(kw_only=True)
class Reading:
    """What one kind of reader saw."""

    what: str
    latency: Latency | None
    refused: dict[str, int]


@attrs.frozen(kw_only=True)
class Result:
    """What a run came to. Rates are tasks a second. What went wrong in the warm-up is counted in
    ``refused``, ``unanswered``, ``lost``, ``duplicates`` and ``unknown`` too."""

    accepted: int
    refused: dict[str, int]  # what came instead of a 201 -> how many tasks
    unanswered: int  # tasks whose create was not sent, or not answered, before the run ended
    lost: int  # accepted, never called back
    duplicates: int  # calls beyond the first of a task
    unknown: int  # tasks called back though no create was answered with them
    cut_off: int  # callbacks whose caller did not wait for the answer: they may come again
    states: dict[str, int]  # of those asked for at the end
    seconds: float  # from the first create to the last callback answered
    rate: float | None  # over all of that
    steady_rate: float | None  # between the callbacks at 20 % and 80 %
    create_rate: float | None  # tasks accepted, from the first create to the last answer
    create: Latency | None  # from sent, or due, to the answer
    end_to_end: Latency | None  # from sent, or due, to the callback answered
    peak_in_flight: int
    in_flight: Latency | None  # callbacks in flight while readers asked, not milliseconds
    held: Latency | None  # how long callbacks were held, by the driver's own clock
    behind: Latency | None  # how late the driver sent what was due
    timeline: list[int]  # callbacks answered in each second
    readings: list[Reading]
    stalled: str | None  # why it ended before all was done
    driver_cpu_s: float
    usage: Usage | None  # of the roots, between the first create and the last callback
