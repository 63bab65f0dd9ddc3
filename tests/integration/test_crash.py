"""The real server is killed and stopped in the middle of work: what it accepted is never lost,
never stuck, and repeated only where an attempt was under way."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from engine.adapters.storage import open_store
from engine.core.lifecycle import ENDED
from engine.core.queries import TaskQuery
from engine.core.task import Attempt, ErrorClass, Event, Status, Task
from tests.support.server import ServerProcess, running_server
from web.receiver import Receiver, open_receiver

pytestmark = pytest.mark.slow

EXECUTORS = 10


@asynccontextmanager
async def server(place: Path, *options: str) -> AsyncIterator[ServerProcess]:
    """The server, started and stopped without holding up the callee in this process."""
    arguments = ("--dispatch", "auto", "--executors", str(EXECUTORS), *options)
    # The callee fails on purpose and is to be tried again at once: no breaker may ever open.
    arguments += ("--breaker-ratio", "2")
    manager = running_server(place, *arguments)
    process = await trio.to_thread.run_sync(manager.__enter__)
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            if process.exit_code is None:
                await trio.to_thread.run_sync(process.stop)
            manager.__exit__(None, None, None)


class Load:
    """Clients that create tasks, and remember which were accepted."""

    def __init__(self, receiver: Receiver) -> None:
        self.accepted: list[str] = []
        self._receiver = receiver
        self._number = 0

    async def client(self, url: str) -> None:
        """Create tasks until the server is gone."""
        paths = ("/good", "/slow?ms=30", "/flaky?fails=1", "/slow?ms=100")
        async with httpx.AsyncClient(base_url=url, timeout=10.0) as client:
            while True:
                self._number += 1
                path = paths[self._number % len(paths)]
                try:
                    await self.create(client, path)
                except httpx.TransportError:
                    return

    async def create(self, client: httpx.AsyncClient, path: str, **fields: Any) -> str:
        answer = await client.post(
            "/api/v1/tasks",
            json={
                "name": f"task {self._number}",
                "callbackUrl": self._receiver.url + path,
                "retryPolicy": {"maxAttempts": 5, "initialIntervalSeconds": 0.1},
                **fields,
            },
        )
        assert answer.status_code in (201, 429, 503), answer.text
        task_id: str = answer.json().get("taskId", "")
        if answer.status_code == 201:
            self.accepted.append(task_id)
        return task_id


@attrs.frozen
class Books:
    """All that a stopped server's database holds."""

    tasks: dict[str, Task]
    attempts: dict[str, list[Attempt]]
    events: list[Event]


async def read_books(place: Path) -> Books:
    async with open_store(f"sqlite:///{place}/ringback.db") as store:
        tasks = {task.id: task for task in await store.tasks(TaskQuery(), 100_000)}
        attempts = {task_id: await store.attempts(task_id) for task_id in tasks}
        events: list[Event] = []
        while page := await store.events(len(events), 1_000):
            events += page
    return Books(tasks, attempts, events)


def check_books(books: Books, receiver: Receiver, accepted: list[str]) -> None:
    assert set(accepted) <= books.tasks.keys(), "an accepted task is lost"
    assert [event.seq for event in books.events] == list(range(1, len(books.events) + 1))
    last = {event.task_id: event.to_status for event in books.events}
    assert last == {task_id: task.status for task_id, task in books.tasks.items()}
    for task_id, attempts in books.attempts.items():
        assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
        calls = Counter(call.attempt for call in receiver.calls(task_id))
        assert set(calls.values()) <= {1}, "an attempt's number was used for two calls"
        assert set(calls) <= {attempt.number for attempt in attempts}


async def until_ended(url: str, number: int, within_s: float) -> None:
    """Wait until at least so many tasks have ended, and none is on its way."""
    async with httpx.AsyncClient(base_url=url, timeout=10.0) as client:
        with trio.fail_after(within_s):
            while True:
                counts = (await client.get("/api/v1/stats")).json()["counts"]
                ended = sum(counts.get(status.value, 0) for status in ENDED)
                if ended >= number and ended == sum(counts.values()):
                    return
                await trio.sleep(0.1)


async def test_a_server_that_is_killed_under_load_loses_nothing_it_accepted(tmp_path):
    chance = random.Random(20260102)
    kills = 4
    async with open_receiver() as receiver:
        load = Load(receiver)
        for _ in range(kills):
            async with server(tmp_path, "--recoveries-max", "10") as process:
                async with trio.open_nursery() as nursery:
                    for _ in range(4):
                        nursery.start_soon(load.client, process.url)
                    await trio.sleep(chance.uniform(0.3, 1.0))
                    await trio.to_thread.run_sync(process.kill)
        async with server(tmp_path, "--recoveries-max", "10") as process:
            await until_ended(process.url, len(load.accepted), within_s=30.0)
        assert process.exit_code == 0
        books = await read_books(tmp_path)
        check_books(books, receiver, load.accepted)
    assert len(load.accepted) > 20
    assert {task.status for task in books.tasks.values()} == {Status.COMPLETED}
    lost = 0
    for task_id, attempts in books.attempts.items():
        *earlier, final = attempts
        assert final.result.error_class is None
        lost += sum(attempt.result.error_class is ErrorClass.LOST for attempt in earlier)
        # Whatever was called before the last time was either lost in a kill or answered badly.
        reasons = {attempt.result.error_class for attempt in earlier}
        assert reasons <= {ErrorClass.LOST, ErrorClass.HTTP_STATUS}, task_id
        if "flaky" not in books.tasks[task_id].spec.callback_url:
            assert reasons <= {ErrorClass.LOST}, task_id
    assert lost <= kills * EXECUTORS


async def test_a_server_that_is_told_to_stop_drains(tmp_path):
    async with open_receiver() as receiver:
        load = Load(receiver)
        async with server(tmp_path, "--grace", "2") as process:
            async with httpx.AsyncClient(base_url=process.url, timeout=10.0) as client:
                short = [await load.create(client, "/slow?ms=1200") for _ in range(EXECUTORS - 2)]
                long = [await load.create(client, "/slow?ms=6000") for _ in range(2)]
                queued = [await load.create(client, "/good") for _ in range(5)]
                with trio.fail_after(10):
                    while receiver.in_flight < EXECUTORS:  # noqa: ASYNC110 - not ours to signal
                        await trio.sleep(0.01)
            began = trio.current_time()
            assert await trio.to_thread.run_sync(process.stop) == 0
            assert trio.current_time() - began < 6.0
        books = await read_books(tmp_path)
        check_books(books, receiver, load.accepted)
        found = partial(statuses, books)
        assert found(short) == {Status.COMPLETED}
        assert found(long) == {Status.RETRYING}
        assert found(queued) <= {Status.QUEUED, Status.COMPLETED}
        for task_id in long:
            assert [attempt.counted for attempt in books.attempts[task_id]] == [False]
            assert books.tasks[task_id].failures == 0

        async with server(tmp_path) as process:
            await until_ended(process.url, len(load.accepted), within_s=30.0)
        assert process.exit_code == 0
        books = await read_books(tmp_path)
        check_books(books, receiver, load.accepted)
        assert statuses(books, load.accepted) == {Status.COMPLETED}
        assert [len(receiver.calls(i)) for i in short + queued] == [1] * len(short + queued)
        assert [len(receiver.calls(i)) for i in long] == [2, 2]


def statuses(books: Books, task_ids: list[str]) -> set[Status]:
    return {books.tasks[task_id].status for task_id in task_ids}
