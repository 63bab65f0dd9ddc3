"""Watchers that subscribe to everything and never read."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.watch_client import PATH, client_frame
from benchmarks.watching import TEXT

_BUFFER_BYTES: Final = 4096
_TIMEOUT_S: Final = 10.0


@contextmanager
def stalled_watchers(port: int, count: int) -> Iterator[None]:
    """So many of them for the length of the block; all events from the first on are theirs."""
    with ExitStack() as sockets:
        for _ in range(count):
            sockets.enter_context(_subscribe(port))
        yield


def _subscribe(port: int) -> socket.socket:
    watcher = socket.socket()
    try:
        watcher.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        watcher.settimeout(_TIMEOUT_S)
        watcher.connect(("127.0.0.1", port))
        key = base64.b64encode(os.urandom(16)).decode()
        watcher.sendall(
            f"GET {PATH} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nupgrade: websocket\r\n"
            f"connection: upgrade\r\nsec-websocket-version: 13\r\n"
            f"sec-websocket-key: {key}\r\n\r\n".encode()
        )
        answer = watcher.recv(_BUFFER_BYTES)
        assert b" 101 " in answer.partition(b"\r\n")[0], answer
        watcher.sendall(client_frame(TEXT, b'{"subscribe":{"after":0}}'))
    except BaseException:
        watcher.close()
        raise
    return watcher


def held_up(port: int) -> int:
    """How many connections of the server on this port have bytes to send that nobody takes."""
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, _, queues, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == port:
            count += int(queues.partition(":")[0], 16) > 0
    return count
