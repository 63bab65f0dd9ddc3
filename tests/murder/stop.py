"""SIGSTOP for longer than every lease, of the server and of the callee, under load."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import attrs
import click
import trio

from benchmarks.load import Connection
from engine.core.task import ErrorClass, Status
from tests import bars
from tests.murder.callee import open_callee
from tests.murder.checker import Report, Rules, check
from tests.murder.history import Cut, Found, History
from tests.murder.load import Load
from tests.murder.progress import asked, run_in_new_place, seed_or_new, tell
from tests.murder.survey import API, get, survey, until_ended
from tests.murder.target import CALLEE_FAILS, DATABASE, integrity, open_server

BAR: Final = "pause longer than the lease"
EXECUTORS: Final = 100
RATE: Final = 150.0  # creates a second
TIMEOUT_S: Final = 2.0  # of a callback, none of which takes a second
LEASE_MARGIN_S: Final = 0.5
DEQUEUE_LEASE_S: Final = 1.0
HELD_S: Final = 4.0  # longer than the lease of an attempt, and than that of a client
BETWEEN_S: Final = 2.0
CATCH_UP_S: Final = TIMEOUT_S + 1.0  # what is behind may still miss its time afterwards
STUCK_S: Final = 180.0  # two of the clients that drive tasks are slow, and each may be late
OPTIONS: Final = (
    *("--executors", str(EXECUTORS), "--log-level", "error", "--sweep-interval", "0.2"),
    *("--lease-margin", str(LEASE_MARGIN_S), "--dequeue-lease", str(DEQUEUE_LEASE_S)),
    *CALLEE_FAILS,
)
RULES: Final = Rules(
    excuses=frozenset({ErrorClass.TIMEOUT, ErrorClass.LOST, ErrorClass.CANCELLED}),
    repeats_max=2 * EXECUTORS,  # a held callee is called again and again
    in_order=False,
    on_its_way_s=HELD_S + CATCH_UP_S,
)


@attrs.define
class Stopped:
    """What came of a run."""

    report: Report
    history: History
    timeouts: int  # attempts that were in flight for too long
    leases_ended: int  # of clients
    late_results: int  # refused, because the attempt was over
    behind: int  # events at the end that the watcher was not told
    integrity: str

    def problems(self) -> list[str]:
        """What is wrong beside the breaches, also if no pause was felt: attempts have to miss their
        time, and clients to lose what they had taken."""
        wrong = {
            f"integrity: {self.integrity}": self.integrity != "ok",
            "the watcher did not recover": self.behind != 0,
            "no attempt timed out": not self.timeouts,
            "no lease of a client ended": not self.leases_ended,
            "no callback was in flight at a pause": not sum(self.report.repeats),
        }
        return [problem for problem, there in wrong.items() if there]

    def __str__(self) -> str:
        return (
            f"{self.report.sentence()}; {self.timeouts:,} attempts timed out,"
            f" {self.leases_ended:,} leases of clients ended, {self.late_results} late results"
            f" refused, {len(self.history.cut_off)} clients cut off"
        )


async def stop(place: Path, rounds: int, seed: int) -> Stopped:
    """Hold first the server and then the callee, so often; let everything end, look at it all."""
    history = History()
    async with open_callee(place) as callee:
        load = Load(
            callee.url,
            random.Random(seed),
            history,
            rate=RATE,
            timeout_s=TIMEOUT_S,
            late_s=1.5 * DEQUEUE_LEASE_S,
        )
        async with open_server(place, *OPTIONS) as server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.until_gone, server.url)
                for number in range(1, rounds + 1):
                    for name, pid in (("server", server.process.pid), ("callee", callee.pid)):
                        await trio.sleep(BETWEEN_S)
                        cut = await _hold(pid)
                        history.cuts.append(attrs.evolve(cut, of_server=name == "server"))
                        tell(f"round {number}/{rounds}: held the {name} for {HELD_S:g} s: {load!r}")
                await trio.sleep(BETWEEN_S)
                nursery.cancel_scope.cancel(reason="enough load")
            found, stats = await _settle(server.url, load)
    found = attrs.evolve(found, calls=callee.calls)
    classes = Counter(one.error_class for log in found.attempts.values() for one in log)
    return Stopped(
        report=check(history, found, RULES),
        history=history,
        timeouts=classes[ErrorClass.TIMEOUT],
        leases_ended=sum(
            (event.before, event.after) == (Status.PENDING, Status.QUEUED) for event in found.events
        ),
        late_results=stats["lateResults"],
        behind=len(found.events) - len(history.watched),
        integrity=integrity(place / DATABASE),
    )


async def _hold(pid: int) -> Cut:
    """SIGSTOP, for a while."""
    began = perf_counter()
    os.kill(pid, signal.SIGSTOP)
    try:
        await trio.sleep(HELD_S)
        assert (state := _state_of(pid)) == "T", f"process {pid} is in state {state}"
    finally:
        os.kill(pid, signal.SIGCONT)
    return Cut(began, perf_counter() + CATCH_UP_S)


def _state_of(pid: int) -> str:
    """What the kernel calls the process's state; ``T`` is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def _settle(url: str, load: Load) -> tuple[Found, dict[str, Any]]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.finish, url)
        await trio.sleep(1.0)  # for what is resent
        tell(f"waiting for the end of all tasks: {await until_ended(url, STUCK_S)}")
        await trio.sleep(1.0)  # for the watcher
        nursery.cancel_scope.cancel(reason="everything has ended, or is stuck")
    with Connection(url) as connection:
        stats = await get(connection, f"{API}/stats")
    return await survey(url, []), stats


@click.command()
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", type=int, help="Of the load; else a new one.")
@click.option("--record", is_flag=True, help="Keep the line for the table of bars.")
def command(rounds: int, seed: int | None, record: bool) -> None:
    """SIGSTOP for longer than every lease, of the server and of the callee. Exit 1 if anything was
    lost, or a late result accepted."""
    work = partial(stop, rounds=rounds, seed=seed_or_new(seed))
    again = asked("stop", rounds, seed)
    tried = (
        f"{rounds} × SIGSTOP of the server and of a callee for {HELD_S:g} s, leases of"
        f" {TIMEOUT_S + LEASE_MARGIN_S:g} s and {DEQUEUE_LEASE_S:g} s"
    )
    with bars.told(BAR, tried, again, record=record):
        done = run_in_new_place("stop", work)
        tell(done.report.quote())
        problems = done.problems()
        held = not (done.report.breaches or problems)
        bars.say(
            bars.Seen(
                bar=BAR,
                tried=f"{tried}; {done.report.tasks:,} tasks",
                seen="; ".join([str(done), *problems]),
                held=held,
                command=again,
            ),
            record=record,
        )
    sys.exit(0 if held else 1)
