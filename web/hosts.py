"""Which names this server answers to, and which pages may use it.

A page from anywhere can make a browser send requests to a loopback address. Two checks stop it:

* Its own name can be made to resolve to our address (DNS rebinding): then the browser takes us for
  the page's server and lets it read everything. But ``Host`` still has that name, so only names
  that are known to be ours are answered to. An address in ``Host`` cannot be rebound.
* It can send us a form or a bodiless POST, whose answer it cannot read (CSRF), or open a websocket,
  whose messages it can. Browsers then say in ``Origin`` where the page is from.

Reading by GET, server-sent events included, needs no check of the origin: without CORS headers, of
which we send none, a browser does not show the answer to a page from elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final

from .problems import Problem, bad_request

_NAME: Final = r"[A-Za-z0-9._-]{1,253}"
_AUTHORITY: Final = re.compile(rf"(\[[0-9A-Fa-f:.]{{2,45}}\]|{_NAME})(?::([0-9]{{0,5}}))?")
_ALLOWED_HOST: Final = re.compile(r"\*|\.?[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]+\]")
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\s]+)")
_PORTS: Final = {"http": ":80", "https": ":443"}
_AUTHORITY_MAX: Final = 300
_REMEMBERED: Final = 256  # values of headers; clients send few, and no one may fill the memory


def parse_hosts(value: str | Iterable[str]) -> tuple[str, ...]:
    """Names separated by commas or blanks. Raises ``ValueError``."""
    names = _entries(value)
    for number, name in enumerate(names, 1):
        if not _ALLOWED_HOST.fullmatch(name):
            raise ValueError(
                f"allowed hosts: entry {number} must be a name without a port or path, such as "
                "tasks.example.com; .example.com for it and all below it; or * for any"
            )
    return names


def parse_origins(value: str | Iterable[str]) -> tuple[str, ...]:
    """Origins separated by commas or blanks. Raises ``ValueError``."""
    origins = _entries(value)
    for number, origin in enumerate(origins, 1):
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"allowed origins: entry {number} must be as browsers send it, such as "
                "https://admin.example.com or http://localhost:3000, without a slash at its end; "
                "or * for any"
            )
    return origins


def _entries(value: str | Iterable[str]) -> tuple[str, ...]:
    entries = value.replace(",", " ").split() if isinstance(value, str) else value
    return tuple(entry.lower() for entry in entries)


class Hosts:
    """The names this server answers to: ``own`` ones, localhost, any address, and those allowed."""

    def __init__(self, own: Iterable[str], allowed: Sequence[str]) -> None:
        names = {_bare(name) for name in (*own, "localhost", *allowed)}
        self._any = "*" in names
        self._names = frozenset(names)
        self._suffixes = tuple(f".{name.strip('.')}" for name in allowed if name.startswith("."))
        self._refusal = lru_cache(_REMEMBERED)(self._judge)

    def check(self, host: bytes) -> None:
        """Raise a 400 for what is no host, and a 421 for one that is not ours."""
        refusal = self._refusal(host) if len(host) <= _AUTHORITY_MAX else (400, "")
        if refusal is None:
            return
        status, name = refusal
        if status == 400:
            raise bad_request("the Host of the request is malformed")
        raise Problem(
            status=421,
            kind="misdirected",
            detail=f"this server does not answer to the name {name}: if it is one of its names, "
            "start it with --allowed-hosts (RINGBACK_ALLOWED_HOSTS)",
        )

    def _judge(self, host: bytes) -> tuple[int, str] | None:
        found = _AUTHORITY.fullmatch(host.decode("latin-1"))
        if found is None:
            return 400, ""
        name = _bare(found[1])
        if name.startswith("["):
            return None if _is_address(name[1:-1], ipaddress.IPv6Address) else (400, "")
        known = self._any or name in self._names or _is_address(name, ipaddress.IPv4Address)
        if known or f".{name}".endswith(self._suffixes):
            return None
        return 421, name


def _bare(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_address(text: str, kind: Callable[[str], object]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


class Origins:
    """The pages that may change something here: those from this server, and those allowed."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._any = "*" in allowed
        self._allowed = frozenset(allowed)
        self._is_foreign = lru_cache(_REMEMBERED)(self._judge)

    def check(self, origin: bytes | None, site: bytes | None, host: bytes | None) -> None:
        """Raise a 403 if this comes from a page from elsewhere. ``site`` is ``Sec-Fetch-Site``,
        which also tells of requests that carry no ``Origin``, such as those for an image."""
        if origin is None:
            foreign = site in (b"cross-site", b"same-site") and not self._any
        else:
            foreign = len(origin) > _AUTHORITY_MAX or self._is_foreign(origin, host)
        if foreign:
            raise Problem(
                status=403,
                kind="forbidden-origin",
                detail="a page from elsewhere may not do this: if it should, start the server "
                "with its origin in --allowed-origins (RINGBACK_ALLOWED_ORIGINS)",
            )

    def _judge(self, origin: bytes, host: bytes | None) -> bool:
        text = origin.decode("latin-1").lower()
        if self._any or text in self._allowed:
            return False
        found = _ORIGIN.fullmatch(text)
        if found is None or host is None:
            return True  # "null", which sandboxed pages and files send, is foreign
        # The scheme is not compared: behind a proxy that does TLS we do not know ours.
        port = _PORTS.get(found[1], "")
        ours = host.decode("latin-1").lower()
        return found[2].removesuffix(port) != ours.removesuffix(port)
