"""Is called back: answers as the kind of the task wants it, and tells the ledger."""

from __future__ import annotations

import re
import socket
from collections import deque
from time import perf_counter
from typing import Final

from benchmarks.driver.loop import Loop, received
from benchmarks.driver.wire import CALLED, called_for, closes, cut
from tests.soak.ledger import Ledger
from tests.soak.mix import BY_NAME, Kind

_NOT_YET: Final = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
_attempt = re.compile(rb"\r\nx-task-attempt: *(\d+)", re.IGNORECASE).search


class Callee:
    """Listens on a free port of loopback."""

    def __init__(self, loop: Loop, ledger: Ledger) -> None:
        self._loop, self._ledger = loop, ledger
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        loop.watch(self._listener, self._accept)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._held: deque[tuple[float, _Caller, str, int]] = deque()  # all equally long

    def __repr__(self) -> str:
        return f"<Callee {self.url}, {len(self._held)} held>"

    @property
    def due(self) -> float:
        """When the next callback is to be answered."""
        return self._held[0][0] if self._held else float("inf")

    def answer_due(self, now: float) -> None:
        """Answer those that were held for long enough."""
        while self._held and self._held[0][0] <= now:
            _due, caller, task_id, attempt = self._held.popleft()
            self._answer(caller, task_id, attempt, 200)

    def take(self, caller: _Caller, kind: Kind, task_id: str, attempt: int) -> None:
        """A whole callback has come."""
        now = perf_counter()
        self._ledger.call(task_id, kind, attempt, now)
        if kind.hold_s:
            self._held.append((now + kind.hold_s, caller, task_id, attempt))
        else:
            self._answer(caller, task_id, attempt, 503 if attempt <= kind.failures else 200)

    def _answer(self, caller: _Caller, task_id: str, attempt: int, status: int) -> None:
        taken = caller.answer(CALLED if status == 200 else _NOT_YET)
        self._ledger.answer(task_id, attempt, status, taken=taken)

    def _accept(self, _events: int) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # there is no further one, or it is gone again
                return
            _Caller(self._loop, self, sock)


class _Caller:
    """One connection of the server."""

    __slots__ = ("_callee", "_held", "_last", "_loop", "_open", "_sock")

    def __init__(self, loop: Loop, callee: Callee, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop, self._callee, self._sock = loop, callee, sock
        self._held, self._open, self._last = b"", True, False
        loop.watch(sock, self._ready)

    def answer(self, raw: bytes) -> bool:
        """Whether there was anybody to take it."""
        if not self._open:
            return False
        try:
            self._sock.send(raw)  # far smaller than a socket's buffer
        except OSError:
            self._close()
            return False
        if self._last:
            self._close()
        return True

    def _ready(self, _events: int) -> None:
        data = received(self._sock)
        if data is None:
            return
        if not data:
            self._close()
            return
        self._held += data
        while self._open and (found := cut(self._held)):
            head_end, _body, end = found
            self._last = closes(self._held, 0, head_end)
            head = self._held[:head_end]
            task_id = called_for(self._held, 0, head_end).decode()
            attempt = _attempt(head)
            self._held = self._held[end:]
            kind = BY_NAME[head.split(b" ", 2)[1].decode().lstrip("/")]
            self._callee.take(self, kind, task_id, int(attempt[1]) if attempt else 0)

    def _close(self) -> None:
        self._open = False
        self._loop.close(self._sock)
