"""Where callbacks may go: the egress guard's decisions, without any I/O.

The rules are checked against addresses, never names: a name means what it resolves to at the moment
of the attempt, so every answer is checked and the checked address is the one connected to. What is
always refused cannot be opened by any setting.
"""

from __future__ import annotations

import enum
import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

import attrs

from engine.config import Network

from .address_kinds import Address, Refused, hidden_in, kind_of

_LITERAL = re.compile(
    r"(https?)://(?:\[([0-9a-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?(?=[/?#]|$)", re.IGNORECASE
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Profile(enum.StrEnum):
    """Which addresses callbacks may go to."""

    INTERNAL = "internal"  # global, private and loopback ones
    PUBLIC = "public"  # global ones and the networks that are allowed by name


@attrs.frozen
class Listener:
    """Where we listen ourselves; the address may be a wildcard (``0.0.0.0``, ``::``)."""

    address: str
    port: int

    @property
    def is_wildcard(self) -> bool:
        """Whether it takes connections to any address of this machine."""
        return ip_address(self.address).is_unspecified


@attrs.frozen(kw_only=True, cache_hash=True)
class EgressPolicy:
    """The guard's rules. A refusal is given in words that complete "callbacks may not go there:"."""

    profile: Profile = Profile.INTERNAL
    allowed: tuple[Network, ...] = ()
    listeners: tuple[Listener, ...] = ()

    def refusal(self, address: str, port: int, *, ours: bool = False) -> str | None:
        """Why nothing may connect there; ``None`` if it may. ``ours``: this machine has that
        address, which matters where ``guards_wildcard(port)``."""
        return _refusal(self, address, port, ours)

    def guards_wildcard(self, port: int) -> bool:
        """Whether a listener takes connections to this port at any address of this machine."""
        return any(listener.is_wildcard for listener in self.listeners if listener.port == port)

    def url_refusal(self, url: str) -> str | None:
        """``refusal`` for a URL whose host is an address; ``None`` for one whose host is a name,
        which can only be judged when it is resolved. The URL's form has been checked before."""
        literal = _LITERAL.match(url)
        if literal is None:
            return None
        scheme, in_brackets, quad, port = literal.groups()
        return self.refusal(in_brackets or quad, int(port or _DEFAULT_PORTS[scheme.lower()]))

    def address_refusal(self, address: Address) -> str | None:
        """Why nothing may connect to this address, whatever the port."""
        for inner in hidden_in(address):
            if problem := self._kind_problem(inner):
                return f"{address} hides {inner}, which {problem}"
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            return None  # the kernel connects to the address that is mapped
        problem = self._kind_problem(address)
        return f"{address} {problem}" if problem else None

    def _kind_problem(self, address: Address) -> str | None:
        kind = kind_of(address)
        if kind is not None and kind.refused is Refused.ALWAYS:
            return f"is {kind.name}"
        if self.profile is Profile.INTERNAL or any(address in network for network in self.allowed):
            return None
        named_open = kind is None or kind.refused is Refused.NEVER
        if named_open and address.is_global:  # belt and braces: Python may know what we do not
            return None
        name = kind.name if kind is not None else "not global"
        return f"is {name}, and only global addresses and allowed networks may be called"

    def is_own_listener(self, address: Address, port: int, *, ours: bool) -> bool:
        """Whether this is where we listen."""
        meant = (address, *hidden_in(address))
        return any(
            ours or any(one.is_loopback for one in meant)
            if listener.is_wildcard
            else ip_address(listener.address) in meant
            for listener in self.listeners
            if listener.port == port
        )


@lru_cache(maxsize=1024)  # most tasks go to few places
def _refusal(policy: EgressPolicy, address: str, port: int, ours: bool) -> str | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return f"{address[:100]!r} is not an IP address"
    if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
        return f"{address} names a network zone, so it is link-local"
    if problem := policy.address_refusal(parsed):
        return problem
    if policy.is_own_listener(parsed, port, ours=ours):
        return f"{parsed} port {port} is this server itself"
    return None
