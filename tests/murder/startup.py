"""SIGKILL with callbacks in flight and a deep queue: how soon does the next server go on with them?"""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import attrs
import click
import trio

from benchmarks.driver.wire import called_for
from benchmarks.load import Connection, request
from benchmarks.seed import seed
from engine.core.task import ErrorClass, Status
from tests import bars
from tests.murder.history import Found
from tests.murder.progress import run_in_new_place, tell
from tests.murder.survey import API, get, survey
from tests.murder.target import DATABASE, integrity, open_server
from tests.support.raw_server import Connection as Caller, answer, raw_server
from tests.support.server import ServerProcess

BAR: Final = "start-up recovery"
IN_FLIGHT: Final = 100
READY_S: Final = 3.0
FIRST_CALL_S: Final = 1.0
SHOWN: Final = 5  # faults that are quoted
WAIT_S: Final = 60.0  # for what has no time to keep here
NOWHERE: Final = "http://127.0.0.1:9/"  # nobody takes what is queued behind
OPTIONS: Final = ("--executors", str(IN_FLIGHT), "--log-level", "error")
_attempt = re.compile(rb"\r\nx-task-attempt: *(\d+)", re.IGNORECASE).search


@attrs.frozen
class Start:
    """A start after a kill, in seconds."""

    ready_s: float  # from the start of the process until it said that it is ready
    first_call_s: float  # from there to the first callback that was made again; 0 if it came before


