"""Clients of every kind, that remember what they were told before they ask for more."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any, Final

import trio

from benchmarks.load import Answer, Connection, CutOffError, Request, request
from engine.core.lifecycle import ENDED
from engine.core.task import Status
from tests.murder.history import EventSeen, History
from tests.murder.survey import API, follow

CREATORS: Final = 32
DRIVERS: Final = 6  # clients that dequeue and execute
CANCELLERS: Final = 2
KEYS: Final = 20  # partition keys
BATCH: Final = 5
REPEATED: Final = 0.2  # of the creates with a key are sent twice although the first was answered
REFUSED: Final = (408, 429, 503)  # nothing was accepted

Client = Callable[[Connection], Awaitable[None]]


class Load:
    """All clients of one run. ``posts`` counts the creates that were accepted."""

    def __init__(
        self,
        callee: str,
        chance: random.Random,
        history: History,
        *,
        rate: float,  # of creates, per second
        timeout_s: float,  # of callbacks
        late_s: float = 0.0,  # so long clients keep a task before they execute it too late, if ever
    ) -> None:
        self._callee, self._chance, self._history = callee, chance, history
        self._timeout_s, self._late_s = timeout_s, late_s
        self._pause_s = CREATORS / rate
        self._resend: dict[str, Request] = {}  # creates with a key whose answer never came
        self._recent: deque[str] = deque(maxlen=200)
        self.number = self.posts = 0

    def __repr__(self) -> str:
        return f"<Load {self.posts} creates, {len(self._history.accepted)} tasks accepted>"

    async def until_gone(self, url: str) -> None:
        """Create and drive tasks until the server is gone. What was unknown before is asked again
        first."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, url)
            for client in [self._create] * CREATORS + [self._cancel] * CANCELLERS:
                nursery.start_soon(self._as_client, url, client)
            for _ in range(DRIVERS):
                nursery.start_soon(self._as_client, url, self._drive)
            nursery.start_soon(self._as_client, url, self.resend)

    async def finish(self, url: str) -> None:
        """Resend what is still unknown; then only drive tasks, until cancelled."""
        with Connection(url) as connection:
            await self.resend(connection)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, url)
            for _ in range(DRIVERS):
                nursery.start_soon(self._as_client, url, self._drive)

    async def _as_client(self, url: str, client: Client) -> None:
        with Connection(url) as connection:
            try:
                await client(connection)
            except CutOffError:  # the server is gone, or else the checker says so
                self._history.cut_off.append(perf_counter())

    # -- creating ------------------------------------------------------------------------------

    async def _create(self, connection: Connection) -> None:
        due = trio.current_time()
        while True:
            due = max(due + self._chance.expovariate(1 / self._pause_s), trio.current_time() - 1)
            await trio.sleep_until(due)
            kind = self._chance.random()
            if kind < 0.1:
                await self._create_batch(connection)
            elif kind < 0.35:
                await self._create_with_key(connection)
            else:
                name, spec = self._spec()
                await self._send(connection, request("POST", f"{API}/tasks", spec), (name,))

    async def _create_batch(self, connection: Connection) -> None:
        named = dict(self._spec() for _ in range(BATCH))
        asked = request("POST", f"{API}/tasks/batch", {"tasks": list(named.values())})
        self._history.batches.append(tuple(named))
        await self._send(connection, asked, tuple(named))

    async def _create_with_key(self, connection: Connection) -> None:
        name, spec = self._spec()
        asked = request("POST", f"{API}/tasks", spec, {"Idempotency-Key": name})
        self._resend[name] = asked
        again = self._chance.random() < REPEATED
        if await self._send(connection, asked, (name,)) and not again:
            self._resend.pop(name, None)

    async def resend(self, connection: Connection) -> None:
        """Ask again what was cut off. With its key each is one task, however often it was sent."""
        for name, asked in list(self._resend.items()):
            if name not in self._history.accepted:
                self._history.unknown.add(name)  # it may be accepted now, and the answer be cut off
            answer = await connection.ask(asked)
            assert answer.status in (201, *REFUSED), answer
            if answer.status == 201:
                task_id = answer.json()["taskId"]
                self._history.replays.setdefault(name, set()).add(task_id)
                self._accept(name, task_id)
                self._resend.pop(name, None)  # its first answer may have come meanwhile

    async def _send(self, connection: Connection, asked: Request, names: tuple[str, ...]) -> bool:
        """Create tasks; whether they were accepted. What is cut off is unknown."""
        self._history.unknown.update(names)
        answer = await connection.ask(asked)
        assert answer.status in (201, *REFUSED), answer
        self._history.unknown.difference_update(names)
        if answer.status != 201:
            self._history.refused.update(names)
            return False
        self.posts += 1
        body = answer.json()
        for name, task in zip(names, body.get("tasks", [body]), strict=True):
            self._accept(name, task["taskId"])
        return True

    def _accept(self, name: str, task_id: str) -> None:
        self._history.unknown.discard(name)
        known = self._history.accepted.setdefault(name, task_id)
        self._history.replays.setdefault(name, {known}).add(task_id)
        self._recent.append(task_id)

    def _spec(self) -> tuple[str, dict[str, Any]]:
        """A task of any kind, and its name, which no other one has."""
        chance = self._chance
        self.number += 1
        name = f"task {self.number}"
        slow = f"/slow?ms={chance.randrange(5, 500)}"
        spec: dict[str, Any] = {
            "name": name,
            "dispatch": "auto",
            "timeoutSeconds": self._timeout_s,
            "retryPolicy": {"maxAttempts": 10, "initialIntervalSeconds": 0.1},
        }
        kind = chance.random()
        if kind < 0.08:
            spec["dispatch"] = "manual"
        elif kind < 0.23:
            spec["delaySeconds"] = round(chance.uniform(0.1, 3.0), 3)
        elif kind < 0.28:
            spec["partitionKey"] = f"key {chance.randrange(KEYS)}"
            slow = f"/slow?ms={chance.randrange(5, 100)}"
        weighted = (slow, "/good", f"/flaky?fails={chance.randrange(1, 3)}", "/permanent")
        path = chance.choices(weighted, (70, 18, 10, 2))[0]
        return name, spec | {"callbackUrl": self._callee + path}

    # -- driving -------------------------------------------------------------------------------

    async def _drive(self, connection: Connection) -> None:
        """Dequeue tasks; execute most of them, give some back, and forget some."""
        ask = partial(request, "POST")
        while True:
            answer = await connection.ask(
                ask(f"{API}/tasks/dequeue", headers={"Prefer": "wait=1", "Content-Length": "0"})
            )
            assert answer.status in (200, 404, *REFUSED), answer
            if answer.status in REFUSED:
                await trio.sleep(0.1)
            if answer.status != 200:
                continue
            task_id = answer.json()["taskId"]
            self._history.taken[task_id] += 1
            ways = ("execute", "late", "release", "cancel", "forget")
            match self._chance.choices(ways, (7, 2 * bool(self._late_s), 1, 1, 1))[0]:
                case "execute":
                    await self._execute(connection, task_id)
                case "late":
                    await trio.sleep(self._late_s)
                    await self._execute(connection, task_id)
                case "release":
                    target = f"{API}/tasks/{task_id}/release"
                    answer = await connection.ask(ask(target, headers={"Content-Length": "0"}))
                    self._is_one_of(answer, task_id, 200, 409)
                case "cancel":
                    await self._cancel_one(connection, task_id)
                case _:
                    pass  # its lease will end

    async def _execute(self, connection: Connection, task_id: str) -> None:
        waits = self._chance.choice(("wait=2", "respond-async"))
        answer = await connection.ask(
            request(
                "POST",
                f"{API}/tasks/{task_id}/execute",
                headers={"Prefer": waits, "Content-Length": "0"},
            )
        )
        self._is_one_of(answer, task_id, 200, 202, 409)
        if answer.status == 200:
            status = Status(answer.json()["status"])
            assert status in ENDED, answer
            self._history.told[task_id] = status

    async def _cancel(self, connection: Connection) -> None:
        while True:
            await trio.sleep(self._chance.expovariate(5))
            if self._recent:
                await self._cancel_one(connection, self._chance.choice(self._recent))
            else:  # notice that the server is gone
                await connection.ask(request("GET", "/healthz"))

    async def _cancel_one(self, connection: Connection, task_id: str) -> None:
        self._history.asked_to_cancel.add(task_id)
        query = self._chance.choice(("", "?inFlight=true"))
        answer = await connection.ask(request("DELETE", f"{API}/tasks/{task_id}{query}"))
        self._is_one_of(answer, task_id, 204, 409)
        if answer.status == 204:
            self._history.cancelled.setdefault(task_id, perf_counter())

    def _is_one_of(self, answer: Answer, task_id: str, *statuses: int) -> None:
        """Anything else is an error; a 404 for the checker, of this program for all others."""
        if answer.status == 404:
            self._history.not_found.add(task_id)
        else:
            assert answer.status in (*statuses, *REFUSED), answer

    # -- watching ------------------------------------------------------------------------------

    async def _watch(self, url: str) -> None:
        """Resumes after the last event it was told."""
        watched: list[EventSeen] = self._history.watched
        while await follow(url, watched[-1].seq if watched else 0, watched.append):
            pass
        self._history.cut_off.append(perf_counter())
