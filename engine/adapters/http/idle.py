"""Connections that wait for the next call to their origin."""

from __future__ import annotations

from collections import OrderedDict

import attrs
import trio

from .connection import Connection
from .request import Origin


@attrs.frozen
class _Kept:
    connection: Connection
    until: float


class IdleConnections:
    """The idle connections of all callers, the oldest first; each belongs to one caller.

    There is no timer: every call closes what has expired, of whichever caller. So while anything is
    called at all, none outlives its time by much; when nothing is, at most ``each_max`` for each
    caller stay open on our side.
    """

    def __init__(self, *, each_max: int, expiry_s: float) -> None:
        self._each_max = each_max
        self._expiry_s = expiry_s
        self._kept: OrderedDict[tuple[object, Origin], _Kept] = OrderedDict()
        self._origins: dict[object, list[Origin]] = {}  # of each caller, the oldest first

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, caller: object, origin: Origin) -> Connection | None:
        """The caller's connection to that origin, if it has one that may be used."""
        self._close_expired()
        kept = self._kept.pop((caller, origin), None)
        if kept is None:
            return None
        self._origins[caller].remove(origin)
        if kept.connection.is_quiet():
            return kept.connection
        kept.connection.close()  # the server closed it, or sent what nobody asked for
        return None

    def keep(self, caller: object, origin: Origin, connection: Connection) -> None:
        """Keep a connection that has none beside it to the same origin."""
        origins = self._origins.setdefault(caller, [])
        if len(origins) >= self._each_max:
            self._kept.pop((caller, origins.pop(0))).connection.close()
        origins.append(origin)
        until = trio.current_time() + self._expiry_s
        self._kept[caller, origin] = _Kept(connection, until)

    def close(self, caller: object) -> None:
        """Close what the caller has, and forget it."""
        for origin in self._origins.pop(caller, []):
            self._kept.pop((caller, origin)).connection.close()

    def _close_expired(self) -> None:
        now = trio.current_time()
        while self._kept:
            (caller, origin), kept = next(iter(self._kept.items()))
            if kept.until > now:
                return
            del self._kept[caller, origin]
            self._origins[caller].remove(origin)
            kept.connection.close()
