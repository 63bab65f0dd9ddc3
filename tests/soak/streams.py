"""Websocket watchers of the status stream: one that tells the ledger, others that come and go."""

from __future__ import annotations

import base64
import json
import os
import random
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.driver.loop import Loop, received
from benchmarks.watch_client import PATH, PONG, client_frame
from benchmarks.watching import CLOSE, PING, TEXT, next_frame

_CONNECT_TIMEOUT_S: Final = 5.0
_BACK: Final = 50  # events that a resuming watcher asks for again
_STAY_S: Final = (0.5, 8.0)
_GOING_AWAY: Final = (1001).to_bytes(2, "big")

OnMessage = Callable[[dict[str, Any]], None]


class Watcher:
    """One websocket. Without ``on_message`` what comes is read and not looked at, but for pings."""

    def __init__(
        self,
        loop: Loop,
        url: str,
        subscribe: Mapping[str, object],
        on_message: OnMessage | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._loop, self._on_message = loop, on_message
        self._subscribe = json.dumps({"subscribe": subscribe}).encode()
        self._held, self._upgraded, self.is_open = b"", False, True
        address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._sock = socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S)
        self._sock.setblocking(False)
        loop.watch(self._sock, self._ready)
        key = base64.b64encode(os.urandom(16)).decode()
        self._send(
            f"GET {PATH} HTTP/1.1\r\nhost: {parts.netloc}\r\nupgrade: websocket\r\n"
            f"connection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n".encode()
        )

    def __repr__(self) -> str:
        return f"<Watcher {'open' if self.is_open else 'closed'} {self._subscribe!r}>"

    def leave(self, *, politely: bool) -> None:
        """Close the connection, with or without saying so."""
        if politely and self._upgraded:
            self._send(client_frame(CLOSE, _GOING_AWAY))
        self._close()

    def _ready(self, _events: int) -> None:
        data = received(self._sock)
        if data is None:
            return
        if not data:
            self._close()
            return
        self._held += data
        if not self._upgraded and not self._upgrade():
            return
        begin = 0
        while self.is_open and (frame := next_frame(self._held, begin)) is not None:
            begin += frame.size
            if frame.opcode == TEXT and self._on_message:
                self._on_message(json.loads(frame.payload))
            elif frame.opcode == PING:
                self._send(client_frame(PONG, frame.payload))
            elif frame.opcode == CLOSE:
                self._close()
        self._held = self._held[begin:]

    def _upgrade(self) -> bool:
        """Whether the handshake is over; if so, subscribe."""
        head, end, rest = self._held.partition(b"\r\n\r\n")
        if not end:
            return False
        if b" 101 " not in head.partition(b"\r\n")[0]:
            self._close()
            return False
        self._held, self._upgraded = rest, True
        self._send(_text_frame(self._subscribe))
        return True

    def _send(self, raw: bytes) -> None:
        try:
            self._sock.send(raw)  # far smaller than a socket's buffer
        except OSError:
            self._close()

    def _close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._loop.close(self._sock)


def _text_frame(payload: bytes) -> bytes:
    """Masked with zeros, which change nothing."""
    if len(payload) < 126:
        return client_frame(TEXT, payload)
    return b"\x81\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload


class Witness:
    """Hears of the end of every task. When the server closes it, it resumes where it was."""

    def __init__(self, loop: Loop, url: str, on_end: Callable[[str, str], None]) -> None:
        self._loop, self._url, self._on_end = loop, url, on_end
        self.seq = -1  # -1: not subscribed yet
        self.resumed = 0
        self._watcher = self._subscribe({})

    def __repr__(self) -> str:
        return f"<Witness at {self.seq}, resumed {self.resumed} times>"

    def keep(self) -> None:
        """Call now and then: subscribes again if that is needed."""
        if not self._watcher.is_open:
            self.resumed += 1
            self._watcher = self._subscribe({"after": self.seq} if self.seq >= 0 else {})

    def leave(self) -> None:
        self._watcher.leave(politely=True)

    def _subscribe(self, more: Mapping[str, object]) -> Watcher:
        ends = {"statuses": ["Completed", "Failed", "Cancelled"], **more}
        return Watcher(self._loop, self._url, ends, self._take)

    def _take(self, message: dict[str, Any]) -> None:
        self.seq = max(self.seq, message.get("seq", -1))
        if "to" in message:
            self._on_end(message["taskId"], message["to"])


class Visitors:
    """Watchers that stay for some seconds and leave, politely or not; others take their places."""

    def __init__(self, loop: Loop, url: str, count: int, chance: random.Random) -> None:
        self._loop, self._url, self._chance = loop, url, chance
        self._here: list[tuple[float, Watcher]] = []  # when each leaves
        self._count = count
        self.visits = 0

    def __repr__(self) -> str:
        return f"<Visitors {len(self._here)} of {self._count}, {self.visits} visits>"

    def keep(self, now: float, seq: int) -> None:
        """Let those go whose time is over, and new ones come."""
        for leaves, watcher in self._here:
            if leaves <= now:
                watcher.leave(politely=self._chance.random() < 0.5)
        self._here = [each for each in self._here if each[1].is_open]
        while len(self._here) < self._count:
            watcher = Watcher(self._loop, self._url, self._wish(seq))
            self._here.append((now + self._chance.uniform(*_STAY_S), watcher))
            self.visits += 1

    def leave(self) -> None:
        for _, watcher in self._here:
            watcher.leave(politely=True)
        self._here.clear()

    def _wish(self, seq: int) -> dict[str, object]:
        wishes: tuple[dict[str, object], ...] = (
            {},
            {"statuses": ["Cancelled"]},
            {"statuses": ["Retrying"], "after": max(0, seq - _BACK)},
            {"names": ["bench-1"]},
        )
        return self._chance.choice(wishes)
