"""SIGTERM with 100 callbacks in flight and watchers that never read, again and again."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import attrs
import click
import trio

from benchmarks.load import Connection, request
from engine.core.task import ErrorClass
from tests import bars
from tests.murder.callee import Callee, open_callee
from tests.murder.checker import Report, Rules, check
from tests.murder.history import Cut, Found, History
from tests.murder.progress import asked, run_in_new_place, tell
from tests.murder.stalled import held_up, stalled_watchers
from tests.murder.survey import API, follow, get, survey, until_ended
from tests.murder.target import CALLEE_FAILS, DATABASE, free_port, integrity, open_server
from tests.support.server import ServerProcess

BAR: Final = "drain"
EXECUTORS: Final = 100
SHORT: Final = 60  # of the callbacks in flight end within the grace, the others after it
STALLED: Final = 50
STALLED_WITHIN_S: Final = 1.0
GRACE_S: Final = 2.0
AFTER_GRACE_S: Final = 2.0  # what the end of the process may take beyond it
COMMIT_S: Final = 0.25  # an answer that comes so shortly before the end of the grace may be late
SHORT_MS: Final = (1000, 1400)
LONG_MS: Final = 4000
LONG_GRACE_S: Final = 60.0  # more than one waits for a process to end
HANGING: Final = 10
EVENTS: Final = 1000  # tasks, whose events fill what a watcher does not read
WAIT_S: Final = 30.0
RULES: Final = Rules(
    excuses=frozenset({ErrorClass.INTERRUPTED, ErrorClass.CANCELLED}), commit_s=COMMIT_S
)


@attrs.define
class Drained:
    """What came of a run."""

    report: Report
    took_s: list[float]  # from SIGTERM to the end, with callbacks that end sooner or later
    endless_s: float  # ... with a callback that never ends
    second_s: float  # from the second SIGTERM to the end
    held_up: list[int]  # watchers that had made the server wait, each time
    cut: int  # attempts that were cut off
    integrity: str

    def problems(self) -> list[str]:
        """What is wrong beside the breaches, whatever the time it took; also if too little was cut
        off for anything to go wrong."""
        cut_min = len(self.took_s) * (EXECUTORS - SHORT) + 1 + HANGING
        wrong = {
            f"integrity: {self.integrity}": self.integrity != "ok",
            f"fewer than {cut_min:,} attempts were cut off": self.cut < cut_min,
        }
        return [problem for problem, there in wrong.items() if there]

    def problems_of_a_slow_machine(self) -> list[str]:
        """What may be wrong where other tests run beside."""
        within_grace = max(*self.took_s, self.endless_s) <= GRACE_S + AFTER_GRACE_S
        wrong = {
            "took too long": not (within_grace and self.second_s <= AFTER_GRACE_S),
            f"fewer than {STALLED} stalled watchers": min(self.held_up) < STALLED,
        }
        return [problem for problem, there in wrong.items() if there]

    def __str__(self) -> str:
        return (
            f"exit 0 after at most {max(self.took_s):.2f} s, {self.endless_s:.2f} s and"
            f" {self.second_s:.2f} s; {self.report.sentence()}; {self.cut:,} attempts given back,"
            " none used up"
        )


async def drain(place: Path, rounds: int) -> Drained:
    """All rounds on one database, and what came of it."""
    async with open_callee(place) as callee:
        run = _Run(place, callee)
        await run.fill()
        took = []
        for number in range(1, rounds + 1):
            took.append(await run.round())
            tell(f"drain {number}/{rounds}: ended {took[-1]:.2f} s after SIGTERM")
        endless = await run.endless()
        second = await run.second_signal()
        tell(f"a callback without an end: {endless:.2f} s; a second SIGTERM: {second:.2f} s")
        found = await run.end()
    found = attrs.evolve(found, calls=callee.calls)
    classes = [one.error_class for log in found.attempts.values() for one in log]
    return Drained(
        report=check(run.history, found, RULES),
        took_s=took,
        endless_s=endless,
        second_s=second,
        held_up=run.held_up,
        cut=classes.count(ErrorClass.INTERRUPTED),
        integrity=integrity(place / DATABASE),
    )


class _Run:
    """One database, one port, one callee."""

    def __init__(self, place: Path, callee: Callee) -> None:
        self.history = History()
        self.held_up: list[int] = []
        self._place, self._callee, self._port = place, callee, free_port()
        self._number = 0
        self._hanging: list[str] = []  # tasks whose callback never ends

    @asynccontextmanager
    async def _server(self, grace_s: float) -> AsyncIterator[ServerProcess]:
        """A server that is asked and watched, and has done what was cut off before."""
        options = ["--executors", str(EXECUTORS), "--dispatch", "auto", "--grace", str(grace_s)]
        options += ["--log-level", "error", *CALLEE_FAILS]
        async with open_server(self._place, *options, port=self._port) as server:
            cuts = self.history.cuts
            if cuts:
                cuts[-1] = attrs.evolve(cuts[-1], until=perf_counter())
            async with trio.open_nursery() as nursery:
                watched = self.history.watched
                after = watched[-1].seq if watched else 0
                nursery.start_soon(follow, server.url, after, watched.append)
                yield server
                nursery.cancel_scope.cancel(reason="the server is gone")

    async def fill(self) -> None:
        """Events enough for watchers to stall on."""
        async with self._server(GRACE_S) as server:
            await self._create(server, ["/good"] * EVENTS)
            await until_ended(server.url, WAIT_S)

    async def round(self) -> float:
        """How long the end took."""
        async with self._server(GRACE_S) as server:
            await until_ended(server.url, WAIT_S)
            watchers = stalled_watchers(self._port, STALLED)
            await trio.to_thread.run_sync(watchers.__enter__)
            try:
                low, high = SHORT_MS
                step = (high - low) // SHORT
                short = [f"/slow?ms={low + step * n}" for n in range(SHORT)]
                long = [f"/slow?ms={LONG_MS}"] * (EXECUTORS - SHORT)
                await self._create(server, short + long)
                await self._until_in_flight(EXECUTORS)
                self.held_up.append(await self._stalled())
                return await self._terminate(server, GRACE_S)
            finally:
                watchers.__exit__(None, None, None)

    async def endless(self) -> float:
        """How long the end took with a callback that never ends."""
        async with self._server(GRACE_S) as server:
            await until_ended(server.url, WAIT_S)
            await self._create_hanging(server, 1)
            return await self._terminate(server, GRACE_S)

    async def second_signal(self) -> float:
        """How long the end took after a second signal, with a grace that would have been long."""
        async with self._server(LONG_GRACE_S) as server:
            await self._cancel_hanging(server)
            await self._create_hanging(server, HANGING)
            server.process.send_signal(signal.SIGTERM)
            await trio.sleep(0.5)
            assert server.process.poll() is None, "it did not wait for callbacks in flight"
            return await self._terminate(server, 0.0)

    async def end(self) -> Found:
        """What there is when all has been done."""
        async with self._server(GRACE_S) as server:
            await self._cancel_hanging(server)
            await until_ended(server.url, WAIT_S)
            return await survey(server.url, [])

    async def _create_hanging(self, server: ServerProcess, count: int) -> None:
        self._hanging = await self._create(server, ["/hang"] * count)
        await self._until_in_flight(count)

    async def _cancel_hanging(self, server: ServerProcess) -> None:
        """They were given back, so they are in flight again; only a cancel ends them."""
        await self._until_in_flight(len(self._hanging))
        with Connection(server.url) as connection:
            for task_id in self._hanging:
                self.history.asked_to_cancel.add(task_id)
                asked = request("DELETE", f"{API}/tasks/{task_id}?inFlight=true")
                assert (answer := await connection.ask(asked)).status == 204, answer
                self.history.cancelled[task_id] = perf_counter()

    async def _terminate(self, server: ServerProcess, grace_s: float) -> float:
        """Send SIGTERM, and wait for the end. How long that took. What is in flight when the grace
        is over is cut off."""
        began = perf_counter()
        self.history.cuts.append(Cut(began + grace_s, began + grace_s))
        assert await trio.to_thread.run_sync(server.stop) == 0, server.log()
        return perf_counter() - began

    async def _create(self, server: ServerProcess, paths: Sequence[str]) -> list[str]:
        """Tasks with only one attempt: if one that was cut off used it up, they would fail."""
        tasks: list[dict[str, Any]] = []
        for path in paths:
            self._number += 1
            tasks.append(
                {
                    "name": f"task {self._number}",
                    "callbackUrl": self._callee.url + path,
                    "timeoutSeconds": 600,
                    "retryPolicy": {"maxAttempts": 1},
                }
            )
        with Connection(server.url) as connection:
            answer = await connection.ask(request("POST", f"{API}/tasks/batch", {"tasks": tasks}))
        assert answer.status == 201, answer
        task_ids = [str(accepted["taskId"]) for accepted in answer.json()["tasks"]]
        names = [task["name"] for task in tasks]
        self.history.accepted |= dict(zip(names, task_ids, strict=True))
        return task_ids

    async def _stalled(self) -> int:
        """How many watchers keep the server waiting, as soon as most of them do. On a slow machine
        it may have dropped some by then."""
        with trio.move_on_after(STALLED_WITHIN_S):
            while held_up(self._port) < STALLED:  # noqa: ASYNC110 - another process
                await trio.sleep(0.01)
        return held_up(self._port)

    async def _until_in_flight(self, count: int) -> None:
        with Connection(self._callee.url) as connection, trio.fail_after(WAIT_S):
            while (await get(connection, "/_calls?counts=0"))["inFlight"] < count:  # noqa: ASYNC110 - another process
                await trio.sleep(0.01)


@click.command()
@click.option("--rounds", default=50, show_default=True, type=click.IntRange(min=1))
@click.option("--record", is_flag=True, help="Keep the lines for the table of bars.")
def command(rounds: int, record: bool) -> None:
    """SIGTERM with callbacks in flight and watchers that never read. Exit 1 if anything was lost,
    repeated or late."""
    again = asked("drain", rounds)
    with bars.told(BAR, f"{rounds} × SIGTERM", again, record=record):
        done = run_in_new_place("drain", partial(drain, rounds=rounds))
        tell(done.report.quote())
        problems = [*done.problems(), *done.problems_of_a_slow_machine()]
        held = not (done.report.breaches or problems)
        bars.say(
            bars.Seen(
                bar=BAR,
                tried=f"{rounds} × SIGTERM with {EXECUTORS} callbacks in flight and at least"
                f" {min(done.held_up)} stalled watchers, grace {GRACE_S:g} s; once with a callback"
                " that never ends; once SIGTERM twice",
                seen="; ".join([str(done), *problems]),
                held=held,
                command=again,
            ),
            record=record,
        )
    sys.exit(0 if held else 1)
