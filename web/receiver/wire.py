"""Cutting HTTP/1.1 requests out of bytes.

By hand, because in a benchmark the receiver shares the machine with the server it measures. A
request with a transfer coding is refused (411): every caller we measure sends a content-length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
import trio

HEAD_BYTES_MAX: Final = 64 * 1024
BODY_BYTES_MAX: Final = 32 * 1024 * 1024
_FILLING: Final = b"x" * (64 * 1024)


@attrs.frozen
class Request:
    """One HTTP request. Header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    keep_alive: bool = True

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class BadRequest(Exception):
    """The bytes are no request we answer; the connection is answered with `status` and closed."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def parse_head(head: bytes) -> tuple[Request, int]:
    """The request of a head, without its body, and how many bytes that body has."""
    request_line, *header_lines = head.decode("latin-1").split("\r\n")
    match request_line.split(" "):
        case [str(method), str(target), "HTTP/1.1" | "HTTP/1.0" as version] if target[:1] == "/":
            pass
        case _:
            raise BadRequest(400, "no request line")
    headers: dict[str, str] = {}
    for line in header_lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name[-1].isspace() or name[0].isspace():
            raise BadRequest(400, "a header line without a name")
        headers[name.lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise BadRequest(411, "only bodies with a content-length")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise BadRequest(400, "content-length is not a number")
    if len(length) > 12 or int(length) > BODY_BYTES_MAX:
        raise BadRequest(413, "the body is too long")
    keep_alive = version == "HTTP/1.1" and "close" not in headers.get("connection", "").lower()
    return Request(method, target, headers, b"", keep_alive), int(length)


class Peer:
    """Cuts requests out of the bytes of one connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def request(self) -> Request | None:
        """The next request; None when the peer has left, even in the middle of one."""
        if found := self._cut():
            await trio.lowlevel.checkpoint()  # pipelined: let the others run as well
            return found
        while await self._fill():
            if found := self._cut():
                return found
        return None

    async def stays(self, seconds: float) -> bool:
        """Wait; False as soon as the peer leaves. What it pipelines meanwhile is kept."""
        with trio.move_on_after(seconds):
            here = await self._fill()
            while here and len(self._buffer) <= HEAD_BYTES_MAX + BODY_BYTES_MAX:
                here = await self._fill()
            return False
        return True

    async def send_filled(self, head: bytes, fill_bytes: int) -> None:
        await self.stream.send_all(head)
        while fill_bytes > 0:
            await self.stream.send_all(_FILLING[:fill_bytes])
            fill_bytes -= len(_FILLING)

    async def _fill(self) -> bool:
        data = await self.stream.receive_some()
        self._buffer += data
        return bool(data)

    def _cut(self) -> Request | None:
        """Take one whole request off the buffer, if there is one."""
        if (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise BadRequest(431, "the head is too long")
            return None
        request, body_bytes = parse_head(bytes(self._buffer[:end]))
        stop = end + 4 + body_bytes
        if len(self._buffer) < stop:
            return None
        body = bytes(self._buffer[end + 4 : stop])
        del self._buffer[:stop]
        return attrs.evolve(request, body=body) if body else request
