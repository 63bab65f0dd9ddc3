"""Where callbacks may go. What is expected stands in ``tests.support.url_corpus`` as data."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import example, given, strategies as st

from engine.core.address_kinds import KINDS, hidden_in, kind_of
from engine.core.egress import EgressPolicy, Listener, Profile
from tests.support.url_corpus import FREE, INNER, NEVER

INTERNAL = EgressPolicy(profile=Profile.INTERNAL)
PUBLIC = EgressPolicy(profile=Profile.PUBLIC)


def refused(policy: EgressPolicy, address: str) -> bool:
    return policy.refusal(address, 80) is not None


@pytest.mark.parametrize("address", FREE)
def test_global_addresses_may_be_called(address: str) -> None:
    assert (INTERNAL.refusal(address, 80), PUBLIC.refusal(address, 80)) == (None, None)


@pytest.mark.parametrize("address", INNER)
def test_private_addresses_may_be_called_in_internal_only(address: str) -> None:
    assert (refused(INTERNAL, address), refused(PUBLIC, address)) == (False, True)


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_may_never_be_called(address: str) -> None:
    assert (refused(INTERNAL, address), refused(PUBLIC, address)) == (True, True)


def test_the_examples_reach_every_row_of_the_table() -> None:
    inner = [hidden for text in [*FREE, *INNER, *NEVER] for hidden in hidden_in(ip_address(text))]
    reached = {kind_of(ip_address(text)) for text in [*FREE, *INNER, *NEVER]}
    reached |= {kind_of(address) for address in inner}
    assert reached - {None} == set(KINDS)


def test_every_row_is_a_prefix_of_its_own_with_a_source() -> None:
    assert len({ip_network(kind.prefix) for kind in KINDS}) == len(KINDS)
    assert all(kind.source and kind.name for kind in KINDS)


@given(st.integers(0, 2**128 - 1).map(IPv6Address))
def test_no_ipv6_address_is_ordinary_but_global_unicast(address: IPv6Address) -> None:
    if address not in IPv6Network("2000::/3"):
        assert kind_of(address) is not None


@given(st.ip_addresses())
@example(IPv6Address("64:ff9b::8.8.8.8"))
def test_what_public_lets_pass_is_global_for_python_too(
    address: IPv4Address | IPv6Address,
) -> None:
    if PUBLIC.refusal(str(address), 80) is None:
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        assert (mapped or address).is_global


# -- IPv4 in IPv6 ------------------------------------------------------------------------------

CLIENT_AND_SERVER = 0x0808_0808  # the half of a Teredo address that is not the one looked at


def embeddings(address: IPv4Address) -> Iterator[tuple[str, IPv6Address, bool]]:
    """Every way to hide an address, and whether it is one for tunnels, refused in public anyway."""
    inner = int(address)
    last64 = IPv6Network("2606:4700:0:1::/64").network_address
    yield "mapped", IPv6Address(0xFFFF << 32 | inner), False
    yield "translated", IPv6Address(0xFFFF << 48 | inner), True
    yield "NAT64", IPv6Address(int(IPv6Address("64:ff9b::")) | inner), False
    yield "local NAT64", IPv6Address(int(IPv6Address("64:ff9b:1::")) | inner), True
    yield "6to4", IPv6Address(0x2002 << 112 | inner << 80 | 1), True
    teredo = int(IPv6Address("2001::"))
    yield "Teredo server", IPv6Address(teredo | inner << 64 | ~CLIENT_AND_SERVER % 2**32), True
    client = teredo | CLIENT_AND_SERVER << 64 | ~inner % 2**32
    yield "Teredo client", IPv6Address(client), True
    for mark in (0x0000_5EFE, 0x0200_5EFE):
        yield "ISATAP", IPv6Address(int(last64) | mark << 32 | inner), False
    if inner > 1:  # these would be :: and ::1
        yield "compatible", IPv6Address(inner), True


@given(st.ip_addresses(v=4))
@example(IPv4Address("169.254.169.254"))
@example(IPv4Address("127.0.0.1"))
@example(IPv4Address("0.0.0.0"))
@example(IPv4Address("8.8.8.8"))
def test_a_hidden_address_is_refused_just_when_it_is_refused_itself(address: IPv4Address) -> None:
    for way, hidden, is_tunnel in embeddings(address):
        assert address in hidden_in(hidden), way
        assert refused(INTERNAL, str(hidden)) == refused(INTERNAL, str(address)), way
        assert refused(PUBLIC, str(hidden)) == (refused(PUBLIC, str(address)) or is_tunnel), way


@given(st.ip_addresses(v=4), st.sampled_from([48, 56, 64]))
def test_local_nat64_hides_an_address_at_any_place(address: IPv4Address, prefix: int) -> None:
    bits = int(address) << (128 - 8 - prefix - 32)  # as if octet 8 were not there
    above, below = bits >> 56 << 64, bits % 2**56
    hidden = IPv6Address(int(IPv6Address("64:ff9b:1::")) | above | below)
    if int(address) >> 24:
        assert address in hidden_in(hidden)


def test_a_refusal_tells_what_is_hidden() -> None:
    address = IPv6Address("::ffff:169.254.169.254")  # Pythons differ in how they write it
    assert INTERNAL.refusal(str(address), 80) == (
        f"{address} hides 169.254.169.254, which is link-local (cloud metadata)"
    )


# -- what is no plain address ------------------------------------------------------------------


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fe80::1%1", "::1%lo", "2606:4700::1%2"])
def test_an_address_with_a_zone_is_refused(address: str) -> None:
    assert "zone" in (INTERNAL.refusal(address, 80) or "")


@pytest.mark.parametrize(
    "address", ["", "localhost", "127.1", "2130706433", "010.0.0.1", "1.2.3.4 ", "[::1]", "8.8.8.8/32"]
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    assert INTERNAL.refusal(address, 80) == f"{address!r} is not an IP address"


# -- allowed networks --------------------------------------------------------------------------


def public_with(*networks: str) -> EgressPolicy:
    return EgressPolicy(
        profile=Profile.PUBLIC, allowed=tuple(ip_network(network) for network in networks)
    )


def test_allowed_networks_are_open_in_public() -> None:
    policy = public_with("10.1.0.0/16", "fd12::/32")
    assert policy.refusal("10.1.2.3", 80) is None
    assert policy.refusal("::ffff:10.1.2.3", 80) is None
    assert policy.refusal("64:ff9b::10.1.2.3", 80) is None
    assert policy.refusal("fd12::1", 80) is None
    assert policy.refusal("10.2.0.1", 80) == (
        "10.2.0.1 is private, and only global addresses and allowed networks may be called"
    )
    assert refused(policy, "fd13::1")


@pytest.mark.parametrize("address", NEVER)
def test_an_allowed_network_opens_nothing_that_is_always_refused(address: str) -> None:
    assert refused(public_with("0.0.0.0/0", "::/0"), address)


def test_allowing_a_tunnel_does_not_allow_what_is_behind_it() -> None:
    policy = public_with("2002::/16")
    assert policy.refusal("2002:808:808::1", 80) is None
    assert refused(policy, "2002:a00:1::1")


# -- our own listeners -------------------------------------------------------------------------


def test_our_own_listener_is_refused_and_its_neighbours_are_not() -> None:
    policy = EgressPolicy(listeners=(Listener("127.0.0.1", 8080), Listener("10.0.0.7", 80)))
    assert policy.refusal("127.0.0.1", 8080) == "127.0.0.1 port 8080 is this server itself"
    assert policy.refusal("::ffff:127.0.0.1", 8080) is not None
    assert policy.refusal("10.0.0.7", 80) is not None
    assert policy.refusal("127.0.0.1", 8081) is None
    assert policy.refusal("127.0.0.2", 8080) is None
    assert policy.refusal("10.0.0.7", 8080) is None
    assert policy.refusal("10.0.0.7", 8080, ours=True) is None  # nobody listens there


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
def test_a_wildcard_listener_is_every_address_of_this_machine(wildcard: str) -> None:
    policy = EgressPolicy(listeners=(Listener(wildcard, 8080),))
    for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1"):
        assert policy.refusal(address, 8080) is not None, address
        assert policy.refusal(address, 8081) is None, address
    assert policy.refusal("10.0.0.7", 8080, ours=True) is not None
    assert policy.refusal("10.0.0.7", 8081, ours=True) is None
    assert policy.refusal("10.0.0.8", 8080) is None


def test_only_a_wildcard_listener_makes_it_matter_which_addresses_are_ours() -> None:
    policy = EgressPolicy(listeners=(Listener("127.0.0.1", 80), Listener("0.0.0.0", 81)))
    assert [policy.guards_wildcard(port) for port in (80, 81, 82)] == [False, True, False]


def test_a_listener_on_a_public_address_is_refused_too() -> None:
    policy = EgressPolicy(profile=Profile.PUBLIC, listeners=(Listener("1.1.1.1", 443),))
    assert policy.refusal("1.1.1.1", 443) == "1.1.1.1 port 443 is this server itself"
    assert policy.refusal("1.1.1.1", 80) is None


# -- URLs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("http://169.254.169.254/latest", False),
        ("https://169.254.169.254", False),
        ("HTTP://169.254.169.254?x", False),
        ("http://169.254.169.254#x", False),
        ("http://[fd00:ec2::254]/", False),
        ("http://[::FFFF:169.254.169.254]:80/", False),
        ("http://0.0.0.0:8080/", False),
        ("http://127.0.0.1/", True),
        ("http://[::1]:8080/", True),
        ("http://metadata.google.internal/", True),  # a name: judged when it is resolved
        ("http://localhost/", True),
        ("http://1.2.3.4.example/", True),
    ],
)
def test_a_url_is_judged_by_its_literal_address(url: str, fine: bool) -> None:
    assert (INTERNAL.url_refusal(url) is None) == fine


def test_the_port_of_a_url_may_be_that_of_its_scheme() -> None:
    policy = EgressPolicy(listeners=(Listener("127.0.0.1", 80), Listener("::1", 443)))
    assert policy.url_refusal("http://127.0.0.1/") == "127.0.0.1 port 80 is this server itself"
    assert policy.url_refusal("https://[::1]/") == "::1 port 443 is this server itself"
    assert policy.url_refusal("https://127.0.0.1/") is None
    assert policy.url_refusal("http://127.0.0.1:8080/") is None


@given(st.text(max_size=40).map(lambda rest: f"http://{rest}"))
@example("http://[" + ":" * 9 + "]/")
@example("http://1.2.3.4:99999/")
def test_any_text_is_judged_without_an_error(url: str) -> None:
    PUBLIC.url_refusal(url)
