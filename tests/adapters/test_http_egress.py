"""The egress guard at the moment of connecting: it sees what is connected to, and before it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from engine.adapters.http import HttpCallbackNet
from engine.adapters.http.connect import is_own_address
from engine.adapters.http.wire import Wire, connect_tcp
from engine.core.egress import EgressPolicy, Listener, Profile
from engine.core.task import ErrorClass
from engine.ports.callback_net import Caller
from tests.support.callbacks import ScriptedNames, SpyingConnect, failed, open_net, request
from tests.support.raw_server import Connection, always, answer, hang, once, raw_server

INTERNAL = EgressPolicy()
PUBLIC = EgressPolicy(profile=Profile.PUBLIC)
METADATA = "169.254.169.254"


@asynccontextmanager
async def guarded(
    policy: EgressPolicy, names: ScriptedNames, *own: str
) -> AsyncIterator[tuple[Caller, SpyingConnect]]:
    """A caller behind this policy, on a machine that has these addresses besides loopback."""
    spy = SpyingConnect()
    net = open_net(
        egress=policy,
        resolver=names,
        connect=spy,
        own_address=lambda address: address in own or address.startswith("127."),
    )
    async with net.open_caller() as caller:
        yield caller, spy
    assert spy.open == 0


@pytest.mark.parametrize(
    ("policy", "addresses"),
    [
        (INTERNAL, [METADATA]),
        (INTERNAL, ["127.0.0.1", METADATA]),
        (INTERNAL, [METADATA, "127.0.0.1"]),
        (INTERNAL, ["127.0.0.1", "fe80::1%eth0"]),
        (INTERNAL, ["127.0.0.1", "no address"]),
        (INTERNAL, ["::ffff:" + METADATA]),
        (PUBLIC, ["127.0.0.1"]),
        (PUBLIC, ["10.1.2.3"]),
    ],
)
async def test_one_refused_address_refuses_all_before_any_is_connected_to(
    policy: EgressPolicy, addresses: Sequence[str]
) -> None:
    names = ScriptedNames({"evil.test": [addresses]})
    async with raw_server(hang) as server, guarded(policy, names) as (caller, spy):
        found = await caller.call(request(f"http://evil.test:{server.port}/"))
        assert failed(found, ErrorClass.EGRESS_DENIED, "callbacks may not go there: ")
        assert spy.asked == []
        assert names.forgotten == ["evil.test"]  # who mends the name need not wait


async def test_a_refused_address_is_named_with_the_reason() -> None:
    async with guarded(INTERNAL, ScriptedNames({})) as (caller, spy):
        found = await caller.call(request(f"http://{METADATA}/latest/meta-data/"))
        assert failed(found, ErrorClass.EGRESS_DENIED, f"{METADATA} is link-local")
        assert spy.asked == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_checked_address_is_the_one_connected_to(scheme: str) -> None:
    async def leave(connection: Connection) -> None:
        await connection.part()

    names = ScriptedNames({"name.test": [["10.1.2.3"], [METADATA]]})
    async with raw_server(leave) as server, guarded(INTERNAL, names) as (caller, spy):
        await caller.call(request(f"{scheme}://name.test:{server.port}/"))
        assert spy.asked == [("10.1.2.3", server.port)]
        assert names.asked == ["name.test"]


async def test_a_name_that_changes_its_mind_is_checked_again_with_the_next_connection() -> None:
    names = ScriptedNames({"evil.test": [["10.1.2.3"], [METADATA]]})
    async with raw_server(once(answer())) as server, guarded(INTERNAL, names) as (caller, spy):
        url = f"http://evil.test:{server.port}/"
        assert (await caller.call(request(url))).status_code == 200
        assert failed(await caller.call(request(url)), ErrorClass.EGRESS_DENIED)
        assert spy.asked == [("10.1.2.3", server.port)]


async def test_a_retry_on_a_fresh_connection_is_checked_again() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer())
        await connection.request()  # then it dies unanswered

    names = ScriptedNames({"evil.test": [["10.1.2.3"], [METADATA]]})
    async with raw_server(script) as server, guarded(INTERNAL, names) as (caller, spy):
        url = f"http://evil.test:{server.port}/"
        assert (await caller.call(request(url))).status_code == 200
        assert failed(await caller.call(request(url)), ErrorClass.EGRESS_DENIED)
        assert len(spy.asked) == 1


@pytest.mark.parametrize("host", ["10.1.2.3", "127.0.0.1", "[::1]", "name.test"])
async def test_our_own_listener_on_all_addresses_cannot_be_called(host: str) -> None:
    names = ScriptedNames({"name.test": [["10.1.2.3"]], "::1": [["::1"]]})
    async with raw_server(hang) as server:
        policy = EgressPolicy(listeners=(Listener("0.0.0.0", server.port),))
        async with guarded(policy, names, "10.1.2.3") as (caller, spy):
            found = await caller.call(request(f"http://{host}:{server.port}/"))
            assert failed(found, ErrorClass.EGRESS_DENIED, "this server itself")
            assert spy.asked == []


async def test_another_machine_may_have_a_server_at_our_port() -> None:
    async with raw_server(always(answer())) as server:
        policy = EgressPolicy(listeners=(Listener("0.0.0.0", server.port),))
        async with guarded(policy, ScriptedNames({}), "10.1.2.3") as (caller, spy):
            found = await caller.call(request(f"http://10.1.2.4:{server.port}/"))
            assert found.status_code == 200
            assert spy.asked == [("10.1.2.4", server.port)]


async def test_whose_an_address_is_matters_only_at_our_own_port() -> None:
    def never(address: str) -> bool:
        pytest.fail(f"asked whose {address} is")

    async with raw_server(always(answer())) as server:
        policy = EgressPolicy(listeners=(Listener("0.0.0.0", server.port + 1),))
        net = open_net(egress=policy, own_address=never)
        async with net.open_caller() as caller:
            assert (await caller.call(request(server.url))).status_code == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_our_own(address: str) -> None:
    assert is_own_address(address)


# -- several addresses -------------------------------------------------------------------------


def caller_of(addresses: Sequence[str], connect_timeout_s: float = 1) -> HttpCallbackNet:
    names = ScriptedNames({"name.test": [addresses]})
    return open_net(connect_timeout_s=connect_timeout_s, resolver=names)


@pytest.mark.parametrize(
    "addresses", [["::1", "127.0.0.1"], ["127.0.0.2", "::1", "127.0.0.1"], ["127.0.0.1", "::1"]]
)
async def test_the_next_address_is_tried_when_one_refuses(addresses: Sequence[str]) -> None:
    async with raw_server(always(answer())) as server:
        async with caller_of(addresses).open_caller() as caller:
            found = await caller.call(request(f"http://name.test:{server.port}/"))
    assert found.status_code == 200


async def test_no_address_takes_the_connection() -> None:
    async with raw_server(hang) as server:
        url = f"http://name.test:{server.port}/"
    async with caller_of(["127.0.0.2", "127.0.0.1"]).open_caller() as caller:
        assert failed(await caller.call(request(url)), ErrorClass.REFUSED, "Connection refused")


async def test_a_time_that_has_run_out_before_any_address_is_tried(
    mock_clock: trio.testing.MockClock,
) -> None:
    class SlowPolicy:
        """Judges for so long that no time is left."""

        def refusal(self, address: str, port: int, *, ours: bool = False) -> str | None:
            mock_clock.jump(2)
            return None

        def guards_wildcard(self, port: int) -> bool:
            return False

    names = ScriptedNames({"name.test": [["127.0.0.2", "127.0.0.1"]]})
    net = open_net(egress=SlowPolicy(), connect_timeout_s=1, resolver=names)
    async with raw_server(always(answer())) as server, net.open_caller() as caller:
        found = await caller.call(request(f"http://name.test:{server.port}/", timeout_s=60))
    assert failed(found, ErrorClass.CONNECT_TIMEOUT)


async def test_an_address_that_says_nothing_leaves_time_for_the_next() -> None:
    async def connect(address: str, port: int) -> Wire:
        if address == "127.0.0.2":
            await trio.sleep_forever()
        return await connect_tcp(address, port)

    names = ScriptedNames({"name.test": [["127.0.0.2", "127.0.0.1"], ["127.0.0.2"]]})
    net = open_net(connect_timeout_s=0.2, resolver=names, connect=connect)
    async with raw_server(once(answer())) as server, net.open_caller() as caller:
        url = f"http://name.test:{server.port}/"
        assert (await caller.call(request(url))).status_code == 200
        assert failed(await caller.call(request(url)), ErrorClass.CONNECT_TIMEOUT)
    assert names.forgotten == ["name.test"]
