"""Long requests, and answers that come before a request is sent whole."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from engine.adapters.http.wire import Wire, connect_tcp
from engine.core.outcome import Answer
from engine.core.task import ErrorClass
from tests.support.callbacks import failed, open_caller, open_net, request
from tests.support.raw_server import Connection, always, answer, raw_server


async def refuse(connection: Connection, *, leave: bool, body: bytes = b"too big") -> None:
    await connection.part()
    await connection.send(answer(body, 413))
    if not leave:
        await trio.sleep_forever()


@pytest.mark.parametrize("leave", [True, False])
@pytest.mark.parametrize("size", [100, 20_000, 8_000_000])
async def test_an_answer_to_half_a_request_counts(size: int, *, leave: bool) -> None:
    script = partial(refuse, leave=leave)
    async with raw_server(script, always(answer())) as server, open_caller() as caller:
        found = await caller.call(request(server.url, body=b"y" * size))
        assert found == Answer(status_code=413, body=b"too big")


async def test_an_answer_that_was_there_before_the_request_could_be_sent_counts() -> None:
    gone = trio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(answer(b"busy", 503))
        await connection.reset()
        gone.set()

    async def connect(address: str, port: int) -> Wire:
        wire = await connect_tcp(address, port)
        await gone.wait()
        return wire

    async with raw_server(script) as server, open_net(connect=connect).open_caller() as caller:
        found = await caller.call(request(server.url))
    assert found == Answer(status_code=503, body=b"busy")


async def test_a_connection_with_half_a_request_is_not_used_again() -> None:
    script = partial(refuse, leave=False)
    async with raw_server(script, always(answer(b"fresh"))) as server, open_caller() as caller:
        await caller.call(request(server.url, body=b"y" * 8_000_000))
        assert (await caller.call(request(server.url))).body == b"fresh"


async def test_a_long_request_arrives_whole_and_its_connection_is_kept() -> None:
    async with raw_server(always(answer())) as server, open_caller() as caller:
        for size in (16_000, 17_000, 8_000_000):
            found = await caller.call(request(server.url, body=b"y" * size))
            assert found == Answer(status_code=200, body=b"ok")
            assert server.seen[-1].body == b"y" * size
        assert server.connections == 1


async def test_a_long_request_nobody_reads_ends_at_the_timeout() -> None:
    async def script(connection: Connection) -> None:
        await trio.sleep_forever()

    async with raw_server(script) as server, open_caller() as caller:
        found = await caller.call(request(server.url, timeout_s=0.2, body=b"y" * 8_000_000))
    assert failed(found, ErrorClass.TIMEOUT)


async def test_a_long_request_cut_off_without_an_answer() -> None:
    async def script(connection: Connection) -> None:
        await connection.part()
        await connection.reset()

    async with raw_server(script) as server, open_caller() as caller:
        found = await caller.call(request(server.url, body=b"y" * 8_000_000))
    assert failed(found, ErrorClass.DISCONNECTED)
