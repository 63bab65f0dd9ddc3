"""Disconnect storm: thousands of clients that leave in the middle of whatever they asked for. What
was accepted must not be lost, nothing may be stuck, and every task's history must be legal."""

from __future__ import annotations

import json
import random
import socket
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, NoReturn

import attrs
import click
import trio

from benchmarks.load import Connection, CutOffError, Request, request
from engine.core.lifecycle import ENDED, TRANSITIONS
from tests.attack.bytes_websocket import SUBSCRIBE
from tests.attack.bytes_wire import HOST, upgrade
from tests.attack.target import Target, open_target
from tests.attack.verdict import RECORD, Came, conclude, progress

BAR: Final = "disconnect storm"
AT_ONCE: Final = 100
BATCH: Final = 20
PAUSE_MAX_S: Final = 0.05  # a client may stay a moment longer: the server is in the middle of it
CLIENT_S: Final = 15.0  # for all a client does
LEASE_S: Final = 3
DRIVERS: Final = 20  # of those who finish what is left
FINISH_S: Final = 90.0
READ_S: Final = 60.0
ACCEPTED_MIN: Final = 0.1  # tasks for each client; about four times as many are to be expected
TAIL_BYTES: Final = 200_000  # more than is received at once
LEGAL: Final = {(None, "Queued")} | {
    (str(start), str(end)) for start, row in TRANSITIONS.items() for end in row.values()
}
_WEIGHTS: Final = {
    "create": 35,
    "batch": 5,
    "dequeue": 20,
    "execute": 20,
    "cancel": 10,
    "watch": 10,
}


@attrs.define
class Books:
    """What the clients know. Who left early does not know what became of it."""

    accepted: set[str] = attrs.field(factory=set)
    asked: Counter[str] = attrs.field(factory=Counter)  # what, and how its client left
    statuses: Counter[str] = attrs.field(factory=Counter)  # of whole answers
    cut: Counter[str] = attrs.field(factory=Counter)  # who stayed and got no whole answer
    names: int = 0

    def note(self, kind: str, status: int, body: bytes) -> None:
        """A whole answer."""
        self.statuses[f"{kind} {status}"] += 1
        if status == 201:
            said = json.loads(body)
            self.accepted.update(one["taskId"] for one in said.get("tasks", [said]))


