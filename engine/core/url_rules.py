"""Which URLs a callback may have, by their form alone; ``egress`` judges where they lead.

Stricter than RFC 3986: programs differ in how they read odd URLs, and whoever checks one reading
while another is connected to has checked nothing. What passes here has one reading only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

URL_MAX = 2048
_HOST_MAX, _LABEL_MAX = 253, 63  # RFC 1035 §2.3.4

_CHARACTERS = re.compile(r"[!-\[\]-~]+")  # visible ASCII without the backslash
_URL = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([^:\[\]]*))?")
_NAME_ODDITY = re.compile(r"[^0-9A-Za-z._-]")
_PORT = re.compile(r"[0-9]{1,5}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)  # as programs take it for an address


def broken_url(value: str) -> str | None:
    """What is wrong with the URL, or ``None``. Never raises."""
    if not 1 <= len(value) <= URL_MAX:
        return f"must have 1 to {URL_MAX} characters, not {len(value)}"
    if not _CHARACTERS.fullmatch(value):
        return (
            "must be ASCII without blanks, backslashes or control characters: "
            "percent-encode them in a path or query, write a host name as xn--…"
        )
    url = _URL.match(value)
    return _broken_authority(url[1]) if url else "must begin with http:// or https://"


@lru_cache(maxsize=1024)  # callers have few hosts and many paths
def _broken_authority(authority: str) -> str | None:
    return next(_authority_problems(authority), None)


def _authority_problems(authority: str) -> Iterator[str]:
    if "@" in authority:
        yield "must not carry a user name or password: send them in a header"
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        yield "has a malformed host or port: write an IPv6 address in brackets, as in [::1]:8080"
    else:
        yield from _host_and_port_problems(*parts.groups())


def _host_and_port_problems(host: str, port: str | None) -> Iterator[str]:
    if port is not None and not (_PORT.fullmatch(port) and 1 <= int(port) <= 65535):
        yield "must have a port from 1 to 65535 after the colon, or no colon"
    yield from _bracketed_problems(host) if host.startswith("[") else _name_problems(host)


def _bracketed_problems(host: str) -> Iterator[str]:
    if "%" in host:
        yield "must not name a network zone (%…) in its address"
    try:
        IPv6Address(host[1:-1])
    except ValueError:
        yield "has brackets without an IPv6 address in them"


def _name_problems(host: str) -> Iterator[str]:
    labels = host.removesuffix(".").split(".")
    if "" in labels:
        yield "must name a host, without empty parts between its dots"
    if "%" in host:
        yield "must not have % in its host: write it as it is, or as xn--…"
    if odd := _NAME_ODDITY.search(host):
        yield f"must not have {odd[0]!r} in its host, only letters, digits, '-', '_' and '.'"
    if len(host) > _HOST_MAX or any(len(label) > _LABEL_MAX for label in labels):
        yield (
            f"has a host name that is too long: at most {_HOST_MAX} characters, "
            f"{_LABEL_MAX} between dots"
        )
    if _NUMBER.fullmatch(labels[-1]) and not _is_dotted_quad(host):
        yield "has a host that reads as a number: write IPv4 addresses as 127.0.0.1"
    if any(map(_is_broken_punycode, labels)):
        yield "has a part after xn-- that is no encoded name (RFC 5891)"


def _is_dotted_quad(host: str) -> bool:
    try:
        return str(IPv4Address(host)) == host
    except ValueError:
        return False


def _is_broken_punycode(label: str) -> bool:
    """Whether a part claims to be an encoded name and is none (RFC 5890 §2.3.2.1)."""
    if not label.lower().startswith("xn--"):
        return False
    try:
        name = label[4:].encode().decode("punycode")
    except UnicodeError:
        return True
    return name.isascii() or not name.isprintable()
