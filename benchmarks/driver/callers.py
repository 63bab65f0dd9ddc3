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

    def close(self) -> None:
        """Listen no more."""
        self._loop.close(self._listener)

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
        self._held += data
        while self._open and (head := self._next_head()) is not None:
            self._last = closes(head, 0, len(head))
            self._take(self, head)

    def _next_head(self) -> bytes | None:
        """The head of the next call, which is let go with its body; none if it is not whole yet. If
        it never will be, the connection is closed."""
        try:
            found = cut(self._held)
        except ValueError:
            self._close()
            return None
        if found is None:
            return None
        head_end, _body, end = found
        head, self._held = self._held[:head_end], self._held[end:]
        return head

    def _close(self) -> None:
        self._open = False
        self._loop.close(self._sock)
