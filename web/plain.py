"""Plain requests, which leave no doubt what they say, read in one go; and the answers to them.

What is read here, h11 reads alike; what is odd in any way is left to it, so no leniency comes in
by being fast. A plain request has a body of known length, and nothing that upgrades, that expects
an answer in between, or that may have to wait.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import attrs

_HEADERS: Final = rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t -~]*+\r\n)++"
_HEAD: Final = re.compile(rb"([A-Z]{3,7}) (/[!-~]*+) HTTP/1\.1\r\n(" + _HEADERS + rb")\r\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,9}")
_SPECIAL: Final = frozenset({b"expect", b"prefer", b"transfer-encoding", b"upgrade"})
_KEPT: Final = {b"keep-alive": True, b"close": False}


@attrs.define
class Plain:
    """The head of a plain request. Each header is there once, its name in lower case."""

    method: str
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    length: int  # of the body
    kept: bool  # whether the client wants the connection to be kept
    size: int  # of the head itself


def read_head(data: bytes, most: int) -> Plain | None:
    """The head that ``data`` begins with, if it is all there, at most so long, and plain."""
    found = _HEAD.match(data, 0, most)
    if found is None:
        return None
    method, target, lines = found.groups()
    headers: dict[bytes, bytes] = {}
    for line in lines[:-2].split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in headers:
            return None
        headers[name] = value.strip(b" \t")
    kept = _KEPT.get(headers.get(b"connection", b"keep-alive").lower())
    length = headers.get(b"content-length", b"0")
    if (
        kept is None
        or b"host" not in headers
        or not _LENGTH.fullmatch(length)
        or not _SPECIAL.isdisjoint(headers)
    ):
        return None
    path, _, query = target.partition(b"?")
    return Plain(method.decode(), path, query, headers, int(length), kept, found.end())


@attrs.define
class Answer:
    """A status, headers and a body: bytes, or what Quart can stream."""

    status: int
    headers: list[tuple[str, str]]
    body: Any

    def text(self, more: str) -> bytes:
        """All of it as it is sent, with ``more`` lines of headers. Raises ``ValueError`` for a
        header that would be more than one line."""
        head = f"HTTP/1.1 {self.status} \r\n"
        for name, value in self.headers:
            if not value.isprintable():
                raise ValueError(f"the header {name} cannot be sent")
            head += f"{name.lower()}: {value}\r\n"
        head += f"content-length: {len(self.body)}\r\n{more}\r\n"
        return head.encode("latin-1") + bytes(self.body)


ReadBody = Callable[[], Awaitable[bytes]]
"""Gives a request's body. Raises ``trio.BrokenResourceError`` if the client leaves meanwhile."""


class Lane(Protocol):
    """What answers plain requests."""

    async def answer(self, plain: Plain, read: ReadBody, /) -> Answer | None:
        """The answer; or nothing, with nothing done, if the request is not for this lane."""


class NoLane:
    """The lane of an app that has none."""

    async def answer(self, _plain: Plain, _read: ReadBody, /) -> Answer | None:
        """Nothing."""
        return None
