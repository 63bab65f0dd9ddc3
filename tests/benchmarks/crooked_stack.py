"""A small real server that speaks the dialect of every stack, and cheats as it is told to."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import attrs
import trio

from benchmarks.load import parse_head


@attrs.frozen(kw_only=True)
class Tricks:
    """What happens to tasks, by their number in the order of creation, from 0."""

    lose: frozenset[int] = frozenset()  # accepted, never called
    twice: frozenset[int] = frozenset()  # called twice
    refuse: Mapping[int, int] = {}  # creates, not tasks -> status
    hang_up: frozenset[int] = frozenset()  # creates whose connection is closed instead
    invent: int = 0  # calls for tasks that nobody created
    unfinished: frozenset[int] = frozenset()  # called, never Completed
    answer_after_s: float = 0.0  # creates
    mute: frozenset[int] = frozenset()  # creates that are never answered
    state_after_s: float = 0.0  # questions for a task
    call_first: bool = False  # the callback comes before the answer to its create
    chunked: bool = False
    complete_after_s: float = 0.0  # between the answer to the callback and Completed
    late_again: frozenset[int] = frozenset()  # called again 0.2 s after the first call
    impatient: frozenset[int] = frozenset()  # called, cut off at once, and called again


@attrs.define
class CrookedStack:
    """What it was asked, and what it did."""

    tricks: Tricks
    nursery: trio.Nursery
    url: str = ""
    creates: int = 0
    tasks: dict[str, str] = attrs.field(factory=dict)  # id -> status
    asked: int = 0
    listed: int = 0
    numbers: itertools.count[int] = attrs.field(factory=itertools.count)
    connections: int = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        async with stream:
            # A driver at its limit drops connections in the middle of an answer.
            with suppress(trio.BrokenResourceError):
                await self._converse(stream)

    async def _converse(self, stream: trio.SocketStream) -> None:
        held = b""
        while True:
            while b"\r\n\r\n" not in held:
                held += (received := await stream.receive_some())
                if not received:
                    return
            raw, _, held = held.partition(b"\r\n\r\n")
            line, _, _rest = raw.partition(b"\r\n")
            _, headers = parse_head(b"HTTP/1.1 200 OK\r\n" + raw.partition(b"\r\n")[2])
            while len(held) < int(headers.get("content-length", 0)):
                held += await stream.receive_some()
            body, held = (held[: (n := int(headers.get("content-length", 0)))], held[n:])
            method, target, _ = line.decode().split()
            answer = await self._answer(method, target, body)
            if answer is None:
                return
            await stream.send_all(answer)

    async def _answer(self, method: str, target: str, body: bytes) -> bytes | None:
        if method == "GET":
            return await self._get(target)
        number, self.creates = self.creates, self.creates + 1
        await trio.sleep(self.tricks.answer_after_s)
        if number in self.tricks.hang_up:
            return None
        if number in self.tricks.mute:
            await trio.sleep_forever()
        if status := self.tricks.refuse.get(number):
            return self._said(status, {})
        document = json.loads(body)
        specs = document.get("tasks", [document])
        ids = [await self._create(spec) for spec in specs]
        entries = [{"taskId": task_id, "status": "Queued"} for task_id in ids]
        return self._said(201, {"tasks": entries} if "tasks" in document else entries[0])

    async def _get(self, target: str) -> bytes:
        if "?" in target:
            self.listed += 1
            return self._said(200, {"items": []})
        self.asked += 1
        await trio.sleep(self.tricks.state_after_s)
        status = self.tasks.get(target.rpartition("/")[2])
        return self._said(200, {"status": status}) if status else self._said(404, {})

    async def _create(self, spec: Mapping[str, str]) -> str:
        number = next(self.numbers)
        task_id = f"task-{number}"
        self.tasks[task_id] = "Queued"
        if spec["dispatch"] == "auto":
            if self.tricks.call_first:
                await self._call(number, task_id, spec["callbackUrl"])
            else:
                self.nursery.start_soon(self._call_later, number, task_id, spec["callbackUrl"])
        return task_id

    async def _call_later(self, number: int, task_id: str, url: str) -> None:
        with suppress(OSError, trio.BrokenResourceError):  # the load process may have ended
            await self._call(number, task_id, url)

    async def _call(self, number: int, task_id: str, url: str) -> None:
        tricks = self.tricks
        if number in tricks.lose:
            return
        if number in tricks.impatient:
            await self._post(task_id, url, wait=False)
        for _ in range(2 if number in tricks.twice else 1):
            await self._post(task_id, url)
        await trio.sleep(tricks.complete_after_s)
        if number not in tricks.unfinished:
            self.tasks[task_id] = "Completed"
        if number < tricks.invent:
            await self._post(f"invented-{number}", url)
        if number in tricks.late_again:
            await trio.sleep(0.2)
            await self._post(task_id, url)

    async def _post(self, task_id: str, url: str, *, wait: bool = True) -> None:
        parts = urlsplit(url)
        body = json.dumps({"taskId": task_id, "payload": {}}).encode()
        framed = f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        if self.tricks.chunked:
            framed = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nWebhook-Id: {task_id}\r\n"
        async with await trio.open_tcp_stream(str(parts.hostname), parts.port or 80) as stream:
            await stream.send_all(head.encode() + framed)
            if not wait:
                return
            answer = await stream.receive_some()
            if not answer:
                raise trio.BrokenResourceError("the load process has ended")
            assert answer.startswith(b"HTTP/1.1 200"), answer

    def _said(self, status: int, document: object) -> bytes:
        body = json.dumps(document).encode()
        if self.tricks.chunked:
            half = len(body) // 2 or 1
            chunks = b"".join(
                b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:half], body[half:]) if p
            )
            return (
                f"HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
                + chunks
                + b"0\r\n\r\n"
            )
        return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def open_crooked_stack(**tricks: object) -> AsyncIterator[CrookedStack]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        stack = CrookedStack(Tricks(**tricks), nursery)  # type: ignore[arg-type]
        stack.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, stack.serve, listeners)
        yield stack
        nursery.cancel_scope.cancel()
