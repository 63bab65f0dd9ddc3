"""The asking side: some connections that send requests, as fast as answered or on a schedule."""

from __future__ import annotations

import socket
from collections.abc import Callable
from math import inf
from time import perf_counter
from typing import Final, TypeAlias

import attrs

from benchmarks.driver.loop import READ, WRITE, Loop, received
from benchmarks.driver.wire import closes, cut, status_of

OnAnswer: TypeAlias = Callable[[int, float, float, int, bytes], None]
"""Gets a request's number, when it began and ended, the status of its answer and the body."""

CUT_OFF: Final = 0  # instead of a status: the connection ended before the answer
_CONNECT_TIMEOUT_S: Final = 5.0


@attrs.frozen
class Pace:
    """When requests begin: request n at ``start + n / rate``, or, without a rate, as soon as a
    connection is free."""

    start: float = 0.0
    rate: float | None = None

    def due(self, number: int) -> float:
        return self.start + number / self.rate if self.rate else -inf


class Client:
    """Sends ``total`` requests, each once, over at most ``most`` connections.

    ``request`` gives the bytes of a number, ``may`` says whether another one may begin. A request
    whose answer never came is not repeated: nobody knows whether it was heard.
    """

    def __init__(
        self,
        loop: Loop,
        address: tuple[str, int],
        request: Callable[[int], bytes],
        on_answer: OnAnswer,
        *,
        total: float,
        most: int,
        may: Callable[[], bool] = lambda: True,
    ) -> None:
        self._loop, self._address = loop, address
        self._request, self.on_answer = request, on_answer
        self.total, self._most, self._may = total, most, may
        self.pace = Pace()
        self._idle: list[_Connection] = []
        self._open = 0
        self.sent = self.ended = 0
        self.behind: list[float] = []  # seconds between due and sent

    def __repr__(self) -> str:
        return f"<Client {self.sent} sent, {self.ended} answered, {self._open} connections>"

    @property
    def done(self) -> bool:
        return self.ended >= self.total

    def connect(self, count: int) -> None:
        """Open connections ahead."""
        for _ in range(count):
            self._idle.append(_Connection(self._loop, self, self._address))
            self._open += 1

    def pump(self, now: float) -> float:
        """Send what is due. When the next request is, unless something else happens first."""
        while self.sent < self.total and self._room() and self._may():
            due = self.pace.due(self.sent)
            if due > now:
                return due
            if not self._idle:
                self.connect(1)
            began = now = perf_counter()
            if due != -inf:
                began = due
                self.behind.append(now - due)
            number = self.sent
            self.sent += 1
            self._idle.pop().send(number, self._request(number), began)
        return inf

    def _room(self) -> bool:
        return bool(self._idle) or self._open < self._most

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle[-1].close()

    def finish(self, connection: _Connection, status: int, body: bytes) -> None:
        """The connection's request has come to its end."""
        self.ended += 1
        if connection.is_open:
            self._idle.append(connection)
        self.on_answer(connection.number, connection.began, perf_counter(), status, body)

    def lose(self, connection: _Connection) -> None:
        """The connection is closed."""
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)


class _Connection:
    """One keep-alive connection; at most one request at a time."""

    __slots__ = (
        "_busy", "_client", "_held", "_loop", "_sock", "_unsent", "began", "is_open", "number",
    )  # fmt: skip

    def __init__(self, loop: Loop, client: Client, address: tuple[str, int]) -> None:
        self._loop, self._client = loop, client
        self._sock = socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S)
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._held, self._unsent = b"", b""
        self.number, self.began, self._busy, self.is_open = -1, 0.0, False, True
        loop.watch(self._sock, self._ready)

    def send(self, number: int, request: bytes, began: float) -> None:
        self.number, self.began, self._busy = number, began, True
        self._unsent = request
        self._send_rest()

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._loop.close(self._sock)
            self._client.lose(self)

    def _send_rest(self) -> None:
        waited = len(self._unsent)
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end()
            return
        self._unsent = self._unsent[sent:]
        if sent < waited:
            self._loop.want(self._sock, WRITE)

    def _ready(self, _events: int) -> None:
        if self._unsent:
            self._loop.want(self._sock, READ)
            self._send_rest()
        data = received(self._sock)
        if data is None:
            return
        if not data or not self._busy:  # closed, or an answer that nobody asked for
            self._end()
            return
        if self._held:
            data = self._held + data
        try:
            found = cut(data)
            if found is None:
                self._held = data
                return
            status = status_of(data, 0)
        except ValueError:
            self._end()
            return
        head_end, body, end = found
        self._held, self._busy = b"", False
        if end < len(data) or closes(data, 0, head_end):
            self.close()
        self._client.finish(self, status, body)

    def _end(self) -> None:
        busy, self._busy = self._busy, False
        self.close()
        if busy:
            self._client.finish(self, CUT_OFF, b"")
