"""A task whose callback kills the server: it is parked, and the others do not suffer for it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import click
import trio

from benchmarks.load import Connection, CutOffError, request
from tests import bars
from tests.murder.progress import run_in_new_place, tell
from tests.murder.survey import API, get
from tests.murder.target import CALLEE_FAILS, free_port
from tests.support.raw_server import Connection as Caller, answer, raw_server
from tests.support.server import environment

COMMAND: Final = "python -m tests.murder poison"
RECOVERIES_MAX: Final = 4
OTHERS: Final = 100
CALL_S: Final = 0.1  # of the others: some are in flight whenever the server dies
STARTS_MAX: Final = 20
WAIT_S: Final = 60.0  # for a server to come up, and for all tasks to end


@attrs.frozen
class Poisoned:
    """What came of a run."""

    kills: int  # calls of the poisoned task, each of which killed the server
    status: str  # of the poisoned task
    reason: str
    others: Counter[str]  # the other tasks by status

    @property
    def held(self) -> bool:
        parked = self.status == "Failed" and f"{RECOVERIES_MAX} attempts in a row" in self.reason
        return parked and self.kills == RECOVERIES_MAX and self.others == {"Completed": OTHERS}


class _Callee:
    """Answers after a while; but the path ``/kill`` kills the server that runs then."""

    def __init__(self) -> None:
        self.server: subprocess.Popen[bytes] | None = None
        self.kills = 0

    async def answer(self, caller: Caller) -> None:
        while (seen := await caller.request()) is not None:
            if seen.head.startswith(b"POST /kill") and self.server is not None:
                self.kills += 1
                self.server.kill()
                return
            await trio.sleep(CALL_S)
            await caller.send(answer())


async def poison(place: Path, executors: int) -> Poisoned:
    """Start the server as often as it is killed, until everything has ended."""
    callee, port = _Callee(), free_port()
    task_ids: list[str] = []
    async with raw_server(callee.answer) as listening:
        for start in range(1, STARTS_MAX + 1):
            with _server(place, port, callee, executors):
                try:
                    with Connection(f"http://127.0.0.1:{port}") as connection:
                        await _until_ready(connection, callee)
                        task_ids = task_ids or await _create(connection, listening.port)
                        with trio.fail_after(WAIT_S):
                            return await _result(connection, callee, task_ids)
                except CutOffError:
                    tell(f"start {start}: killed by the callback")
    raise AssertionError(f"the server was started {STARTS_MAX} times, and killed each time")


@contextmanager
def _server(place: Path, port: int, callee: _Callee, executors: int) -> Iterator[None]:
    """A server, which the callee may kill at once: also before it says that it is ready."""
    options = ["--dispatch", "auto", "--recoveries-max", str(RECOVERIES_MAX), *CALLEE_FAILS]
    options += [
        "--executors",
        str(executors),
        "--port",
        str(port),
        "--database",
        f"sqlite:///{place}/ringback.db",
    ]
    with (place / "server.err").open("ab") as err:
        callee.server = subprocess.Popen(
            [sys.executable, "-m", "web", "serve", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err,
            env=environment(),
        )
    try:
        yield
    finally:
        callee.server.kill()
        callee.server.wait()


async def _until_ready(connection: Connection, callee: _Callee) -> None:
    """Raises ``CutOffError`` if it dies before."""
    with trio.fail_after(WAIT_S):
        while True:
            try:
                await get(connection, "/readyz")
            except CutOffError:
                if callee.server is None or callee.server.poll() is not None:
                    raise
                await trio.sleep(0.02)
            else:
                return


async def _create(connection: Connection, port: int) -> list[str]:
    """The ids of all tasks, of the poisoned one first. Others come before it and behind it."""
    paths = ["/other"] * OTHERS
    paths.insert(OTHERS // 10, "/kill")
    tasks: list[dict[str, Any]] = [
        {"name": path, "callbackUrl": f"http://127.0.0.1:{port}{path}"} for path in paths
    ]
    answered = await connection.ask(request("POST", f"{API}/tasks/batch", {"tasks": tasks}))
    assert answered.status == 201, answered
    task_ids = [task["taskId"] for task in answered.json()["tasks"]]
    return [task_ids.pop(OTHERS // 10), *task_ids]


async def _result(connection: Connection, callee: _Callee, task_ids: list[str]) -> Poisoned:
    """What has become of them, when all have ended. Raises ``CutOffError`` if the server dies."""
    ended = 0
    while ended < len(task_ids):
        await trio.sleep(0.05)
        counts = (await get(connection, f"{API}/stats"))["counts"]
        ended = sum(counts.get(status, 0) for status in ("Completed", "Failed", "Cancelled"))
    poisoned, *others = [await get(connection, f"{API}/tasks/{each}") for each in task_ids]
    return Poisoned(
        kills=callee.kills,
        status=poisoned["status"],
        reason=poisoned["reason"] or "",
        others=Counter(task["status"] for task in others),
    )


@click.command()
@click.option("--record", is_flag=True, help="Keep the lines for the table of bars.")
def command(record: bool) -> None:
    """A task whose callback kills the server. Exit 1 if it is not parked, or others suffered."""
    held = True
    for bar, executors in (("crash poison, alone", 1), ("crash poison, others in flight", 100)):
        tried = f"a callback that kills the server among {OTHERS} others, {executors} executors"
        with bars.told(bar, tried, COMMAND, record=record):
            done = run_in_new_place("poison", partial(poison, executors=executors))
            others = ", ".join(f"{count} {status}" for status, count in done.others.items())
            said = f"{done.status} after {done.kills} kills ({done.reason}); others: {others}"
            seen = bars.Seen(bar=bar, tried=tried, seen=said, held=done.held, command=COMMAND)
            bars.say(seen, record=record)
        held = held and done.held
    sys.exit(0 if held else 1)
