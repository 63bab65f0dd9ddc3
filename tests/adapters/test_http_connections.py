"""How long a call may take, and what becomes of its connection."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from engine.core.outcome import Answer
from engine.core.task import ErrorClass
from tests.support.callbacks import (
    ENDLESS,
    CancelHere,
    SpyingConnect,
    failed,
    one_call,
    open_caller,
    open_net,
    request,
)
from tests.support.raw_server import (
    Connection,
    Script,
    always,
    answer,
    close_at_once,
    hang,
    once,
    raw_server,
    reset_at_once,
)


def drip(*parts: bytes) -> Script:
    """Sends the parts with pauses far shorter than any timeout, then goes on for ever."""

    async def script(connection: Connection) -> None:
        await connection.request()
        for part in parts:
            await connection.send(part)
        while True:
            await connection.send(b"x")
            await trio.sleep(0.01)

    return script


@pytest.mark.parametrize(
    "script",
    [hang, drip(b"HTTP/1.1 200 OK\r\nSlow: "), drip(ENDLESS), drip(answer(b"", 200, A="b")[:-4])],
    ids=["silence", "slow head", "slow body", "head without end"],
)
async def test_the_timeout_covers_the_whole_attempt(script: Script) -> None:
    began = trio.current_time()
    found = await one_call(script, timeout_s=0.15)
    assert failed(found, ErrorClass.TIMEOUT, "within 0.15 s")
    assert trio.current_time() - began < 1


async def full_listener() -> tuple[str, list[trio.socket.SocketType]]:
    """A port whose queue of connections is full: the next one is neither taken nor refused."""
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    sockets = [listener]
    for _ in range(4):
        sock = trio.socket.socket()
        sockets.append(sock)
        with trio.move_on_after(0.05):
            await sock.connect(listener.getsockname())
    return f"http://127.0.0.1:{listener.getsockname()[1]}/", sockets


async def test_a_connection_that_takes_too_long() -> None:
    url, sockets = await full_listener()
    async with open_caller(connect_timeout_s=0.1) as caller:
        found = await caller.call(request(url))
    for sock in sockets:
        sock.close()
    assert failed(found, ErrorClass.CONNECT_TIMEOUT)


async def test_cancelling_a_call_closes_its_connection_and_the_next_call_works() -> None:
    arrived, left = trio.Event(), trio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        arrived.set()
        await connection.request()  # the client's end, as it sends no second one
        left.set()

    async with raw_server(script, always(answer())) as server, open_caller() as caller:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.call, request(server.url, 60))
            await arrived.wait()
            nursery.cancel_scope.cancel(reason="in the middle")
        with trio.fail_after(1):
            await left.wait()
        assert (await caller.call(request(server.url))).status_code == 200


async def test_cancelling_at_any_step_leaves_the_caller_usable() -> None:
    async with raw_server(always(answer(b"x" * 100))) as server, open_caller() as caller:
        for step in range(1, 100):
            scope = trio.CancelScope()
            instrument = CancelHere(step, scope)
            trio.lowlevel.add_instrument(instrument)
            with scope:
                await caller.call(request(server.url))
            trio.lowlevel.remove_instrument(instrument)
            with trio.fail_after(1):
                assert (await caller.call(request(server.url))).status_code == 200
            if not instrument.fired:
                break
            if step % 2:  # so that the next one is cancelled on a fresh connection
                await caller.call(request("http://127.0.0.1:1/"))
        else:
            pytest.fail("the call never ran to its end")


async def test_two_calls_in_a_row_share_a_connection() -> None:
    async with raw_server(always(answer())) as server, open_caller() as caller:
        for _ in range(3):
            await caller.call(request(server.url))
        assert (server.connections, len(server.seen)) == (1, 3)


async def test_a_kept_connection_the_server_closed_is_not_used() -> None:
    async with raw_server(once(answer())) as server, open_caller() as caller:
        for _ in range(3):
            assert (await caller.call(request(server.url))).status_code == 200
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert (server.connections, len(server.seen)) == (3, 3)


@pytest.mark.parametrize("ending", [close_at_once, reset_at_once])
async def test_a_kept_connection_that_dies_unanswered_is_replaced_once(ending: Script) -> None:
    async def one_answer(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer(b"first"))
        await ending(connection)

    async with raw_server(one_answer, always(answer(b"fresh"))) as server, open_caller() as caller:
        assert (await caller.call(request(server.url))).body == b"first"
        assert (await caller.call(request(server.url))).body == b"fresh"
        assert server.connections == 2


async def test_a_fresh_connection_that_dies_unanswered_is_not_replaced() -> None:
    async with raw_server(close_at_once) as server, open_caller() as caller:
        await caller.call(request(server.url))
        assert server.connections == 1


async def test_an_answer_that_is_not_http_is_not_asked_for_again() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer())
        await connection.request()
        await connection.send(b"nonsense\r\n\r\n")

    async with raw_server(script) as server, open_caller() as caller:
        await caller.call(request(server.url))
        assert failed(await caller.call(request(server.url)), ErrorClass.PROTOCOL)
        assert len(server.seen) == 2


async def test_a_caller_keeps_two_connections_at_most_and_drops_the_oldest() -> None:
    async with open_caller() as caller, AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(raw_server(always(answer()))) for _ in range(3)]
        for place in (0, 1, 0, 2, 0, 1):  # at the fifth call, 0 was used last but one
            await caller.call(request(opened[place].url))
        assert [server.connections for server in opened] == [1, 2, 1]


async def test_the_end_of_the_block_closes_the_connections() -> None:
    closed = trio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer())
        assert await connection.request() is None
        closed.set()

    async with raw_server(script) as server:
        async with open_caller() as caller:
            await caller.call(request(server.url))
        with trio.fail_after(1):
            await closed.wait()


async def test_a_connection_is_kept_for_its_time_and_not_longer(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with raw_server(always(answer())) as server, open_caller() as caller:
        for pause_s, connections in ((0, 1), (1.9, 1), (1.9, 1), (2.1, 2)):
            mock_clock.jump(pause_s)
            await caller.call(request(server.url))
            assert server.connections == connections


async def test_any_call_closes_what_has_expired_of_all_callers(
    mock_clock: trio.testing.MockClock,
) -> None:
    spy = SpyingConnect()
    net = open_net(connect=spy)
    async with (
        raw_server(always(answer())) as server,
        raw_server(always(answer())) as other,
        net.open_caller() as first,
        net.open_caller() as second,
    ):
        await first.call(request(server.url))
        await first.call(request(other.url))
        await second.call(request(server.url))
        assert spy.open == 3
        mock_clock.jump(2.1)
        await second.call(request(other.url))
        assert spy.open == 1


async def test_callers_share_no_connection() -> None:
    net = open_net()
    async with raw_server(always(answer())) as server:
        async with net.open_caller() as first, net.open_caller() as second:
            for caller in (first, second, first, second):
                await caller.call(request(server.url))
            assert server.connections == 2


async def test_a_retry_on_a_fresh_connection_has_what_is_left_of_the_time(
    mock_clock: trio.testing.MockClock,
) -> None:
    asked_again, die, asked_afresh = trio.Event(), trio.Event(), trio.Event()
    found: list[Answer] = []

    async def kept(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer())
        await connection.request()
        asked_again.set()
        await die.wait()

    async def fresh(connection: Connection) -> None:
        await connection.request()
        asked_afresh.set()
        await trio.sleep_forever()

    async with raw_server(kept, fresh) as server, open_caller() as caller:
        await caller.call(request(server.url))

        async def call() -> None:
            found.append(await caller.call(request(server.url, timeout_s=3)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await asked_again.wait()
            mock_clock.jump(1.9)
            die.set()
            await asked_afresh.wait()
            mock_clock.jump(1.2)
            await trio.testing.wait_all_tasks_blocked()
            assert failed(found[0], ErrorClass.TIMEOUT, "within 3 s")
            nursery.cancel_scope.cancel(reason="if it still waits")


async def test_a_retry_is_not_retried() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer())
        await connection.request()

    async with raw_server(script, close_at_once) as server, open_caller() as caller:
        await caller.call(request(server.url))
        assert failed(await caller.call(request(server.url)), ErrorClass.DISCONNECTED)
        assert server.connections == 2


async def test_a_kept_connection_that_dies_in_the_middle_of_an_answer_is_not_replaced() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer())
        await connection.request()
        await connection.send(b"H")

    async with raw_server(script) as server, open_caller() as caller:
        await caller.call(request(server.url))
        assert failed(await caller.call(request(server.url)), ErrorClass.DISCONNECTED)
        assert (server.connections, len(server.seen)) == (1, 2)


async def test_every_call_is_a_checkpoint() -> None:
    async with raw_server(always(answer())) as server, open_caller() as caller:
        for url in (server.url, server.url, "http://127.0.0.1:1/", "nonsense"):
            with trio.testing.assert_checkpoints():
                await caller.call(request(url))
