"""A server that gives one fixed answer as fast as plain Python can, to measure clients against.

It understands no more HTTP than where a request ends: what it costs must not hide what a client
costs. Runs until it is ended: ``python -m benchmarks.fixed_answer``, which prints its URL.
"""

from __future__ import annotations

import re
import selectors
import signal
import socket
import sys
from typing import Final

_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: fixed\r\n"
    b"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 11\r\n\r\n" + b'{"ok":true}'
)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def main() -> None:
    """Listen on a free port of loopback, print the URL, answer for ever."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    listener.setblocking(False)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
    watched = selectors.DefaultSelector()
    watched.register(listener, selectors.EVENT_READ, None)
    while True:
        for key, _ in watched.select():
            if key.data is None:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                watched.register(connection, selectors.EVENT_READ, [connection, b""])
            elif not _serve(key.data):
                watched.unregister(key.data[0])
                key.data[0].close()


def _serve(state: list[socket.socket | bytes]) -> bool:
    """Answer a request that is whole. Whether the client is still there."""
    connection, held = state
    assert isinstance(connection, socket.socket)
    assert isinstance(held, bytes)
    try:
        received = connection.recv(65536)
        if not received:
            return False
        state[1] = held = held + received
        head = held.find(b"\r\n\r\n")
        length = _LENGTH.search(held)
        if head >= 0 and len(held) >= head + 4 + (int(length[1]) if length else 0):
            state[1] = b""
            connection.sendall(_ANSWER)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
