"""Cancelling a call in flight: the real server, callees that can tell when their connection ends."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from benchmarks.load import Connection as PlainConnection, request
from engine.core.lifecycle import ENDED
from tests.support.callees import (
    UNTIL_CLOSE,
    Callee,
    endless,
    hang,
    keeps_saying,
    never_reads,
    open_callee,
)
from tests.support.raw_server import Connection, Script, answer
from tests.support.server import ServerProcess, running_server
from web.receiver import open_receiver

pytestmark = pytest.mark.slow

SOON_S = 30.0  # far less than what the calls would take by themselves


class Api:
    """A client of one server."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client, self.url = client, url

    async def create(self, callback_url: str, **fields: Any) -> str:
        body = {"name": "cancelled", "callbackUrl": callback_url, "timeoutSeconds": 600, **fields}
        answer = await self._client.post("/tasks", json=body)
        assert answer.status_code == 201, answer.text
        task_id: str = answer.json()["taskId"]
        return task_id

    async def cancel(self, task_id: str, query: str = "?inFlight=true") -> httpx.Response:
        return await self._client.delete(f"/tasks/{task_id}{query}")

    async def task(self, task_id: str) -> Any:
        return (await self._client.get(f"/tasks/{task_id}")).json()

    async def attempts(self, task_id: str) -> Any:
        return (await self._client.get(f"/tasks/{task_id}/attempts")).json()["attempts"]

    async def path(self, task_id: str) -> list[str]:
        events = (await self._client.get(f"/tasks/{task_id}/events")).json()["events"]
        return [event["to"] for event in events]

    async def stats(self) -> Any:
        return (await self._client.get("/stats")).json()

    async def until(self, task_id: str, *statuses: str) -> None:
        async def reached() -> bool:
            return (await self.task(task_id))["status"] in statuses

        await soon(reached)


