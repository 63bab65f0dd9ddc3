"""The receiver itself: answers callbacks over TCP and keeps the books."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import Final

import trio

from web.receiver.calls import Call, CallLog
from web.receiver.reactions import Reaction, react
from web.receiver.wire import BadRequest, Peer, Request

CONNECTIONS_MAX: Final = 10_000
CALLS_MAX: Final = 1_000_000


@asynccontextmanager
async def open_receiver(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    calls_max: int = CALLS_MAX,
    keep_requests: bool = False,
) -> AsyncIterator[Receiver]:
    """A running receiver. With `keep_requests` its calls carry their headers and bodies."""
    listeners = await trio.open_tcp_listeners(port, host=host)
    bound = listeners[0].socket.getsockname()
    name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    receiver = Receiver(f"http://{name}:{bound[1]}", calls_max, keep_requests=keep_requests)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, receiver.serve, listeners)
        yield receiver
        nursery.cancel_scope.cancel()


class Receiver:
    """Answers callbacks and keeps the books. Made by `open_receiver`."""

    def __init__(self, url: str, calls_max: int, *, keep_requests: bool) -> None:
        self.url = url
        self._log = CallLog(calls_max, keep_requests=keep_requests)
        self._connections = 0
        self.in_flight = self.peak_in_flight = 0
        self.first_started = self.last_ended = math.nan
        self.busy_s = 0.0  # the sum of all ended calls; over a window's length, their mean number

    def __repr__(self) -> str:
        return f"<Receiver {self.url} {self._log!r}, {self.in_flight} in flight>"

    @property
    def total(self) -> int:
        return self._log.total

    def calls(self, task_id: str) -> list[Call]:
        return self._log.calls(task_id)

    def all_calls(self) -> list[Call]:
        return self._log.all_calls()

    def counts(self) -> Mapping[str, int]:
        return self._log.counts()

    def reset(self) -> None:
        """Forget everything. Calls in flight stay in flight and end in the log they began in."""
        self._log = CallLog(self._log.limit, keep_requests=self._log.keep_requests)
        self.peak_in_flight = self.in_flight
        self.first_started = self.last_ended = math.nan
        self.busy_s = 0.0

    def summary(self, *, counts: bool) -> dict[str, object]:
        facts: dict[str, object] = {
            "total": self.total,
            "inFlight": self.in_flight,
            "peakInFlight": self.peak_in_flight,
            "forgotten": self._log.forgotten,
            "busySeconds": self.busy_s,
            "firstStarted": None if math.isnan(self.first_started) else self.first_started,
            "lastEnded": None if math.isnan(self.last_ended) else self.last_ended,
        }
        return facts | {"counts": self.counts()} if counts else facts

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, until it ends. Nothing a peer does gets out of here."""
        async with stream:
            if self._connections >= CONNECTIONS_MAX:
                return
            self._connections += 1
            peer = Peer(stream)
            try:
                while (request := await peer.request()) and await self._answer(peer, request):
                    pass
            except BadRequest as bad:
                with suppress(trio.BrokenResourceError):
                    refusal = Reaction(bad.status, b"{}", (("connection", "close"),))
                    await stream.send_all(refusal.wire())
            except trio.BrokenResourceError:
                pass  # the peer reset the connection
            finally:
                self._connections -= 1

    async def _answer(self, peer: Peer, request: Request) -> bool:
        if request.path.startswith("/_"):
            await peer.stream.send_all(self._control(request).wire())
            return request.keep_alive
        log, task_id = self._log, request.headers.get("webhook-id", "")
        attempt = _attempt(request.headers.get("x-task-attempt")) or log.last_attempt(task_id) + 1
        reaction, answer = react(request.target, attempt)
        number, status = self._begin(log, task_id, attempt, request), 0
        try:
            stayed = not reaction.delay_s or await peer.stays(reaction.delay_s)
            if stayed and reaction.fill_bytes:
                await peer.send_filled(answer, reaction.fill_bytes)
                answer = b""
            status = reaction.status if stayed else 0
        finally:
            self._end(log, number, status)
        # Ended first, sent second: sending lets others run, and the caller's next call must not
        # be counted beside the one it follows.
        if status:
            await peer.stream.send_all(answer)
        else:
            await peer.stream.aclose()
        return request.keep_alive and status != 0

    def _begin(self, log: CallLog, task_id: str, attempt: int, request: Request) -> int:
        now = perf_counter()
        if log.total == 0:
            self.first_started = now
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        return log.start(task_id, attempt, sys.intern(request.path), request, now)

    def _end(self, log: CallLog, number: int, status: int) -> None:
        now = perf_counter()
        self.in_flight -= 1
        started = log.end(number, status, now)
        if log is self._log and started is not None:
            self.last_ended = now
            self.busy_s += now - started

    def _control(self, request: Request) -> Reaction:
        match request.method, request.target:
            case "GET", "/_calls":
                return Reaction(body=json.dumps(self.summary(counts=True)).encode())
            case "GET", "/_calls?counts=0":
                return Reaction(body=json.dumps(self.summary(counts=False)).encode())
            case "GET", "/_answered":
                return Reaction(body=json.dumps(self._log.answered()).encode())
            case "POST", "/_reset":
                self.reset()
                return Reaction()
            case _:
                return Reaction(404, b'{"error":"no such control"}')


def _attempt(header: str | None) -> int:
    """The attempt a caller names; 0, which none has, when it names none."""
    plain = header is not None and header.isascii() and header.isdigit() and len(header) < 10
    return int(header) if header is not None and plain else 0
