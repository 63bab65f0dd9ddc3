"""Where callbacks arrive: connections that are cut into calls, each answered when its taker likes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeAlias

from benchmarks.driver.loop import Loop, received
from benchmarks.driver.wire import closes, cut

Take: TypeAlias = "Callable[[Caller, bytes], None]"
"""Gets every whole call: who made it, and its head."""


class Callers:
    """Listens on a free port of loopback."""

    def __init__(self, loop: Loop, take: Take) -> None:
        self._loop, self._take = loop, take
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        loop.watch(self._listener, self._accept)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __repr__(self) -> str:
        return f"<Callers {self.url}>"

    def _accept(self, _events: int) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # there is no further one, or it is gone again
                return
            Caller(self._loop, self._take, sock)


class Caller:
    """One connection of the stack."""

    __slots__ = ("_held", "_last", "_loop", "_open", "_sock", "_take")

    def __init__(self, loop: Loop, take: Take, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop, self._take, self._sock = loop, take, sock
        self._held = b""
        self._open, self._last = True, False
        loop.watch(sock, self._ready)

    def __repr__(self) -> str:
        return f"<Caller {'open' if self._open else 'gone'}>"

    def answer(self, raw: bytes) -> bool:
        """Answer the call that came. Whether there was anybody to take it."""
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
        self._held = data = self._held + data
        start = 0
        try:
            while self._open and (found := cut(data, start)):
                head_end, _body, end = found
                self._held = data[end:]
                self._last = closes(data, start, head_end)
                self._take(self, data[start:head_end])
                start = end
        except ValueError:
            self._close()

    def _close(self) -> None:
        self._open = False
        self._loop.close(self._sock)