async def soon(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds; what we wait for happens in another process."""
    with trio.fail_after(SOON_S):
        while not await holds():  # noqa: ASYNC110
            await trio.sleep(0.01)


def arguments(executors: int) -> list[str]:
    return ["--dispatch", "auto", "--executors", str(executors), "--connect-timeout", "60"]


@asynccontextmanager
async def client_of(process: ServerProcess) -> AsyncIterator[Api]:
    url, limits = f"{process.url}/api/v1", httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=url, timeout=10.0, limits=limits) as client:
        yield Api(client, process.url)


@pytest.fixture(scope="module")
def one_executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with one executor. Each test leaves it idle, or the next one finds that out."""
    with running_server(tmp_path_factory.mktemp("one"), *arguments(1)) as process:
        yield process


@asynccontextmanager
async def server(place: Path, executors: int) -> AsyncIterator[Api]:
    """The real server, started and stopped without holding up the callees in this process."""
    manager = running_server(place, *arguments(executors))
    process = await trio.to_thread.run_sync(manager.__enter__)
    try:
        async with client_of(process) as api:
            yield api
    finally:
        with trio.CancelScope(shield=True):
            if process.exit_code is None:
                await trio.to_thread.run_sync(process.stop)
            manager.__exit__(None, None, None)


@attrs.frozen
class Phase:
    """Where in its way a call is when it is cut off."""

    script: Script | None
    scheme: str = "http"
    payload: Any = None


PHASES = {
    "connecting": Phase(None),
    "in the TLS handshake": Phase(never_reads, "https"),
    "sending": Phase(never_reads, payload="x" * 900_000),
    "waiting for the head": Phase(hang),
    "in the head": Phase(endless(b"HTTP/1.1 200 OK\r\nA: ", b"x", pause_s=0.02)),
    "in the body": Phase(endless(UNTIL_CLOSE, b"x", pause_s=0.02)),
}


async def begin(callee: Callee, phase: Phase) -> None:
    if phase.script is None:
        await callee.fill()
    else:
        callee.script, callee.scheme = phase.script, phase.scheme
        await callee.serve()


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
async def test_a_call_is_cut_off_wherever_it_is_and_its_only_executor_goes_on(
    phase: Phase, one_executor: ServerProcess
) -> None:
    async with open_callee(None) as callee, open_receiver() as good, client_of(one_executor) as api:
        await begin(callee, phase)
        task_id = await api.create(callee.url(), payload=phase.payload)
        waiting = await api.create(f"{good.url}/good")
        await api.until(task_id, "Processing")
        if phase.script is not None:
            await soon(partial(_connected, callee, 1))
        await trio.sleep(0.1)  # into the phase
        refused = await api.cancel(task_id, "")
        assert (refused.status_code, refused.json()["allowed"]) == (409, ["cancel in flight"])

        assert (await api.cancel(task_id)).status_code == 204

        assert (await api.task(task_id))["status"] == "Cancelled"
        if phase.script not in (None, never_reads):  # one that does not read cannot notice
            await soon(partial(_connected, callee, 0))
        await api.until(waiting, "Completed")
        (attempt,) = await api.attempts(task_id)
        assert attempt["result"]["errorClass"] == "cancelled"
        assert not attempt["counted"]
        assert await api.path(task_id) == ["Queued", "Pending", "Processing", "Cancelled"]
        assert (await api.cancel(task_id)).status_code == 409
        stats = await api.stats()
        assert (stats["executorsBusy"], stats["lateResults"]) == (0, 0)


async def _connected(callee: Callee, number: int) -> bool:
    await trio.lowlevel.checkpoint()
    return callee.open_connections == number


async def test_the_callee_sees_its_connection_end(one_executor: ServerProcess) -> None:
    """Not kept for later, not left to a time limit: what it reads next is the end."""
    began, ended = trio.Event(), trio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        began.set()
        with suppress(trio.BrokenResourceError):  # a reset will do
            assert await connection.request() is None
        ended.set()

    async with open_callee(script) as callee, client_of(one_executor) as api:
        task_id = await api.create(callee.url())
        with trio.fail_after(SOON_S):
            await began.wait()
            assert (await api.cancel(task_id)).status_code == 204
            await ended.wait()


async def test_a_cancel_that_races_with_the_answer_gives_exactly_one_end(tmp_path: Path) -> None:
    """Whoever comes first: 204 means Cancelled and stays so, 409 means that the answer was first."""
    chance = random.Random(20260102)
    said: dict[str, int] = {}

    async def answers_sooner_or_later(connection: Connection) -> None:
        while await connection.request():
            await trio.sleep(chance.uniform(0.0, 0.03))
            await connection.send(answer(b"done"))

    async def race(api: Api, url: str) -> None:
        for _ in range(25):
            task_id = await api.create(url)
            await trio.sleep(chance.uniform(0.0, 0.04))
            said[task_id] = (await api.cancel(task_id)).status_code

    async with open_callee(answers_sooner_or_later) as callee, server(tmp_path, 8) as api:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(race, api, callee.url())
        await soon(partial(_idle, api))
        ends: Counter[tuple[int, str]] = Counter()
        async with trio.open_nursery() as nursery:
            some = list(said.items())
            for first in range(8):
                nursery.start_soon(_check_ends, api.url, some[first::8], ends)
        assert ends.total() == len(said) == 200
        assert set(ends) == {(204, "Cancelled"), (409, "Completed")}, ends
        callee.become(keeps_saying(answer()))
        await api.until(await api.create(callee.url()), "Completed")


async def _check_ends(
    url: str, said: list[tuple[str, int]], ends: Counter[tuple[int, str]]
) -> None:
    """Each of these tasks has one end, and an attempt that says the same. There are many questions:
    the client of the benchmarks asks them at less cost."""
    with PlainConnection(url) as connection:

        async def ask(target: str) -> Any:
            return (await connection.ask(request("GET", f"/api/v1/tasks/{target}"))).json()

        for task_id, status_code in said:
            task, events = await ask(task_id), (await ask(f"{task_id}/events"))["events"]
            path = [event["to"] for event in events]
            assert [status for status in path if status in ENDED] == [task["status"]]
            attempts = (await ask(f"{task_id}/attempts"))["attempts"]
            classes = [one["result"]["errorClass"] for one in attempts]
            never_began = "Processing" not in path
            cut = task["status"] == "Cancelled"
            assert classes == ([] if never_began else ["cancelled" if cut else None])
            ends[status_code, task["status"]] += 1


async def _idle(api: Api) -> bool:
    return bool((await api.stats())["executorsBusy"] == 0)
