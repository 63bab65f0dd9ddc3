"""A callee that tells all it got to everybody, in a thread."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any
from urllib.parse import quote

KEPT_BYTES = 64 * 1024  # what Ringback keeps of an answer

Headers = dict[str, str]


def _headers_and_body(got: Headers, body: bytes) -> bytes:
    return json.dumps({"headers": got, "body": body.decode()}).encode()


SPELLINGS: dict[str, Callable[[Headers, bytes], bytes]] = {
    "/json": _headers_and_body,
    "/html": lambda got, body: html.escape(str(got) + body.decode()).encode(),
    "/base64": lambda got, body: base64.b64encode(_headers_and_body(got, body)),
    "/base64url": lambda got, body: base64.urlsafe_b64encode(_headers_and_body(got, body)),
    "/hex": lambda got, body: _headers_and_body(got, body).hex().encode(),
    "/url": lambda got, body: quote(str(got) + body.decode(), safe="").encode(),
    "/decoded": lambda got, _: base64.b64decode(got["authorization"].split()[-1] + "=="),
    "/values": lambda got, _: "\n".join(
        part for value in got.values() for part in value.replace("=", " ").split()
    ).encode(),
    # The end of what is kept comes in the middle of the last header.
    "/cut": lambda got, _: (text := str(got["x-custom"])).join(
        ["x" * (KEPT_BYTES - len(text) // 2), "y" * 100]
    ).encode(),
}  # fmt: skip


class Echo(ThreadingTCPServer):
    """Answers by the URL's path: a spelling, after ``/500`` or ``/400`` as that status; ``/head``
    in headers; ``/illegal`` and ``/status`` in what is not HTTP; ``/cut-off`` half of it."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[Headers] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(StreamRequestHandler):
    server: Any

    def handle(self) -> None:
        first = self.rfile.read(1)
        if not first.isalpha():  # a TLS handshake
            return
        path = self.rfile.readline().split()[1].decode()
        got: Headers = {}
        while line := self.rfile.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            got[name.lower()] = value.strip()
        body = self.rfile.read(int(got.get("content-length", 0)))
        self.server.got.append({":path": path, **got})
        self.wfile.write(_answer(path, got, body))


def _answer(path: str, got: Headers, body: bytes) -> bytes:
    shown = str(got).encode()
    match path:
        case "/head":
            lines = "".join(
                f"X-{name}: {value}\r\nContent-Type: {value}\r\n" for name, value in got.items()
            )
            return f"HTTP/1.1 503 no\r\nRetry-After: 0\r\n{lines}Content-Length: 0\r\n\r\n".encode()
        case "/illegal":
            return b"HTTP/1.1 200 OK\r\n" + shown + b"\r\n\r\n"
        case "/status":
            return shown + b"\r\n\r\n"
        case "/cut-off":
            return b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + shown
        case _:
            return _spelled(path, got, body)


def _spelled(path: str, got: Headers, body: bytes) -> bytes:
    status = path[1:4] if path[1:4].isdigit() else "200"
    said = SPELLINGS[path.removeprefix(f"/{status}")](got, body)
    length = f"Content-Length: {len(said)}\r\nConnection: close\r\n\r\n"
    return f"HTTP/1.1 {status} said\r\n{length}".encode() + said


@contextmanager
def echoing() -> Iterator[Echo]:
    """A callee for the length of the block."""
    with Echo() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)