class Storm:
    """Clients that leave. Each is chosen by a seed and its number."""

    def __init__(self, target: Target, books: Books, seed: int) -> None:
        self._target = target
        self._books = books
        self._seed = seed

    async def client(self, number: int) -> None:
        """One client: asks for something, and leaves at some point of it."""
        chance = random.Random(f"{self._seed} {number}")
        (kind,) = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        asked = self._request(kind, chance)
        stays = asked is not None and chance.random() < 0.3
        with trio.move_on_after(CLIENT_S) as patience:
            if asked is not None and stays:
                await self._stay(kind, asked)
            else:
                whole = upgrade() + SUBSCRIBE if asked is None else _raw(asked)
                await self._leave(kind, whole, chance)
        if stays and patience.cancelled_caught:
            self._books.cut[f"{kind}: no answer after {CLIENT_S:g} s"] += 1

    def _request(self, kind: str, chance: random.Random) -> Request | None:
        """What it asks for; None to watch."""
        books = self._books
        if kind == "watch":
            return None
        if kind == "dequeue":
            return request("POST", "/api/v1/tasks/dequeue", None)
        if kind in ("execute", "cancel") and books.accepted:
            task_id = chance.choice(sorted(books.accepted)[-200:])
            path = f"/api/v1/tasks/{task_id}"
            if kind == "execute":
                return request("POST", f"{path}/execute", None)
            return request("DELETE", path + chance.choice(("", "?inFlight=true")), None)
        tasks = [self._task(chance) for _ in range(BATCH if kind == "batch" else 1)]
        if kind == "batch":
            return request("POST", "/api/v1/tasks/batch", {"tasks": tasks})
        return request("POST", "/api/v1/tasks", tasks[0])

    def _task(self, chance: random.Random) -> Mapping[str, Any]:
        self._books.names += 1
        return {
            "name": f"storm {self._books.names}",
            "callbackUrl": self._target.callback("/slow?ms=20"),
            "dispatch": chance.choice(("auto", "manual")),
        }

    async def _stay(self, kind: str, asked: Request) -> None:
        """Wait for the whole answer."""
        self._books.asked[f"{kind}, stayed"] += 1
        with Connection(self._target.url) as connection:
            try:
                answer = await connection.ask(asked)
            except CutOffError as cut:
                self._books.cut[f"{kind}: {cut}"] += 1
                return
        self._books.note(kind, answer.status, answer.body)

    async def _leave(self, kind: str, whole: bytes, chance: random.Random) -> None:
        """Say all of it or a part, perhaps wait or listen for a moment, and leave. Who does not get
        as far as to be connected is not counted."""
        how = chance.choice(("in the request", "behind it", "in the answer"))
        reset = chance.random() < 0.5
        part = whole[: chance.randrange(len(whole))] if how == "in the request" else whole
        with suppress(OSError, trio.BrokenResourceError):
            stream = await trio.open_tcp_stream("127.0.0.1", self._target.port)
            self._books.asked[f"{kind}, {how}, {'reset' if reset else 'closed'}"] += 1
            async with stream:
                if part:
                    await stream.send_all(part)
                if how == "in the answer":
                    await stream.receive_some(chance.randrange(1, 200))
                else:
                    await trio.sleep(chance.uniform(0, PAUSE_MAX_S) * chance.randrange(2))
                if reset:
                    now = struct.pack("ii", 1, 0)
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)


def _raw(asked: Request) -> bytes:
    return asked.head + HOST + b"\r\n" + asked.body


async def attack(clients: int = 5000, seed: int = 1) -> Came:
    """A storm of so many clients; then good ones finish what is left."""
    books = Books()
    options = ("--dequeue-lease", str(LEASE_S), "--allowed-hosts", "test")
    async with open_target(*options) as target:
        base = await target.base()
        storm, room = Storm(target, books, seed), trio.CapacityLimiter(AT_ONCE)

        async def one(number: int) -> None:
            async with room:
                await storm.client(number)

        progress(f"{clients:,} clients")
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                nursery.start_soon(one, number)
        health_s = await target.health_s()
        progress(f"finishing what is left: {(await target.stats())['counts']}")
        await _finish(target)
        await target.settle(base, 20.0)
        events = await read_events(target)
        called = (await target.stack.seen(counts=True))["counts"]
    wrong = check_events(events)
    ended = Counter(event["to"] for event in last_events(events).values())
    left = sum(n for how, n in books.asked.items() if "stayed" not in how)
    return Came(
        tried=f"{clients:,} clients, {left:,} of them left in the middle (closed or reset)",
        seen=f"{len(books.accepted):,} tasks known as accepted, "
        f"{books.cut.total()} who stayed without an answer, "
        f"{len(books.accepted - last_events(events).keys())} lost; of all "
        + ", ".join(f"{number:,} {status}" for status, number in sorted(ended.items()))
        + f"; {len(events):,} events, {len(wrong)} against the lifecycle; "
        f"/healthz {health_s * 1000:.0f} ms behind it",
        misses=wrong + check_tasks(events, books, called) + check_clients(clients, books),
    )


