"""Where the callbacks arrive: every one is answered with 200, some after a while."""

from __future__ import annotations

import socket
from array import array
from collections import deque
from time import perf_counter

from benchmarks.driver.books import Books
from benchmarks.driver.loop import Loop, received
from benchmarks.driver.wire import CALLED, called_for, closes, cut


class Receiver:
    """Listens on a free port of loopback."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        loop.watch(self._listener, self._accept)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/call"
        self._waiting: deque[tuple[float, _Caller, bytes, float]] = deque()
        self.begin(Books(), 0.0)

    def __repr__(self) -> str:
        return f"<Receiver {self.url}, {self.in_flight} in flight>"

    def begin(self, books: Books, hold_s: float) -> None:
        """Keep other books from now on, and hold callbacks for so long."""
        self.books, self.hold_s = books, hold_s
        self.in_flight = self.peak = len(self._waiting)
        self.held = array("d")  # how long each was held
        self.cut_off = 0  # callers that did not wait for the answer

    @property
    def due(self) -> float:
        """When the next callback is to be answered."""
        return self._waiting[0][0] if self._waiting else float("inf")

    def answer_due(self, now: float) -> None:
        """Answer the callbacks that were held for long enough. All are held equally long, so the
        order in which they came is the order in which they are due."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= now:
            _due, caller, task_id, arrived = waiting.popleft()
            self._answer(caller, task_id, arrived)

    def take(self, caller: _Caller, task_id: bytes) -> None:
        """A whole callback has come; one that does not name its task is for an unknown one."""
        now = perf_counter()
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self.books.call(task_id, now)
        if self.hold_s:
            self._waiting.append((now + self.hold_s, caller, task_id, now))
        else:
            self._answer(caller, task_id, now)

    def _answer(self, caller: _Caller, task_id: bytes, arrived: float) -> None:
        self.in_flight -= 1
        if caller.answer():
            now = perf_counter()
            self.held.append(now - arrived)
            self.books.answer(task_id, now)
        else:
            self.cut_off += 1

    def _accept(self, _events: int) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # there is no further one, or it is gone again
                return
            _Caller(self._loop, self, sock)


class _Caller:
    """One connection of the stack."""

    __slots__ = ("_held", "_last", "_loop", "_open", "_receiver", "_sock")

    def __init__(self, loop: Loop, receiver: Receiver, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop, self._receiver, self._sock = loop, receiver, sock
        self._held = b""
        self._open, self._last = True, False
        loop.watch(sock, self._ready)

    def answer(self) -> bool:
        """Answer the callback that came. Whether there was anybody to take it."""
        if not self._open:
            return False
        try:
            self._sock.send(CALLED)  # far smaller than a socket's buffer
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
        self._held = data = self._held + data
        start = 0
        try:
            while self._open and (found := cut(data, start)):
                head_end, _body, end = found
                self._held = data[end:]
                self._last = closes(data, start, head_end)
                self._receiver.take(self, called_for(data, start, head_end))
                start = end
        except ValueError:
            self._close()

    def _close(self) -> None:
        self._open = False
        self._loop.close(self._sock)
