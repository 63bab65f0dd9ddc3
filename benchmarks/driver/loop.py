"""One thread around one ``epoll``."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from time import perf_counter
from typing import Final, TypeAlias

Handler: TypeAlias = Callable[[int], None]
"""Gets the events that ``epoll`` saw."""

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLIN | select.EPOLLOUT
_STEP_S: Final = 0.001  # epoll counts in these, and rounds up; what is left is for select()
_READ_BYTES: Final = 64 * 1024


def received(sock: socket.socket) -> bytes | None:
    """What has come in; ``b""`` at the end, however it came about; ``None`` if nothing has."""
    try:
        return sock.recv(_READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


class Loop:
    """Calls the handlers of sockets that are ready."""

    def __init__(self) -> None:
        self._epoll = select.epoll()  # before any socket: select() takes small descriptors only
        self._handlers: dict[int, Handler] = {}

    def __repr__(self) -> str:
        return f"<Loop of {len(self._handlers)} sockets>"

    def watch(self, sock: socket.socket, handler: Handler) -> None:
        """Call ``handler`` whenever there is something to read."""
        self._handlers[sock.fileno()] = handler
        self._epoll.register(sock.fileno(), READ)

    def want(self, sock: socket.socket, events: int) -> None:
        """Wait for other events of a watched socket."""
        self._epoll.modify(sock.fileno(), events)

    def close(self, sock: socket.socket) -> None:
        """Close a watched socket; events of it that were already seen go nowhere."""
        if self._handlers.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())
        sock.close()

    def turn(self, until: float) -> None:
        """Handle what is ready, waiting for it until about when ``time.perf_counter`` is ``until``."""
        left = until - perf_counter()
        if left >= _STEP_S:
            events = self._epoll.poll(left // _STEP_S * _STEP_S)
        else:
            if left > 0:
                select.select([self._epoll], [], [], left)
            events = self._epoll.poll(0)
        handlers = self._handlers
        for descriptor, event in events:
            if handler := handlers.get(descriptor):
                handler(event)
