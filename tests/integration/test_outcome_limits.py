"""What bad callees cost us: bounded memory, bounded time, and no attempt where it was our fault."""

from __future__ import annotations

import gzip
import json
import os
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.support.callees import UNTIL_CLOSE, endless, keeps_saying, open_callee
from tests.support.flood import EXECUTORS, TIMEOUT_S
from tests.support.raw_server import answer
from tests.support.server import ROOT, ServerProcess, environment, running_server
from web.receiver import open_receiver

pytestmark = pytest.mark.slow

BOMB = gzip.compress(b"\0" * 2**24) * 64  # 1 GiB of zeros in 1 MiB
PER_PORT = 5  # bad calls at one destination: fewer than open a circuit breaker
FLOOD = {
    "bombs": keeps_saying(answer(BOMB, 200, Content_Encoding="gzip")),
    "bodies": endless(UNTIL_CLOSE, b"x" * 10_000),
    "heads": endless(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 1000),
}


async def test_hundreds_of_bombs_and_endless_answers_at_once_cost_little_memory_and_time(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        urls: list[str] = []
        for script in FLOOD.values():
            for _ in range(EXECUTORS // PER_PORT):
                callee = await stack.enter_async_context(open_callee(script))
                urls += [callee.url()] * PER_PORT
        good = await stack.enter_async_context(open_receiver())
        done = await trio.run_process(
            [
                *(sys.executable, "-m", "tests.support.flood", f"sqlite:///{tmp_path}/flood.db"),
                *(good.url + "/slow?ms=200", *urls),
            ],
            cwd=ROOT,
            env=environment(),
            capture_stdout=True,
        )
        found = json.loads(done.stdout)
        assert found["outcomes"] == {
            "200": 2 * EXECUTORS,
            "200 truncated": 2 * EXECUTORS,
            "protocol": EXECUTORS,
        }
        assert found["longestS"] <= TIMEOUT_S + 1
        assert found["grownMiB"] <= 64
        assert good.peak_in_flight == EXECUTORS  # before, and after as well: see flood.py


# -- no descriptors ----------------------------------------------------------------------------


@asynccontextmanager
async def server(place: Path) -> AsyncIterator[ServerProcess]:
    """The real server, started and stopped without holding up the callee in this process."""
    manager = running_server(place, "--dispatch", "auto", "--executors", "4")
    process = await trio.to_thread.run_sync(manager.__enter__)
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            if process.exit_code is None:
                await trio.to_thread.run_sync(process.stop)
            manager.__exit__(None, None, None)


@asynccontextmanager
async def no_descriptors_left(pid: int) -> AsyncIterator[None]:
    """A process that cannot open anything more; what it has open stays so."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    next_free = next(number for number in count() if number not in used)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (next_free, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    await trio.lowlevel.checkpoint()


async def test_a_server_without_descriptors_loses_no_attempt_and_no_executor(
    tmp_path: Path,
) -> None:
    tasks = [
        {"name": "only once", "retryPolicy": {"maxAttempts": 1}, "callbackUrl": ""}
        for _ in range(8)
    ]
    async with (
        open_receiver() as receiver,
        server(tmp_path) as process,
        httpx.AsyncClient(base_url=f"{process.url}/api/v1", timeout=10.0) as client,
    ):
        await client.get("/stats")  # this connection stays open
        for task in tasks:
            task["callbackUrl"] = f"{receiver.url}/good"
        async with no_descriptors_left(process.process.pid):
            created = await client.post("/tasks/batch", json={"tasks": tasks})
            ids = [task["taskId"] for task in created.json()["tasks"]]
            for task_id in ids:
                waiting = await _until(client, task_id, lambda task: task["attempt"] >= 2)
                assert (waiting["attemptsUsed"], receiver.total) == (0, 0)
                assert waiting["callbackResult"]["errorClass"] == "shortage"
        for task_id in ids:
            task = await _until(client, task_id, lambda task: task["status"] == "Completed")
            assert task["attemptsUsed"] == 0
            log = (await client.get(f"/tasks/{task_id}/attempts")).json()["attempts"]
            assert [one["counted"] for one in log] == [False] * (len(log) - 1) + [True]
            assert {one["result"]["errorClass"] for one in log[:-1]} == {"shortage"}
            assert len(log) <= 30  # one a second, not as fast as it goes
        assert receiver.counts() == dict.fromkeys(ids, 1)


async def _until(client: httpx.AsyncClient, task_id: str, holds: Any) -> Any:
    with trio.fail_after(20):
        while True:
            task = (await client.get(f"/tasks/{task_id}")).json()
            if holds(task):
                return task
            await trio.sleep(0.05)
