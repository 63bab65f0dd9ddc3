"""How requests, websocket handshakes and frames are spelled, rightly or nearly so."""

from __future__ import annotations

import struct
from typing import Final

CREATE: Final = b"/api/v1/tasks"
STREAM: Final = b"/api/v1/tasks/stream"
HOST: Final = b"Host: test\r\n"
HEALTHZ: Final = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"


def get(*lines: bytes, line: bytes = b"GET /healthz HTTP/1.1") -> bytes:
    """A request without a body."""
    return b"\r\n".join([line, b"Host: test", *lines, b"\r\n"])


def post(body: bytes, *lines: bytes) -> bytes:
    """A request with a body, and whatever the lines say of its length."""
    return get(*lines, line=b"POST " + CREATE + b" HTTP/1.1") + body


def upgrade(path: bytes = STREAM, *extra: bytes) -> bytes:
    """A good handshake, unless the extra lines spoil it."""
    return b"\r\n".join(
        [
            b"GET " + path + b" HTTP/1.1",
            b"Host: test",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            *extra,
            b"\r\n",
        ]
    )


def frame(payload: bytes, opcode: int = 1, *, fin: bool = True) -> bytes:
    """A client's frame; its mask is all zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes([(0x80 if fin else 0) | opcode]) + length + bytes(4) + payload


def close(code: int, reason: bytes = b"") -> bytes:
    """A client's close frame."""
    return frame(struct.pack("!H", code) + reason, 8)


def h2_frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """A frame of HTTP/2 (RFC 9113 §4.1)."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload
