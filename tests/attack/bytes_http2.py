"""Hostile bytes for HTTP/2, which is not spoken here: upgrades, and those who do not ask."""

from __future__ import annotations

import base64
from typing import Final

from tests.attack.bytes_wire import HEALTHZ, get, h2_frame, post

UPGRADE: Final = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: "
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
START: Final = PREFACE + h2_frame(SETTINGS)
HEAD: Final = b"\x82\x84\x86\x41\x04test"  # GET http://test/ in HPACK
END_STREAM, END_HEADERS = 1, 4
LAST: Final = END_STREAM | END_HEADERS


def settings(*pairs: tuple[int, int]) -> bytes:
    """The payload of a SETTINGS frame."""
    return b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs)


def encoded(*pairs: tuple[int, int]) -> bytes:
    """Settings as the header of an upgrade has them."""
    return base64.urlsafe_b64encode(settings(*pairs)).rstrip(b"=")


def stream_ids(count: int) -> range:
    """A client's."""
    return range(1, 2 * count, 2)


UPGRADES: Final[dict[str, list[bytes]]] = {
    "h2c": [get(UPGRADE + b"AAMAAABkAAQAoAAAAAIAAAAA"), START],
    "h2c, not base64": [get(UPGRADE + b"AAA")],
    "h2c, no base64 at all": [get(UPGRADE + b"\xff!!")],
    "h2c, empty": [get(UPGRADE)],
    "h2c, no settings": [get(b"Connection: Upgrade", b"Upgrade: h2c")],
    "h2c, settings twice": [get(UPGRADE + b"AAMAAABk", b"HTTP2-Settings: AAMAAABk")],
    "h2c, settings of 7 KB": [get(UPGRADE + b"AAMAAABk" * 850)],
    "h2c, bad setting": [get(UPGRADE + b"AAX_____AAQAAAAA")],
    "h2c, no streams": [get(UPGRADE + encoded((3, 0))), START],
    "h2c, no window": [get(UPGRADE + encoded((4, 0))), START],
    "h2c, window of 2^32": [get(UPGRADE + encoded((4, 2**32 - 1))), START],
    "h2c, frames of nothing": [get(UPGRADE + encoded((5, 0))), START],
    "h2c, push of 2": [get(UPGRADE + encoded((2, 2))), START],
    "h2c, no UTF-8": [get(UPGRADE + b"AAMAAABk", line=b"GET /\xe9 HTTP/1.1")],
    "h2c, no UTF-8 in a header": [get(UPGRADE + b"AAMAAABk", b"X: \xe9")],
    "h2c with a body": [post(b"abc", UPGRADE + b"AAMAAABk", b"Content-Length: 3")],
    "h2c with chunks": [
        post(b"0\r\n\r\n", UPGRADE + b"AAMAAABk", b"Transfer-Encoding: chunked"), START,
    ],
    "h2c in HTTP/1.0": [get(UPGRADE + b"AAMAAABk").replace(b"HTTP/1.1", b"HTTP/1.0")],
    "h2c and a websocket": [get(UPGRADE + b"AAMAAABk", b"Upgrade: websocket")],
    "h2c behind a request": [HEALTHZ + get(UPGRADE + b"AAMAAABk"), START],
    "h2c, and frames at once": [get(UPGRADE + b"AAMAAABk") + START + h2_frame(PING, bytes(8))],
}  # fmt: skip

UNASKED: Final[dict[str, list[bytes]]] = {
    "h2": [START],
    "h2 with a bad frame": [PREFACE, b"\xff" * 100],
    "half an h2 preface": [PREFACE[:18]],
    "h2 preface without its end": [PREFACE[:-1]],
    "h2 preface twice": [PREFACE * 2],
    "h2 later": [HEALTHZ, PREFACE],
    "h2, then HTTP/1.1": [START, HEALTHZ],
    "h2 request": [START + h2_frame(HEADERS, HEAD, flags=LAST, stream=1)],
    "h2 settings of five bytes": [PREFACE + h2_frame(SETTINGS, bytes(5))],
    "h2 settings in a stream": [PREFACE + h2_frame(SETTINGS, stream=1)],
    "h2 settings confirmed with more": [START + h2_frame(SETTINGS, bytes(6), flags=1)],
    "h2 settings that are wrong": [PREFACE + h2_frame(SETTINGS, settings((4, 2**31), (5, 1)))],
    "h2 settings without end": [PREFACE + h2_frame(SETTINGS, settings((3, 1))) * 2000],
    "h2 pings": [START + h2_frame(PING, bytes(8)) * 2000],
    "h2 ping of nine": [START + h2_frame(PING, bytes(9))],
    "h2 rapid reset": [
        START + b"".join(
            h2_frame(HEADERS, HEAD, flags=LAST, stream=n) + h2_frame(RESET, bytes(4), stream=n)
            for n in stream_ids(1000)
        ),
    ],
    "h2 streams without end": [
        START, *[h2_frame(HEADERS, HEAD, flags=END_HEADERS, stream=n) for n in stream_ids(200)],
    ],
    "h2 continuations without end": [
        START + h2_frame(HEADERS, HEAD, stream=1),
        h2_frame(CONTINUATION, b"\x00\x01a\x01b" * 100, stream=1) * 200,
    ],
    "h2 headers in no stream": [START + h2_frame(HEADERS, HEAD, flags=LAST)],
    "h2 headers in a server's stream": [START + h2_frame(HEADERS, HEAD, flags=LAST, stream=2)],
    "h2 headers that are no HPACK": [START + h2_frame(HEADERS, b"\xff" * 50, flags=LAST, stream=1)],
    "h2 data in an idle stream": [START + h2_frame(DATA, b"abc", stream=7)],
    "h2 window of nothing": [START + h2_frame(WINDOW, bytes(4))],
    "h2 window beyond its end": [START + h2_frame(WINDOW, b"\x7f\xff\xff\xff") * 2],
    "h2 depends on itself": [START + h2_frame(PRIORITY, b"\x00\x00\x00\x01\x10", stream=1)],
    "h2 push by a client": [START + h2_frame(PUSH, bytes(4) + HEAD, flags=4, stream=1)],
    "h2 goes away": [START + h2_frame(GOAWAY, bytes(8))],
    "h2 frame of an unknown kind": [START + h2_frame(0xEE, b"abc")],
    "h2 frame of 16 MB": [START + b"\xff\xff\xff" + h2_frame(DATA, b"abc", stream=1)[3:]],
}  # fmt: skip

HTTP2: Final = UPGRADES | UNASKED