@attrs.frozen
class Startup:
    """What came of a run."""

    tasks: int  # accepted, at the last kill
    starts: list[Start]
    called_again: int  # of those that were in flight at a kill
    wrong: list[str]  # what is lost, unexpected, or not as it has to be in the end
    integrity: str  # what SQLite says of the file in the end

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost and all went on, whatever the time it took."""
        all_again = self.called_again == len(self.starts) * IN_FLIGHT
        return not self.wrong and all_again and self.integrity == "ok"

    @property
    def ready_s(self) -> float:
        """The longest of all starts."""
        return max(start.ready_s for start in self.starts)

    @property
    def first_call_s(self) -> float:
        """The longest of all starts."""
        return max(start.first_call_s for start in self.starts)

    @property
    def in_time(self) -> bool:
        return self.ready_s <= READY_S and self.first_call_s <= FIRST_CALL_S

    def sentence(self) -> str:
        """What was seen, for one line."""
        lost = sum(line.startswith("lost") for line in self.wrong)
        return (
            f"ready after at most {self.ready_s:.2f} s, the first of them called again at most"
            f" {self.first_call_s:.2f} s later; {self.called_again} of"
            f" {len(self.starts) * IN_FLIGHT} called again, {lost} lost,"
            f" {len(self.wrong) - lost} other faults; integrity: {self.integrity}"
        )


class _Callee:
    """Holds first attempts until their server is dead, and answers all others at once."""

    def __init__(self) -> None:
        self.first: set[str] = set()  # tasks whose first attempt was called
        self.again: dict[str, float] = {}  # when the second one was
        self._killed = trio.Event()

    async def answer(self, caller: Caller) -> None:
        while (seen := await caller.request()) is not None:
            task_id, found = called_for(seen.head).decode(), _attempt(seen.head)
            assert found is not None, seen.head
            if int(found[1]) == 1:
                self.first.add(task_id)
                await self._killed.wait()
                return
            self.again.setdefault(task_id, perf_counter())
            await caller.send(answer())

    def let_go(self) -> None:
        """The server that made them is dead."""
        self._killed.set()
        self._killed = trio.Event()


async def startup(place: Path, tasks: int, rounds: int) -> Startup:
    """Kill it so often with so many tasks, the last 100 of them in flight; look at all of them."""
    queued = await seed(f"sqlite:///{place / DATABASE}", NOWHERE, range(tasks - IN_FLIGHT))
    tell(f"{len(queued):,} tasks queued")
    callee, starts = _Callee(), list[Start]()
    async with raw_server(callee.answer) as listening:
        for number in range(1, rounds + 1):
            async with open_server(place, *OPTIONS) as server:
                held = await _put_in_flight(server, callee, listening.port)
                await trio.to_thread.run_sync(server.kill)
            callee.let_go()
            starts.append(await _start_again(place, callee, held))
            tell(f"kill {number}/{rounds}: {starts[-1]}")
        async with open_server(place, *OPTIONS) as server:
            found = await survey(server.url, [])
    return Startup(
        tasks=len(queued) + len(callee.first),
        starts=starts,
        called_again=len(callee.first & callee.again.keys()),
        wrong=wrong(found, set(queued), callee.first),
        integrity=integrity(place / DATABASE),
    )


async def _put_in_flight(server: ServerProcess, callee: _Callee, port: int) -> set[str]:
    """Create tasks, and wait until each is being called and the server says so. Their ids."""
    tasks: list[dict[str, Any]] = [
        {
            "name": f"in flight {number}",
            "callbackUrl": f"http://127.0.0.1:{port}/",
            "dispatch": "auto",
            "timeoutSeconds": 600,  # no start may wait for the end of a lease
        }
        for number in range(IN_FLIGHT)
    ]
    with Connection(server.url) as connection, trio.fail_after(WAIT_S):
        answered = await connection.ask(request("POST", f"{API}/tasks/batch", {"tasks": tasks}))
        assert answered.status == 201, answered
        created = {str(task["taskId"]) for task in answered.json()["tasks"]}
        while not created <= callee.first:  # noqa: ASYNC110 - another process calls
            await trio.sleep(0.01)
        counts = (await get(connection, f"{API}/stats"))["counts"]
    assert counts[Status.PROCESSING] == IN_FLIGHT, counts
    return created


async def _start_again(place: Path, callee: _Callee, held: set[str]) -> Start:
    """The start after the kill; wait until all that was in flight is done, and stop as one should."""
    began = perf_counter()
    async with open_server(place, *OPTIONS) as server:
        with Connection(server.url) as connection, trio.fail_after(WAIT_S):
            while (await connection.ask(request("GET", "/readyz"))).status != 200:  # noqa: ASYNC110
                await trio.sleep(0.005)
            ready = perf_counter()
            while not held <= callee.again.keys():  # noqa: ASYNC110 - another process calls
                await trio.sleep(0.02)
            while (await get(connection, f"{API}/stats"))["counts"].get(Status.PROCESSING):  # noqa: ASYNC110
                await trio.sleep(0.02)
    first = min(callee.again[task_id] for task_id in held)
    return Start(ready_s=ready - began, first_call_s=max(0.0, first - ready))


def wrong(found: Found, queued: set[str], called: set[str]) -> list[str]:
    """What is not as it has to be: what is queued still is, what was in flight is Completed by a
    second attempt, the first having been lost at no cost; and there is nothing else."""
    tasks = {task.id: task for task in found.tasks}
    said = [f"lost: {task_id}" for task_id in sorted((queued | called) - tasks.keys())]
    said += [f"unexpected: {task_id}" for task_id in sorted(tasks.keys() - queued - called)]
    said += [
        f"not as it was: {tasks[task_id]}"
        for task_id in sorted(queued & tasks.keys())
        if (tasks[task_id].status, tasks[task_id].attempt) != (Status.QUEUED, 0)
    ]
    for task_id in sorted(called & tasks.keys()):
        log = found.attempts.get(task_id, [])
        attempts = [(one.error_class, one.counted) for one in log]
        if tasks[task_id].status is not Status.COMPLETED or attempts != _TWO_ATTEMPTS:
            said.append(f"not Completed by its second attempt: {tasks[task_id]}, {log}")
    return said


_TWO_ATTEMPTS: Final = [(ErrorClass.LOST, False), (None, True)]


@click.command()
@click.option("--tasks", default=100_000, show_default=True, type=click.IntRange(min=IN_FLIGHT))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--record", is_flag=True, help="Keep the line for the table of bars.")
def command(tasks: int, rounds: int, record: bool) -> None:
    """SIGKILL with callbacks in flight and a deep queue. Exit 1 if anything was lost, or the next
    server was late to go on."""
    tried = f"{rounds} × SIGKILL with {tasks:,} tasks, {IN_FLIGHT} of them being called"
    again = f"python -m tests.murder startup --tasks {tasks} --rounds {rounds}"
    with bars.told(BAR, tried, again, record=record):
        done = run_in_new_place("startup", partial(startup, tasks=tasks, rounds=rounds))
        tell("\n".join(done.wrong[:SHOWN]))
        held = done.is_whole and done.in_time
        seen = bars.Seen(bar=BAR, tried=tried, seen=done.sentence(), held=held, command=again)
        bars.say(seen, record=record)
    sys.exit(0 if held else 1)
