"""How the receiver behaves, by path: rows of data and pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

import attrs

from web.receiver.wire import BadRequest

FILL_BYTES_MAX: Final = 1024**3
PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


@attrs.frozen
class Reaction:
    """What a path does with a call: waits, then answers. Status 0 closes without an answer."""

    status: int = 200
    body: bytes = b'{"ok":true}'
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    fill_bytes: int = 0  # sent behind the body, never held in memory

    def wire(self) -> bytes:
        bodiless = self.status in (204, 304)
        length = 0 if bodiless else len(self.body) + self.fill_bytes
        lines = [f"HTTP/1.1 {self.status} {PHRASES.get(self.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if not bodiless:
            lines += ["content-type: application/json", f"content-length: {length}"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if bodiless else self.body)


Query = Mapping[str, str]


def _number(query: Query, name: str, default: float, most: float) -> float:
    try:
        value = float(query.get(name, default))
    except ValueError:
        raise BadRequest(400, f"{name} is not a number") from None
    if not 0 <= value <= most:  # false for NaN too
        raise BadRequest(400, f"{name} is not between 0 and {most:g}")
    return value


def _slow(query: Query, _attempt: int) -> Reaction:
    return Reaction(delay_s=_number(query, "ms", 200, 3_600_000) / 1000)


def _flaky(query: Query, attempt: int) -> Reaction:
    if attempt <= _number(query, "fails", 2, 1000):
        return Reaction(max(200, int(_number(query, "status", 503, 599))), b'{"error":"not yet"}')
    return Reaction()


def _big(query: Query, _attempt: int) -> Reaction:
    return Reaction(body=b"", fill_bytes=int(_number(query, "bytes", 1024**2, FILL_BYTES_MAX)))


def _retry_after(query: Query, attempt: int) -> Reaction:
    if attempt > 1:
        return Reaction()
    seconds = int(_number(query, "seconds", 1, 86_400))
    return Reaction(429, b'{"error":"later"}', (("retry-after", str(seconds)),))


REACTIONS: Final[Mapping[str, Callable[[Query, int], Reaction]]] = {
    "/good": lambda _query, _attempt: Reaction(),
    "/slow": _slow,  # ?ms=200
    "/flaky": _flaky,  # ?fails=2&status=503: that, until so many attempts of the task have failed
    "/broken": lambda _query, _attempt: Reaction(500, b'{"error":"broken"}'),
    "/permanent": lambda _query, _attempt: Reaction(422, b'{"error":"never"}'),
    "/hang": lambda _query, _attempt: Reaction(0, delay_s=math.inf),
    "/drop": lambda _query, _attempt: Reaction(0),
    "/redirect": lambda _query, _attempt: Reaction(302, b"{}", (("location", "/good"),)),
    "/big": _big,  # ?bytes=N
    "/retry-after": _retry_after,  # ?seconds=1: 429 on the first attempt
}  # and /status/NNN


@lru_cache(maxsize=1024)
def react(target: str, attempt: int) -> tuple[Reaction, bytes]:
    """The behaviour of a target and the bytes it answers with; pure, so it is worked out once."""
    path, _, query = target.partition("?")
    code = path.removeprefix("/status/")
    if code != path and code.isascii() and code.isdigit() and 200 <= int(code) <= 599:
        reaction = Reaction(int(code), b"{}")
    elif path in REACTIONS:
        reaction = REACTIONS[path](dict(parse_qsl(query)), attempt)
    else:
        reaction = Reaction(404, b'{"error":"no such path"}')
    return reaction, reaction.wire()
