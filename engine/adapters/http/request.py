"""What goes out: whom a URL is about, and a request as bytes.

Most of this was checked when the task was created. It is checked again here because here is where
the harm would be done: what leaves this file is one well-formed request to one origin.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NoReturn

import attrs
import httpx

from engine.core.callback import CallbackRequest
from engine.core.task import ErrorClass

from .failures import CallFailed

_PORTS = {"http": 80, "https": 443}
_URL_MAX = 64 * 1024
_URL = re.compile(  # in visible ASCII: the origin, path with query, a fragment
    r'([A-Za-z]+://[!-"$-.0->@-~]*)([!-"$-~]*)(?:#[!-~]*)?'
)
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_HOST_MAX = 253

_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*")  # RFC 9110 §5.6.2, any number of them joined
_VALUES = re.compile(r"[\t -~]*")  # RFC 9110 §5.5 without obs-text
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_WITHOUT_BODY = frozenset({"GET", "DELETE"})
_OURS = frozenset(  # they say where a request ends, or what the connection is for
    {
        "host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer",
        "expect", "keep-alive", "proxy-connection",
    }
)  # fmt: skip


@attrs.frozen(cache_hash=True)
class Origin:
    """Whom a connection is with."""

    tls: bool
    host: str  # lower case, an IPv6 address without brackets
    port: int
    shown: str  # as the Host header names it


def message_of(request: CallbackRequest) -> tuple[Origin, bytes]:
    """Whom the request is for, and all of it, to be sent in one go. Path and query are exactly
    those of the URL. Raises ``CallFailed`` for what cannot be called or would not be one request;
    its text shows no part of it."""
    match = _URL.fullmatch(request.url) if len(request.url) <= _URL_MAX else None
    if match is None:
        _refuse("it is not one of HTTP in visible ASCII")
    origin, path = _origin_of(match[1]), match[2]
    headers, body, method = request.headers, request.body, request.method
    if (
        method not in _METHODS
        or not _are_names(tuple(headers))
        or not _VALUES.fullmatch("".join(headers.values()))
    ):
        raise CallFailed(ErrorClass.INVALID_REQUEST, "the request is not valid HTTP")
    root = "" if path.startswith("/") else "/"
    lines = [f"{method} {root}{path} HTTP/1.1", f"Host: {origin.shown}"]
    lines += map(": ".join, headers.items())
    if body or method not in _WITHOUT_BODY:
        lines.append(f"Content-Length: {len(body)}")
    lines += ("", "")
    return origin, "\r\n".join(lines).encode("ascii") + body


@lru_cache(maxsize=256)
def _are_names(headers: tuple[str, ...]) -> bool:
    """Whether all may stand in a request. Most requests have the same: so they are remembered."""
    return (
        "" not in headers
        and _NAMES.fullmatch("".join(headers)) is not None
        and _OURS.isdisjoint(map(str.lower, headers))
    )


@lru_cache(maxsize=1024)
def _origin_of(start: str) -> Origin:
    """The origin of a URL, given up to its authority."""
    try:
        parsed = httpx.URL(start)
        host, port, scheme = parsed.raw_host.decode("ascii"), parsed.port, parsed.scheme
        named = parsed.host  # raises if a name begins with xn-- and is none
    except (httpx.InvalidURL, UnicodeError):
        _refuse("its host or port is not valid")
    if scheme not in _PORTS:
        _refuse("it is not one of HTTP")
    if parsed.userinfo:
        _refuse("it carries a user name or password")
    if not named or not _is_host(host):
        _refuse("it names no valid host")
    if port is not None and not 1 <= port <= 65535:
        _refuse("the port is not one from 1 to 65535")
    shown = f"[{host}]" if ":" in host else host
    shown += "" if port is None else f":{port}"
    return Origin(scheme == "https", host, port or _PORTS[scheme], shown)


def _is_host(host: str) -> bool:
    if ":" in host:
        return "%" not in host  # a zone would name one of our interfaces
    labels = host.removesuffix(".").split(".")
    return len(host) <= _HOST_MAX and all(map(_LABEL.fullmatch, labels))


def _refuse(reason: str) -> NoReturn:
    raise CallFailed(ErrorClass.INVALID_REQUEST, f"the URL cannot be called: {reason}")