async def _finish(target: Target) -> None:
    """Good clients take what waits for clients, until every task has ended. What was dequeued and
    left comes back when its lease is over."""
    done = trio.Event()

    async def drive() -> None:
        with Connection(target.url) as connection:
            while not done.is_set():
                taken = await connection.ask(request("POST", "/api/v1/tasks/dequeue", None))
                if taken.status != 200:
                    await trio.sleep(0.2)
                    continue
                path = f"/api/v1/tasks/{taken.json()['taskId']}/execute"
                await connection.ask(request("POST", path, None))

    with trio.move_on_after(FINISH_S):
        async with trio.open_nursery() as nursery:
            for _ in range(DRIVERS):
                nursery.start_soon(drive)
            while await target.unfinished():  # noqa: ASYNC110 - another process
                await trio.sleep(0.2)
            done.set()
    if not done.is_set():
        raise target.lost(f"tasks do not end: {(await target.stats())['counts']}")


# -- the history -----------------------------------------------------------------------------


async def read_events(target: Target) -> list[dict[str, Any]]:
    """Every event there has been, as the stream tells it."""
    newest: int = (await target.stats())["newestEvent"]
    last, said = b"\nid: %d\n" % newest, bytearray()
    with trio.fail_after(READ_S):
        async with await trio.open_tcp_stream("127.0.0.1", target.port) as stream:
            # In HTTP/1.0 an endless body is not sent in chunks.
            await stream.send_all(b"GET /api/v1/events?after=0 HTTP/1.0\r\n" + HOST + b"\r\n")
            while newest and not _is_whole(said, last):
                data = await stream.receive_some()
                if not data:
                    raise target.lost("the stream of events ended")
                said += data
    lines = said.decode().splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    return [event for event in events if event["seq"] <= newest]


def _is_whole(said: bytearray, last: bytes) -> bool:
    """Whether the last event has come, to its end."""
    begin = said.find(last, max(0, len(said) - TAIL_BYTES))
    return begin >= 0 and b"\n\n" in said[begin:]


def last_events(events: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The newest event of each task."""
    return {event["taskId"]: event for event in events}


def check_events(events: list[dict[str, Any]]) -> list[str]:
    """What is wrong with a whole history: gaps, moves that the lifecycle does not have, attempts
    that go back, tasks that have not ended."""
    wrong = []
    if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
        wrong.append("the numbers of the events have gaps")
    histories = defaultdict(list)
    for event in events:
        histories[event["taskId"]].append(event)
    for task_id, history in histories.items():
        status, attempt = None, 0
        for event in history:
            if event["from"] != status or (status, event["to"]) not in LEGAL:
                wrong.append(f"{task_id} was {status}, then {event['from']} → {event['to']}")
            if event["attempt"] < attempt:
                wrong.append(f"{task_id} went back from attempt {attempt}")
            status, attempt = event["to"], event["attempt"]
        if status not in ENDED:
            wrong.append(f"{task_id} stays {status}")
    return wrong


def check_tasks(events: list[dict[str, Any]], books: Books, called: Mapping[str, int]) -> list[str]:
    """What is wrong with what the clients and the callee know."""
    last = last_events(events)
    names = Counter(event["name"] for event in events if event["from"] is None)
    wrong = [f"{task_id} was accepted and is lost" for task_id in books.accepted - last.keys()]
    wrong += [f"{name!r} was created {n} times" for name, n in names.items() if n > 1]
    wrong += [
        f"{task_id} is Completed, and was never called"
        for task_id, event in last.items()
        if event["to"] == "Completed" and not called.get(task_id)
    ]
    wrong += [f"{task_id} has Failed" for task_id, event in last.items() if event["to"] == "Failed"]
    wrong += [f"answered: {what}" for what in books.statuses if what.endswith(" 500")]
    return wrong


def check_clients(clients: int, books: Books) -> list[str]:
    """What was no such storm, or no way to treat who stays."""
    wrong = [f"{what}, {number} times" for what, number in books.cut.items()]
    if books.asked.total() != clients:
        wrong.append(f"only {books.asked.total()} of {clients} clients got through")
    if len(books.accepted) < ACCEPTED_MIN * clients:
        wrong.append(f"only {len(books.accepted)} tasks accepted")
    return wrong


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """5,000 clients that leave in the middle of what they asked for."""
    conclude(BAR, "storm", partial(attack), record=record)
