"""A new connection: resolve → check every address → connect to a checked one → TLS.

The guard sees the very addresses that are connected to, so a name that changes its mind between two
look-ups gains nothing. One refused address refuses the whole attempt: a name that mixes good and bad
addresses is either a mistake or an attack. TLS verifies the name of the URL, never what it
resolved to.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Protocol

import attrs
import trio

from engine.core.task import ErrorClass

from .failures import CallFailed, is_shortage, refused
from .names import Names
from .request import Origin
from .wire import TlsWire, Wire, own_address_towards

ConnectTcp = Callable[[str, int], Awaitable[Wire]]
"""Connects to an address and port; raises ``OSError``."""


class Egress(Protocol):
    """Where callbacks may go; ``engine.core.egress.EgressPolicy`` is one. Asked at every connect: a
    kept connection stays as allowed as it was, because a policy does not change while we run."""

    def refusal(self, address: str, port: int, *, ours: bool = False) -> str | None:
        """Why nothing may connect there; ``None`` if it may."""
        ...

    def guards_wildcard(self, port: int) -> bool:
        """Whether it matters that an address is this machine's own."""
        ...


def is_own_address(address: str) -> bool:
    """Whether this machine has that address. No packet is sent."""
    if ip_address(address).is_loopback:
        return True
    own = own_address_towards(address)  # without a way nothing could be reached there anyway
    return own is not None and ip_address(own) == ip_address(address)


@attrs.frozen(kw_only=True)
class Connector:
    """Opens connections. ``timeout_s`` covers everything from the name to the end of TLS."""

    names: Names
    egress: Egress
    connect: ConnectTcp
    tls: ssl.SSLContext
    timeout_s: float
    is_own_address: Callable[[str], bool]

    async def open(self, origin: Origin) -> Wire:
        """Connect. Raises ``CallFailed``, ``OSError`` or ``trio.BrokenResourceError``."""
        late = CallFailed(ErrorClass.DNS, "looking up the host name took too long")
        with trio.move_on_after(self.timeout_s) as scope:
            addresses = await self.names.addresses(origin.host)
            late = CallFailed(ErrorClass.CONNECT_TIMEOUT, "the connection took too long")
            wire = await self._connect_checked(addresses, origin, scope.deadline)
            if not origin.tls:
                return wire
            late = CallFailed(ErrorClass.CONNECT_TIMEOUT, "the TLS handshake took too long")
            return await self._secure(wire, origin)
        self.names.forget(origin.host)
        raise late

    async def _connect_checked(
        self, addresses: Sequence[str], origin: Origin, deadline: float
    ) -> Wire:
        try:
            self._check(addresses, origin.port)
            return await self._connect_one_of(addresses, origin.port, deadline)
        except CallFailed:
            self.names.forget(origin.host)
            raise
        except OSError as error:
            if is_shortage(error):
                raise
            self.names.forget(origin.host)
            raise refused(error) from error

    def _check(self, addresses: Sequence[str], port: int) -> None:
        for address in addresses:
            problem = self.egress.refusal(address, port)
            if problem is None and self.egress.guards_wildcard(port):
                problem = self.egress.refusal(address, port, ours=self.is_own_address(address))
            if problem is not None:
                raise CallFailed(ErrorClass.EGRESS_DENIED, f"callbacks may not go there: {problem}")

    async def _connect_one_of(self, addresses: Sequence[str], port: int, deadline: float) -> Wire:
        """Try one after the other; each gets an equal share of the time that is left."""
        for left, address in zip(range(len(addresses), 1, -1), addresses, strict=False):
            share_s = max(0.0, deadline - trio.current_time()) / left
            try:
                with trio.move_on_after(share_s):
                    return await self.connect(address, port)
            except OSError as error:
                if is_shortage(error):
                    raise
        return await self.connect(addresses[-1], port)

    async def _secure(self, wire: Wire, origin: Origin) -> Wire:
        try:
            secured = TlsWire(wire, self.tls, origin.host.removesuffix("."))
            await secured.shake_hands()
        except BaseException:
            wire.close()
            raise
        return secured
