"""What kind of address an IP address is: one table, one row per prefix, each with its source.

The most specific row speaks for an address; what no row names is an ordinary global address. The
table is ours because Python's ``is_global`` differs between patch levels and calls NAT64, multicast
and IPv4-compatible addresses global. An IPv6 address can also carry an IPv4 address that somebody
on the way, or the kernel itself, will unwrap: ``hidden_in`` finds those.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from typing import TypeAlias

import attrs

Address: TypeAlias = IPv4Address | IPv6Address


class Refused(enum.Enum):
    """When a callback may not go to an address of this kind."""

    ALWAYS = enum.auto()
    IN_PUBLIC = enum.auto()  # it lies inside somebody's network
    NEVER = enum.auto()


@attrs.frozen
class Kind:
    """One row. ``name`` completes "192.0.2.1 is …"; ``source`` says who assigned the prefix."""

    prefix: str
    name: str
    refused: Refused
    source: str


_A, _P, _N = Refused.ALWAYS, Refused.IN_PUBLIC, Refused.NEVER
_AZURE = "learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16"
_ALIBABA = "alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata"
_AWS = "docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html"
_GOOGLE = "cloud.google.com/compute/docs/metadata/querying-metadata"
_ORACLE = "docs.oracle.com/iaas/Content/Compute/Tasks/gettingmetadata.htm"
_SCALEWAY = "docs.cloud-init.io/en/latest/reference/datasources/scaleway.html"
_AKAMAI = "techdocs.akamai.com/cloud-computing/docs/overview-of-the-metadata-service"
_IANA_V6 = "IANA IPv6 address space registry; RFC 4291 §2.4"

KINDS: tuple[Kind, ...] = (
    # IPv4
    Kind("0.0.0.0/8", "unspecified", _A, "RFC 1122 §3.2.1.3"),
    Kind("10.0.0.0/8", "private", _P, "RFC 1918"),
    Kind("100.64.0.0/10", "private (shared by a carrier)", _P, "RFC 6598"),
    Kind("100.100.100.200/32", "cloud metadata", _A, _ALIBABA),
    Kind("127.0.0.0/8", "loopback", _P, "RFC 1122 §3.2.1.3"),
    Kind("168.63.129.16/32", "cloud metadata", _A, _AZURE),
    Kind("169.254.0.0/16", "link-local (cloud metadata)", _A, "RFC 3927"),
    Kind("172.16.0.0/12", "private", _P, "RFC 1918"),
    Kind("192.0.0.0/24", "reserved for protocols", _A, "RFC 6890 §2.2.2"),
    Kind("192.0.0.192/32", "cloud metadata", _A, _ORACLE),
    Kind("192.0.2.0/24", "reserved for documentation", _A, "RFC 5737"),
    Kind("192.88.99.0/24", "reserved (6to4 relays)", _A, "RFC 7526"),
    Kind("192.168.0.0/16", "private", _P, "RFC 1918"),
    Kind("198.18.0.0/15", "reserved for benchmarks", _A, "RFC 2544"),
    Kind("198.51.100.0/24", "reserved for documentation", _A, "RFC 5737"),
    Kind("203.0.113.0/24", "reserved for documentation", _A, "RFC 5737"),
    Kind("224.0.0.0/4", "multicast", _A, "RFC 5771"),
    Kind("240.0.0.0/4", "reserved", _A, "RFC 1112 §4"),
    Kind("255.255.255.255/32", "broadcast", _A, "RFC 919 §7"),
    # IPv6, what lies outside of 2000::/3 (global unicast)
    Kind("::/8", "reserved", _A, _IANA_V6),
    Kind("::/96", "IPv4-compatible", _P, "RFC 4291 §2.5.5.1"),
    Kind("::/128", "unspecified", _A, "RFC 4291 §2.5.2"),
    Kind("::1/128", "loopback", _P, "RFC 4291 §2.5.3"),
    Kind("::ffff:0:0/96", "IPv4-mapped", _N, "RFC 4291 §2.5.5.2"),
    Kind("::ffff:0:0:0/96", "IPv4-translated", _P, "RFC 2765 §2.1"),
    Kind("64:ff9b::/96", "translated to IPv4 (NAT64)", _N, "RFC 6052 §2.1"),
    Kind("64:ff9b:1::/48", "translated to IPv4 (local NAT64)", _P, "RFC 8215"),
    Kind("100::/8", "reserved", _A, _IANA_V6),
    Kind("100::/64", "reserved (discard)", _A, "RFC 6666"),
    Kind("200::/7", "reserved", _A, "RFC 4048"),
    Kind("400::/6", "reserved", _A, _IANA_V6),
    Kind("800::/5", "reserved", _A, _IANA_V6),
    Kind("1000::/4", "reserved", _A, _IANA_V6),
    Kind("4000::/2", "reserved", _A, _IANA_V6),
    Kind("5f00::/16", "reserved (segment routing)", _A, "RFC 9602"),
    Kind("8000::/2", "reserved", _A, _IANA_V6),
    Kind("c000::/3", "reserved", _A, _IANA_V6),
    Kind("e000::/4", "reserved", _A, _IANA_V6),
    Kind("f000::/5", "reserved", _A, _IANA_V6),
    Kind("f800::/6", "reserved", _A, _IANA_V6),
    Kind("fc00::/7", "private", _P, "RFC 4193"),
    Kind("fd00:42::42/128", "cloud metadata", _A, _SCALEWAY),
    Kind("fd00:100::100:200/128", "cloud metadata", _A, _ALIBABA),
    Kind("fd00:a9fe:a9fe::1/128", "cloud metadata", _A, _AKAMAI),
    Kind("fd00:c1::a9fe:a9fe/128", "cloud metadata", _A, _ORACLE),
    Kind("fd00:ec2::/32", "cloud metadata", _A, _AWS),  # ::254, ::23 gives credentials to pods
    Kind("fd20:ce::254/128", "cloud metadata", _A, _GOOGLE),
    Kind("fe00::/9", "reserved", _A, _IANA_V6),
    Kind("fe80::/10", "link-local (cloud metadata)", _A, "RFC 4291 §2.5.6"),
    Kind("fec0::/10", "private (site-local)", _P, "RFC 3879"),
    Kind("ff00::/8", "multicast", _A, "RFC 4291 §2.7"),
    # IPv6, inside of 2000::/3
    Kind("2001::/23", "reserved for protocols", _A, "RFC 2928"),
    Kind("2001::/32", "a Teredo tunnel", _P, "RFC 4380"),
    Kind("2001:2::/48", "reserved for benchmarks", _A, "RFC 5180"),
    Kind("2001:db8::/32", "reserved for documentation", _A, "RFC 3849"),
    Kind("2002::/16", "a 6to4 tunnel", _P, "RFC 3056, RFC 7526"),
    Kind("3fff::/20", "reserved for documentation", _A, "RFC 9637"),
)


@attrs.frozen
class _Prefix:
    version: int
    first: int
    mask: int
    kind: Kind


def _prefixes() -> Iterator[_Prefix]:
    networks = ((ip_network(kind.prefix), kind) for kind in KINDS)
    for network, kind in sorted(networks, key=lambda pair: -pair[0].prefixlen):
        yield _Prefix(network.version, int(network.network_address), int(network.netmask), kind)


_LONGEST_FIRST = tuple(_prefixes())


@lru_cache(maxsize=4096)
def kind_of(address: Address) -> Kind | None:
    """The most specific row that holds the address; ``None`` for an ordinary global one."""
    number = int(address)
    for prefix in _LONGEST_FIRST:
        if prefix.version == address.version and number & prefix.mask == prefix.first:
            return prefix.kind
    return None


def _low(number: int) -> Iterator[int]:
    yield number & 0xFFFF_FFFF


def _after_2002(number: int) -> Iterator[int]:
    yield number >> 80 & 0xFFFF_FFFF


def _teredo(number: int) -> Iterator[int]:
    yield number >> 64 & 0xFFFF_FFFF  # the server
    yield ~number & 0xFFFF_FFFF  # the client, with every bit turned (RFC 4380 §4)


def _any_rfc6052(number: int) -> Iterator[int]:
    """Where the address stands depends on the length of the operator's own prefix (RFC 6052 §2.2):
    every place counts, unless it is only padding of another."""
    octets = number.to_bytes(16, "big")
    tail = octets[6:8] + octets[9:13]  # octet 8 is always zero
    last = octets[12:16]
    places = [place for place in (tail[0:4], tail[1:5], tail[2:6], last) if place[0]]
    for place in places or [last]:
        yield int.from_bytes(place, "big")


_EMBEDDINGS: tuple[tuple[IPv6Network, Callable[[int], Iterator[int]]], ...] = (
    (IPv6Network("::/96"), _low),
    (IPv6Network("::ffff:0:0/96"), _low),
    (IPv6Network("::ffff:0:0:0/96"), _low),
    (IPv6Network("64:ff9b::/96"), _low),
    (IPv6Network("64:ff9b:1::/48"), _any_rfc6052),
    (IPv6Network("2001::/32"), _teredo),
    (IPv6Network("2002::/16"), _after_2002),
)
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})  # begin of the interface part (RFC 5214 §6.1)


@lru_cache(maxsize=4096)
def hidden_in(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address carries; none for ``::`` and ``::1``."""
    if isinstance(address, IPv4Address) or int(address) <= 1:
        return ()
    number = int(address)
    found = [
        IPv4Address(inner)
        for network, extract in _EMBEDDINGS
        if address in network
        for inner in extract(number)
    ]
    if number >> 32 & 0xFFFF_FFFF in _ISATAP:
        found.append(IPv4Address(number & 0xFFFF_FFFF))
    return tuple(found)
