"""The egress guard as it is built in: no URL makes us connect to a forbidden address.

Nothing here leaves the machine: a spy stands in place of the connect.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest

from engine.adapters.http.names import SystemNames
from engine.adapters.http.wire import Wire, connect_tcp
from engine.core.egress import EgressPolicy, Listener, Profile
from engine.core.task import ErrorClass
from tests.support.egress import (
    MY_ADDRESS,
    ScriptedNames,
    Spy,
    call,
    destinations,
    goes,
    host_of,
    net_with,
)
from tests.support.raw_server import always, answer, raw_server
from tests.support.url_corpus import ALSO_GOOD, GOOD, METADATA, OWN_PORT, Verdict, corpus, spellings

CORPUS = corpus()
INTERNAL = EgressPolicy(profile=Profile.INTERNAL)
PUBLIC = EgressPolicy(profile=Profile.PUBLIC)
NOT_CALLED = {ErrorClass.EGRESS_DENIED, ErrorClass.INVALID_REQUEST}
NAME = "http://rebind.example.com/"


# -- the corpus --------------------------------------------------------------------------------


def test_the_corpus_is_large_and_has_all_kinds() -> None:
    assert len({case.url for case in CORPUS}) == len(CORPUS) >= 400
    for verdict in Verdict:
        assert sum(case.verdict is verdict for case in CORPUS) >= 50


@pytest.mark.slow
@pytest.mark.parametrize("profile", list(Profile))
async def test_no_url_makes_us_connect_to_a_forbidden_address(profile: Profile) -> None:
    """Here every URL gets as far as the network, as one in an old database could."""
    policy = EgressPolicy(profile=profile, listeners=(Listener("127.0.0.1", OWN_PORT),))
    names, spy, wrong = ScriptedNames(), Spy(), {}
    net = net_with(policy, names, spy)
    for case in CORPUS:
        spy.seen.clear()
        names.answers = {host_of(case.url): [case.answers]} if case.is_named else {}
        found = await call(net, case.url)
        if goes(case, profile):
            fine = spy.addresses == destinations(case) and found.error_class is ErrorClass.REFUSED
        else:
            fine = not spy.seen and found.error_class in NOT_CALLED
        if not fine:
            wrong[case.url] = (case.verdict, list(spy.seen), found)
    assert wrong == {}


def is_address_for_the_system(spelling: str) -> bool:
    try:
        socket.getaddrinfo(spelling, None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return True


async def test_what_the_system_itself_reads_as_an_address_is_judged_as_that() -> None:
    """With the system's resolver, which is asked about nothing that it would look up elsewhere."""
    spy = Spy()
    net = net_with(INTERNAL, SystemNames(), spy)
    odd = filter(is_address_for_the_system, spellings(METADATA))
    found = {spelling: await call(net, f"http://{spelling}/") for spelling in odd}
    assert {outcome.error_class for outcome in found.values()} <= NOT_CALLED
    assert spy.seen == []
    assert METADATA in (found["2852039166"].error or "")


# -- names that change -------------------------------------------------------------------------


async def seen_after(policy: EgressPolicy, *answers: Sequence[str]) -> tuple[list[str], Spy]:
    """The classes of as many calls as there are answers, and where they went."""
    spy = Spy()
    net = net_with(policy, ScriptedNames({"rebind.example.com": answers}), spy)
    classes = [str((await call(net, NAME)).error_class) for _ in answers]
    return classes, spy


async def test_a_name_is_looked_up_once_for_an_attempt_so_it_cannot_change_after_the_check() -> (
    None
):
    spy = Spy()
    names = ScriptedNames({"rebind.example.com": [[GOOD], [METADATA]]})
    await call(net_with(INTERNAL, names, spy), NAME)
    assert names.asked == ["rebind.example.com"]
    assert spy.seen == [(GOOD, 80)]


async def test_a_name_that_turned_bad_is_refused_at_the_next_attempt() -> None:
    classes, spy = await seen_after(INTERNAL, [GOOD], [METADATA], [GOOD])
    assert classes == ["refused", "egress_denied", "refused"]
    assert spy.seen == [(GOOD, 80), (GOOD, 80)]


@pytest.mark.parametrize(
    "answers",
    [[GOOD, METADATA], [METADATA, GOOD], [GOOD, ALSO_GOOD, "::ffff:169.254.169.254"]],
)
async def test_one_bad_answer_among_good_ones_refuses_all(answers: list[str]) -> None:
    for policy in (INTERNAL, PUBLIC):
        classes, spy = await seen_after(policy, answers)
        assert (classes, spy.seen) == (["egress_denied"], [])


async def test_the_addresses_that_were_checked_are_the_ones_connected_to() -> None:
    _, spy = await seen_after(PUBLIC, [GOOD, ALSO_GOOD])
    assert spy.seen == [(GOOD, 80), (ALSO_GOOD, 80)]


async def test_an_attempt_that_is_denied_says_where_it_led() -> None:
    spy = Spy()
    found = await call(net_with(INTERNAL, ScriptedNames(), spy), NAME)
    assert found.error is not None
    assert f"{METADATA} is link-local (cloud metadata)" in found.error


# -- ourselves ---------------------------------------------------------------------------------


async def test_behind_a_wildcard_listener_every_address_of_this_machine_is_ourselves() -> None:
    policy = EgressPolicy(listeners=(Listener("0.0.0.0", OWN_PORT),))
    spy = Spy()
    net = net_with(policy, ScriptedNames({"me.example.com": [[MY_ADDRESS]]}), spy)
    for host in (MY_ADDRESS, "me.example.com", "127.0.0.1", "127.8.8.8", "[::1]"):
        found = await call(net, f"http://{host}:{OWN_PORT}/")
        assert found.error_class is ErrorClass.EGRESS_DENIED, host
        assert "this server itself" in (found.error or "")
    assert spy.seen == []
    await call(net, f"http://10.9.8.6:{OWN_PORT}/")
    await call(net, f"http://{MY_ADDRESS}:{OWN_PORT + 1}/")
    assert spy.seen == [("10.9.8.6", OWN_PORT), (MY_ADDRESS, OWN_PORT + 1)]


# -- servers that send us elsewhere ------------------------------------------------------------


class LoopbackOnly(Spy):
    """Connects for real, within 127.0.0.0/8."""

    async def __call__(self, address: str, port: int) -> Wire:
        assert address.startswith("127.")
        self.seen.append((address, port))
        return await connect_tcp(address, port)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    spy = LoopbackOnly()
    net = net_with(INTERNAL, ScriptedNames(), spy)
    async with raw_server(always(answer())) as elsewhere:
        for place in (f"http://{METADATA}/latest", elsewhere.url, f"//{METADATA}/", "/again"):
            headers = {"Location": place, "Refresh": f"0; url={place}", "Content-Location": place}
            reply = answer(b"" if status == 304 else b"gone", status, **headers)
            async with raw_server(always(reply)) as server:
                spy.seen.clear()
                found = await call(net, server.url)
                assert found.status_code == status
                assert spy.seen == [("127.0.0.1", server.port)]
                assert len(server.seen) == 1
        assert elsewhere.connections == 0
