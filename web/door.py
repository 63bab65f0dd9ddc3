"""The door: what every request passes before anything else looks at it, websockets included.

``Host`` and ``Origin`` are checked (``hosts``), then whose key it is (``auth``) and how fast that
key asks (``rates``). It stands in front of the app, so there is no URL without it, known or not.
Which scope a request needs is known when its operation is: ``router`` checks that.
"""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlparse

import trio

from .auth import ANYBODY, KEY, VISITOR, ApiKey, Scope, authenticate, authorise
from .hosts import Hosts, Origins
from .problems import Problem, bad_request
from .rates import Rates
from .router import Operation
from .settings import WebSettings

_log = logging.getLogger("ringback.web")

_LOOKED_AT: Final = frozenset({b"host", b"origin", b"sec-fetch-site", b"authorization"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
NO_SNIFFING: Final = ("x-content-type-options", "nosniff")
_NO_SNIFFING: Final = tuple(part.encode() for part in NO_SNIFFING)

Asked = Mapping[str, Any]  # an ASGI scope
Given = dict[bytes, list[bytes]]  # headers
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Any, Send], Awaitable[None]]


class Door:
    """An ASGI app in front of another. ``operations`` tells which URLs are open to all, and which
    change something although the method is GET; ``own_names`` are names of this server."""

    def __init__(
        self,
        app: App,
        settings: WebSettings,
        operations: Iterable[Operation],
        own_names: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._keys = settings.api_keys
        self._hosts = Hosts((*own_names, socket.gethostname()), settings.allowed_hosts)
        self._origins = Origins(settings.allowed_origins)
        self._rates = Rates(settings.key_requests_per_second)
        offered = list(operations)
        self._open = frozenset(one.path for one in offered if one.needs is Scope.OPEN)
        self._changed_by_get = frozenset(
            one.path for one in offered if one.method == "GET" and one.needs > Scope.READ
        )

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), _NO_SNIFFING]
            await send(message)

        try:
            scope[KEY] = self.admit(scope, trio.current_time())
        except Problem as problem:
            _log.debug("refused %s: %s", scope["path"], problem.kind)
            await _refuse(problem, scope, send_safely)
        else:
            await self._app(scope, receive, send_safely)

    def admit(self, scope: Asked, now: float) -> ApiKey:
        """Whose request this is. Raises a ``Problem`` if it may not come in."""
        headers = _looked_at(scope["headers"])
        host = self._check_hosts(scope, headers.get(b"host", []))
        path = _path(scope["path"])
        method = scope.get("method")  # a websocket has none
        if method not in _SAFE or path in self._changed_by_get:
            self._check_origin(headers, host)
        if not self._keys:
            return ANYBODY
        if path in self._open:
            return VISITOR
        key = authenticate(self._keys, headers.get(b"authorization", []))
        if method is None:
            authorise(key, Scope.READ)
        wait_s = self._rates.wait_s(key.id, now)
        if wait_s:
            raise _too_fast(key, wait_s)
        return key

    def _check_hosts(self, scope: Asked, given: list[bytes]) -> bytes | None:
        """The host asked for. With a whole URL as target there are two, and both must be ours."""
        if len(given) > 1 or (not given and scope["http_version"] != "1.0"):
            raise bad_request("there must be exactly one Host")  # no browser speaks HTTP/1.0
        raw_path = scope.get("raw_path", b"/")
        if not raw_path.startswith((b"/", b"*")):
            given = [*given, raw_path.split(b"//", 1)[-1].split(b"/", 1)[0]]
        for host in given:
            self._hosts.check(host)
        return given[-1] if given else None

    def _check_origin(self, headers: Given, host: bytes | None) -> None:
        origins, sites = headers.get(b"origin", []), headers.get(b"sec-fetch-site", [])
        if len(origins) > 1:
            raise bad_request("there must be at most one Origin")
        self._origins.check(origins[0] if origins else None, sites[0] if sites else None, host)


def _looked_at(headers: Iterable[tuple[bytes, bytes]]) -> Given:
    """The headers the door goes by. Their names come in lower case."""
    found: Given = {}
    for name, value in headers:
        if name in _LOOKED_AT:
            found.setdefault(name, []).append(value)
    return found


def _path(path: str) -> str:
    """The path the app will go by: Quart takes it out of a whole URL like this."""
    if path.startswith("/"):
        return path
    try:
        return urlparse(path).path
    except ValueError:  # unquoted, it has a host that is none, wherever the one checked stands
        raise bad_request("the target of the request is malformed") from None


def _too_fast(key: ApiKey, wait_s: float) -> Problem:
    return Problem(
        status=429,
        kind="too-many-requests",
        detail=f"the key {key.id} has asked too often: try again in {wait_s:.3g} s",
        headers={"Retry-After": str(math.ceil(wait_s))},
    )


async def _refuse(problem: Problem, scope: Asked, send: Send) -> None:
    """Answer with the problem; a websocket is refused before it is accepted."""
    kind = "http.response"
    if scope["type"] == "websocket":
        kind = "websocket.http.response"
        if kind not in scope.get("extensions", {}):
            await send({"type": "websocket.close"})  # the server makes a 403 of it
            return
    body = problem.text().encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    await send({"type": f"{kind}.start", "status": problem.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body, "more_body": False})
