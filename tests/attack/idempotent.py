"""Idempotent creates: every key is sent ten times at once, by clients that lose their connections and
try again, while the server is killed. There is one task for each key, and all are told the same one."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs
import click
import trio

from benchmarks.load import CutOffError, Request, ask_once, request
from tests.attack.verdict import RECORD, Came, claims, conclude, progress
from tests.support.server import ServerProcess, running_server

BAR: Final = "idempotent create"
KEYS: Final = 1_000
TOGETHER: Final = 10
AT_ONCE: Final = 30  # keys, of which each has TOGETHER connections
DROPPED: Final = 0.4  # of the requests lose their connection
TRIES: Final = 400
PAUSE_S: Final = 0.1
CONFLICTS: Final = 100
CREATE: Final = "/api/v1/tasks"


@attrs.define
class Sent:
    """What the clients met."""

    answers: dict[str, set[str]] = attrs.field(factory=dict)  # by key: the tasks it was told
    answered: int = 0
    dropped: int = 0
    repeated: int = 0  # after no answer, or a 503
    odd: list[str] = attrs.field(factory=list)
    total: int = 0  # tasks that there are in the end
    conflicts: list[int] = attrs.field(factory=list)

    def misses(self, keys: int) -> list[str]:
        several = [key for key, tasks in self.answers.items() if len(tasks) != 1]
        distinct = len({task for tasks in self.answers.values() for task in tasks})
        wrong = [status for status in self.conflicts if status != 422]
        found = {
            f"{self.total} tasks for {keys} keys": self.total != keys,
            f"{distinct} tasks told": distinct != keys,
            f"several tasks for {several[:3]}": several,
            f"{self.answered} of {keys * TOGETHER} clients answered": self.answered
            != keys * TOGETHER,
            f"{self.odd[:3]}": self.odd,
            f"another body: {wrong[:3]}": wrong or not self.conflicts,
            "nothing was dropped": not self.dropped,
        }
        return [what for what, is_so in found.items() if is_so]


async def attack(keys: int = KEYS) -> Came:
    """So many keys."""
    sent = await run(keys)
    return Came(
        tried=f"{keys:,} keys, each by {TOGETHER} clients at once; {sent.dropped:,} connections dropped, "
        f"{sent.repeated:,} requests repeated, kill -9 in the middle",
        seen=f"{sent.total:,} tasks; all {sent.answered:,} clients were told the one of their key; "
        f"another body: 422 ×{sent.conflicts.count(422)}",
        misses=sent.misses(keys),
    )


async def run(keys: int, seed: int = 1) -> Sent:
    """All keys; when half of the clients have their answer, the server is killed and started."""
    sent, chance = Sent(), random.Random(seed)
    half, through = trio.Event(), trio.Event()
    with tempfile.TemporaryDirectory(prefix="ringback-keys-") as directory:
        place = Path(directory)
        async with trio.open_nursery() as nursery:
            async with _server(place, 0) as server:
                port = server.port
                nursery.start_soon(_all_keys, server.url, keys, chance, sent, half, through)
                await half.wait()
                await trio.to_thread.run_sync(server.kill)
            progress(f"killed: {sent.answered:,} clients were answered until then")
            async with _server(place, port) as server:
                await through.wait()
                await _look(server.url, keys, sent)
    return sent


async def _look(url: str, keys: int, sent: Sent) -> None:
    for number in range(min(keys, CONFLICTS)):
        answer = await ask_once(url, _create(number, payload="another"))
        sent.conflicts.append(answer.status)
    page = await ask_once(url, request("GET", f"{CREATE}?size=1"))
    sent.total = page.json()["totalCount"]


@asynccontextmanager
async def _server(place: Path, port: int) -> AsyncIterator[ServerProcess]:
    """The real server, started and stopped without holding up the clients in this process."""
    manager = running_server(place, "--grace", "1", port=port)
    server = await trio.to_thread.run_sync(manager.__enter__)
    try:
        yield server
    finally:
        with trio.CancelScope(shield=True):
            if server.exit_code is None:
                await trio.to_thread.run_sync(server.stop)
            manager.__exit__(None, None, None)


async def _all_keys(
    url: str,
    keys: int,
    chance: random.Random,
    sent: Sent,
    half: trio.Event,
    through: trio.Event,
) -> None:
    room = trio.CapacityLimiter(AT_ONCE)

    async def one_key(number: int) -> None:
        async with room:
            async with trio.open_nursery() as clients:
                for _ in range(TOGETHER):
                    clients.start_soon(_client, url, number, chance, sent)
            if sent.answered >= keys * TOGETHER // 2:
                half.set()

    async with trio.open_nursery() as nursery:
        for number in range(keys):
            nursery.start_soon(one_key, number)
    half.set()
    through.set()


async def _client(url: str, number: int, chance: random.Random, sent: Sent) -> None:
    """Ask until there is an answer."""
    create = _create(number)
    for _ in range(TRIES):
        if chance.random() < DROPPED:
            sent.dropped += 1
            await _drop(url, create, chance.random())
            continue
        try:
            answer = await ask_once(url, create)
        except (CutOffError, OSError):
            sent.repeated += 1
            await trio.sleep(PAUSE_S)
            continue
        if answer.status == 201:
            sent.answers.setdefault(_key(number), set()).add(answer.json()["taskId"])
            sent.answered += 1
            return
        if answer.status != 503:
            sent.odd.append(f"{answer.status} {answer.body[:200]!r}")
            return
        sent.repeated += 1
        await trio.sleep(PAUSE_S)
    sent.odd.append(f"key {number}: no answer after {TRIES} tries")


async def _drop(url: str, create: Request, part: float) -> None:
    """Send some of the request or all of it, and leave before the answer can be there."""
    host, _, port = url.removeprefix("http://").partition(":")
    data = create.head + f"host: {host}:{port}\r\n\r\n".encode() + create.body
    with suppress(OSError, trio.BrokenResourceError):
        stream = await trio.open_tcp_stream(host, int(port))
        try:
            await stream.send_all(data if part > 0.5 else data[: int(len(data) * part * 2)])
        finally:
            stream.socket.close()
        return
    await trio.sleep(PAUSE_S)


def _key(number: int) -> str:
    return f"order-{number}"


def _create(number: int, payload: str = "the one") -> Request:
    body: dict[str, Any] = {"name": _key(number), "callbackUrl": "http://127.0.0.1:9/"}
    return request("POST", CREATE, {**body, "payload": payload}, {"Idempotency-Key": _key(number)})


@click.command()
@click.option("--keys", default=KEYS, show_default=True)
@RECORD
def command(*, keys: int, record: bool) -> NoReturn:
    """Send each of many keys ten times at once, with losses."""
    claims(record=record, keys=(keys, KEYS))
    conclude(BAR, f"idempotent --keys {keys}", partial(attack, keys), record=record)
