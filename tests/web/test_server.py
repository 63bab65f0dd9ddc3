"""What clients may do to the server, on real loopback sockets."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import groupby
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from quart import Response, request, websocket
from quart_trio import QuartTrio

from tests.attack.bytes_corpus import CORPUS
from tests.attack.bytes_websocket import FRAMES
from tests.attack.bytes_wire import CREATE, HEALTHZ, HOST, STREAM, frame, upgrade
from web.connection import LINGER_S
from web.plain import Answer as PlainAnswer, Lane, NoLane, Plain, ReadBody
from web.protocol import SEND_FRAMES
from web.server import SPARED_S, serve
from web.settings import ServerConfig

BIG = 16 * 1024 * 1024


def quart_app() -> QuartTrio:
    app = QuartTrio(__name__)
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.get("/healthz")
    async def healthz() -> str:
        return "ok"

    @app.post("/echo")
    @app.post(CREATE.decode())
    async def echo() -> dict[str, int]:
        return {"bytes": len(await request.get_data())}

    @app.get("/slow")
    async def slow() -> str:
        await trio.sleep(float(request.args["s"]))
        return "slow but done"

    @app.get("/big")
    async def big() -> Response:
        return Response(bytes(BIG))

    @app.get("/bad")
    async def bad() -> Response:
        return Response("h11 refuses to send this status", status=101)

    @app.websocket("/echo")
    @app.websocket(STREAM.decode())
    async def echo_websocket() -> None:
        await websocket.accept()
        while True:
            await websocket.send(await websocket.receive())

    @app.websocket("/big")
    async def big_websocket() -> None:
        await websocket.accept()
        await websocket.send(bytes(BIG))
        await websocket.receive()

    @app.websocket("/late")
    async def late() -> None:
        await trio.sleep(0.1)
        await websocket.accept()

    @app.websocket("/flood")
    async def flood() -> None:
        await websocket.accept()
        while True:
            await websocket.send("x" * 1024)

    return app


class Express:
    """An express lane that answers some of what ``quart_app`` does, as that does."""

    def __init__(self) -> None:
        self.answered = 0

    async def answer(self, plain: Plain, read: ReadBody, /) -> PlainAnswer | None:
        if (plain.method, plain.path) == ("GET", b"/healthz"):
            body = b"ok"
        elif plain.length > BIG:
            return PlainAnswer(413, [], b"")
        elif plain.method == "POST" and plain.path in (b"/echo", CREATE):
            body = b'{"bytes":%d}\n' % len(await read())
        elif plain.path == b"/big":
            body = bytes(BIG)
        elif plain.path == b"/slow":
            await trio.sleep(float(plain.query[2:]))
            body = b"slow but done"
        elif plain.path == b"/refused":
            return PlainAnswer(403, [], b"")  # does not look at the body
        elif plain.path == b"/bad":
            return PlainAnswer(200, [("X", "a\r\nb")], b"")
        else:
            return None
        self.answered += 1
        return PlainAnswer(200, [], body)


@attrs.define
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Client:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive(self) -> bytes:
        with trio.fail_after(5):
            return bytes(await self.stream.receive_some())

    async def some(self) -> bytes:
        """What comes next; nothing at the end, however it comes."""
        try:
            return bytes(await self.stream.receive_some())
        except trio.BrokenResourceError:
            return b""

    async def head(self) -> Answer:
        while b"\r\n\r\n" not in self.buffer:
            data = await self.receive()
            assert data, f"closed after {self.buffer!r}"
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        headers = dict(item.lower().split(b": ", 1) for item in lines)
        assert line.startswith(b"HTTP/1.1 ")
        return Answer(int(line.split()[1]), headers, b"")

    async def answer(self) -> Answer:
        answer = await self.head()
        size = int(answer.headers[b"content-length"])
        while len(self.buffer) < size:
            data = await self.receive()
            assert data, f"closed after {self.buffer!r}"
            self.buffer += data
        answer.body, self.buffer = self.buffer[:size], self.buffer[size:]
        return answer

    async def ask(self, data: bytes) -> Answer:
        await self.send(data)
        return await self.answer()

    async def rest(self) -> bytes:
        """Everything up to the end, which has to come soon."""
        try:
            while data := await self.receive():
                self.buffer += data
        except trio.BrokenResourceError:
            pass
        return self.buffer

    async def reset(self) -> None:
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.stream.aclose()


@attrs.define
class Running:
    port: int
    stop: trio.Event
    cut: trio.Event
    stopped: trio.Event

    @asynccontextmanager
    async def client(self, receive_buffer: int | None = None) -> AsyncIterator[Client]:
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.connect(("127.0.0.1", self.port))
        async with trio.SocketStream(sock) as stream:
            yield Client(stream)

    async def exchange(self, *parts: bytes) -> bytes:
        """Say this on a new connection and listen until it is closed."""
        async with self.client() as client:
            for part in parts:
                await client.send(part)
            return await client.rest()

    async def is_healthy(self) -> bool:
        async with self.client() as client:
            return (await client.ask(HEALTHZ)).body == b"ok"


def hold_up_everything(seconds: float) -> None:
    """Time passes, things come in, and nothing of this process runs."""
    time.sleep(seconds)  # noqa: TID251


@asynccontextmanager
async def serving(
    app: Any = None, *, express: Lane | None = None, **limits: Any
) -> AsyncIterator[Running]:
    """A server that must be able to stop, too."""
    stop, cut, stopped = trio.Event(), trio.Event(), trio.Event()
    config = ServerConfig(port=0, **{"keep_alive_s": 0.5, "grace_s": 0.5} | limits)

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        await serve(
            app or quart_app(),
            config,
            express=express,
            shutdown_trigger=stop.wait,
            cut_trigger=cut.wait,
            task_status=task_status,
        )
        stopped.set()

    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(run)
        await trio.testing.wait_all_tasks_blocked()  # so that tests can count tasks
        yield Running(int(url.rpartition(":")[2]), stop, cut, stopped)
        stop.set()
        with trio.fail_after(5):
            await stopped.wait()


def asgi(handle: Callable[..., Awaitable[None]], kind: str) -> Callable[..., Awaitable[None]]:
    """A bare app: ``handle`` for one kind of scope at any path, /healthz besides."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] != "lifespan"
        if scope["path"] == "/healthz":
            await start(send, 2)
            await send({"type": "http.response.body", "body": b"ok"})
        else:
            assert scope["type"] == kind
            await handle(receive, send)

    return app


async def start(send: Any, size: int) -> None:
    headers = [(b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


# --- the life of a connection


async def test_connections_are_reused_and_answers_do_not_name_the_server() -> None:
    async with serving() as server, server.client() as client:
        first = await client.ask(HEALTHZ)
        second = await client.ask(b"POST /echo HTTP/1.1\r\n%sContent-Length: 3\r\n\r\nabc" % HOST)
    assert (first.status, first.body) == (200, b"ok")
    assert second.body.strip() == b'{"bytes":3}'
    assert b"server" not in first.headers


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as server, server.client() as client:
        await client.send(b"GET /slow?s=0.05 HTTP/1.1\r\n" + HOST + b"\r\n" + HEALTHZ * 2)
        assert [(await client.answer()).body for _ in range(3)] == [b"slow but done", b"ok", b"ok"]


@pytest.mark.parametrize(
    "asked",
    [
        b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n",
    ],
)
async def test_who_does_not_want_to_be_kept_alive_is_closed_at_once(asked: bytes) -> None:
    async with serving(keep_alive_s=60) as server, trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(expect_ok_and_end, server, asked)


async def expect_ok_and_end(server: Running, asked: bytes) -> None:
    with trio.fail_after(3):
        assert (await server.exchange(asked)).endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("lane", [Express, NoLane])
@pytest.mark.parametrize("behind", [b"\r\n", HEALTHZ, b"x" * 100_000])
async def test_what_comes_behind_the_last_request_does_not_spoil_its_answer(
    behind: bytes, lane: type[Lane]
) -> None:
    """It may be done by then: a 400 would say that it is not."""
    asked = b"POST /echo HTTP/1.1\r\n%sConnection: close\r\nContent-Length: 3\r\n\r\nabc" % HOST
    async with serving(express=lane()) as server:
        answer = await server.exchange(asked + behind)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'{"bytes":3}' in answer


async def test_who_goes_on_talking_behind_the_last_request_is_answered() -> None:
    async with serving() as server, server.client() as client:
        await client.send(b"GET /slow?s=0.3 HTTP/1.1\r\n%sConnection: close\r\n\r\n" % HOST)
        for _ in range(20):
            await client.send(bytes(100_000))
            await trio.sleep(0.01)
        assert b"slow but done" in await client.rest()


@pytest.mark.slow
@pytest.mark.parametrize("lane", [Express, NoLane])
async def test_half_a_request_behind_another_has_the_time_for_headers(lane: type[Lane]) -> None:
    times = {"keep_alive_s": 30, "headers_timeout_s": 0.3}
    async with serving(express=lane(), **times) as server:
        with trio.fail_after(3):
            answer = await server.exchange(HEALTHZ + HEALTHZ[:20])
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"408"]


async def test_our_direction_is_closed_before_the_client_closes_its_own() -> None:
    async with serving(keep_alive_s=60) as server:
        with trio.fail_after(LINGER_S * 0.8):
            await server.exchange(b"GET /healthz HTTP/1.0\r\n\r\n")


@pytest.mark.slow
async def test_idle_connections_are_closed() -> None:
    async with serving(keep_alive_s=0.2) as server:
        with trio.fail_after(2):
            assert await server.exchange() == b""  # never said a word
            await expect_ok_and_end(server, HEALTHZ)  # wanted to be kept alive, but said no more


@pytest.mark.slow
async def test_the_wait_for_the_next_request_starts_after_the_answer() -> None:
    async with serving(keep_alive_s=0.3) as server, server.client() as client:
        for _ in range(3):
            assert (await client.ask(b"GET /slow?s=0.2 HTTP/1.1\r\n%s\r\n" % HOST)).status == 200
            await trio.sleep(0.15)


async def test_an_app_cancelled_while_it_ends_its_answer_leaves_no_connection_behind() -> None:
    async def cancelled(receive: Any, send: Any) -> None:
        await start(send, 4)
        with trio.CancelScope() as scope:
            scope.cancel(reason="what Quart-Trio does when its response timeout strikes")
            await send({"type": "http.response.body", "body": b"done"})

    async with serving(asgi(cancelled, "http")) as server, server.client() as client:
        assert (await client.ask(b"GET / HTTP/1.1\r\n%s\r\n" % HOST)).body == b"done"
        assert (await client.ask(HEALTHZ)).body == b"ok"  # on the same connection


@pytest.mark.slow
async def test_an_app_that_does_not_read_its_request_leaves_no_connection_behind() -> None:
    async def deaf(receive: Any, send: Any) -> None:
        await start(send, 4)
        await trio.sleep(0.2)  # by now its inbox is full
        await send({"type": "http.response.body", "body": b"done"})

    body = b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50
    async with serving(asgi(deaf, "http"), grace_s=30) as server:
        base = trio.lowlevel.current_statistics().tasks_living
        assert (await server.exchange(b"POST / HTTP/1.1\r\n", HOST, body)).endswith(b"done")
        await expect_tasks(base)


@pytest.mark.slow
async def test_an_app_that_never_reads_and_never_answers_leaves_no_connection_behind() -> None:
    async def deaf(receive: Any, send: Any) -> None:
        await trio.sleep_forever()

    body = b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50
    async with serving(asgi(deaf, "http"), body_timeout_s=0.1, grace_s=0.1) as server:
        base = trio.lowlevel.current_statistics().tasks_living
        assert b" 408 " in await server.exchange(b"POST / HTTP/1.1\r\n", HOST, body)
        await expect_tasks(base)


# --- the express lane


ECHO = b"POST /echo HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n"
TRACE = b"TRACE /healthz HTTP/1.1\r\n" + HOST + b"\r\n"


async def test_both_lanes_take_turns_on_one_connection() -> None:
    express = Express()
    async with serving(express=express) as server, server.client() as client:
        for number in range(1, 4):
            assert (await client.ask(HEALTHZ)).body == b"ok"
            assert (await client.ask(TRACE)).status == 405
            chunked = b"POST /echo HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n" % HOST
            assert (await client.ask(chunked + b"1\r\nx\r\n0\r\n\r\n")).body == b'{"bytes":1}\n'
            assert express.answered == number
            await trio.testing.wait_all_tasks_blocked()  # until the connection is idle again


async def test_both_lanes_take_turns_in_a_pipeline() -> None:
    express = Express()
    async with serving(express=express) as server, server.client() as client:
        await client.send(HEALTHZ * 2 + ECHO % (HOST, 3) + b"abc" + TRACE + HEALTHZ + HEALTHZ[:9])
        answers = [await client.answer() for _ in range(5)]
        assert [answer.status for answer in answers] == [200, 200, 200, 405, 200]
        await client.send(HEALTHZ[9:])
        assert (await client.answer()).body == b"ok"
        assert express.answered == 3  # what h11 has begun to read it reads to the end


@pytest.mark.parametrize("size", [1, 1000, 100_000])
async def test_a_body_may_come_in_pieces(size: int) -> None:
    express = Express()
    asked = ECHO % (HOST, size) + bytes(size) + HEALTHZ
    head = asked.index(b"\r\n\r\n") + 4
    async with serving(express=express) as server, server.client() as client:
        await client.send(asked[:head])
        for part in (asked[head : head + size // 2], asked[head + size // 2 :]):
            await trio.sleep(0.02)
            await client.send(part)
        assert (await client.answer()).body == b'{"bytes":%d}\n' % size
        assert (await client.answer()).body == b"ok"
        assert express.answered == 2


async def test_who_leaves_within_a_body_gets_no_answer() -> None:
    async with serving(express=Express()) as server:
        async with server.client() as client:
            await client.send(ECHO % (HOST, 3) + b"ab")
            await client.stream.send_eof()
            assert await client.rest() == b""
        assert await server.is_healthy()


@pytest.mark.slow
async def test_a_plain_body_that_does_not_come_is_cut_at_the_deadline() -> None:
    async with serving(express=Express(), body_timeout_s=0.2) as server, server.client() as client:
        await client.send(ECHO % (HOST, 99))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, client, bytes(99))
            with trio.fail_after(1.5):
                assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
            nursery.cancel_scope.cancel()


async def test_who_only_sends_gets_an_answer_all_the_same() -> None:
    async with serving(express=Express()) as server, server.client() as client:
        await client.send(HEALTHZ)
        await client.stream.send_eof()
        assert (await client.rest()).endswith(b"ok")


async def test_a_body_that_nobody_read_ends_the_connection_but_does_not_hide_the_answer() -> None:
    asked = b"POST /refused HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (HOST, BIG)
    async with serving(express=Express()) as server:
        answer = await server.exchange(asked, bytes(64 * 1024), bytes(64 * 1024))
        whole = b"POST /refused HTTP/1.1\r\n%sContent-Length: 3\r\n\r\nabc" % HOST
        async with server.client() as client:
            assert [(await client.ask(whole)).status for _ in range(2)] == [403, 403]
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"\r\nconnection: close\r\n" in answer


@pytest.mark.parametrize("lane", [Express, NoLane])
async def test_who_wants_no_more_is_told_so_and_closed(lane: type[Lane]) -> None:
    asked = HEALTHZ.replace(HOST, HOST + b"Connection: close\r\n")
    async with serving(express=lane(), keep_alive_s=60) as server, server.client() as client:
        await client.send(asked + HEALTHZ)  # what comes behind is not looked at
        assert (await client.answer()).headers[b"connection"] == b"close"
        with trio.fail_after(LINGER_S * 0.8):
            assert await client.rest() == b""


@pytest.mark.parametrize("lane", [Express, NoLane])
async def test_a_request_that_comes_just_as_time_is_up_is_answered(lane: type[Lane]) -> None:
    """As after a pause of the whole process. Cut off in its midst it would be carried out, and its
    client told 408."""
    async with serving(express=lane(), keep_alive_s=0.2) as server, server.client() as client:
        await client.send(HEALTHZ)
        assert (await client.answer()).body == b"ok"
        os.write(client.stream.socket.fileno(), b"GET /slow?s=0.05 HTTP/1.1\r\n%s\r\n" % HOST)
        hold_up_everything(0.4)
        assert (await client.answer()).body == b"slow but done"
        await client.send(HEALTHZ)
        assert (await client.answer()).body == b"ok"
        assert await client.rest() == b"", "now it was idle for too long"


@pytest.mark.parametrize("lane", [Express, NoLane])
async def test_a_request_that_is_whole_just_as_time_is_up_is_not_begun(lane: type[Lane]) -> None:
    async with serving(express=lane(), headers_timeout_s=0.3, keep_alive_s=9) as server:
        async with server.client() as client:
            await client.send(b"GET /slow?s=0.05 HTTP/1.1\r\n")
            await trio.sleep(0.1)
            os.write(client.stream.socket.fileno(), b"%s\r\n" % HOST)
            hold_up_everything(0.4)
            assert (await client.answer()).status == 408


@pytest.mark.slow
async def test_idle_connections_are_closed_after_plain_requests_too() -> None:
    async with serving(express=Express(), keep_alive_s=0.2) as server:
        with trio.fail_after(2):
            await expect_ok_and_end(server, HEALTHZ)


@pytest.mark.slow
async def test_a_client_that_never_reads_a_plain_answer_is_cut() -> None:
    async with serving(express=Express(), send_timeout_s=0.3, grace_s=30) as server:
        base = trio.lowlevel.current_statistics().tasks_living
        async with server.client() as client:
            await client.send(b"GET /big HTTP/1.1\r\n" + HOST + b"\r\n")
            await trio.sleep(0.1)
            assert await server.is_healthy()
            await expect_tasks(base)
            assert len(await client.rest()) < BIG


async def test_a_large_plain_answer_is_read_whole() -> None:
    async with serving(express=Express()) as server, server.client(64 * 1024) as client:
        answer = await client.ask(b"GET /big HTTP/1.1\r\n" + HOST + b"\r\n" + HEALTHZ)
        assert len(answer.body) == BIG
        assert (await client.answer()).body == b"ok"


async def test_an_answer_that_cannot_be_sent_ends_only_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(express=Express()) as server:
        assert await server.exchange(b"GET /bad HTTP/1.1\r\n%s\r\n" % HOST) == b""
        assert await server.is_healthy()
    assert "a connection ended by an error" in caplog.messages


@pytest.mark.slow
async def test_draining_waits_for_a_plain_request_in_progress() -> None:
    async with serving(express=Express(), keep_alive_s=30, grace_s=10) as server:
        async with server.client() as idle, server.client() as busy:
            await idle.ask(HEALTHZ)
            await busy.send(b"GET /slow?s=0.2 HTTP/1.1\r\n" + HOST + b"\r\n")
            await trio.sleep(0.05)
            server.stop.set()
            assert await idle.rest() == b""
            answer = await busy.answer()
            assert (answer.body, answer.headers[b"connection"]) == (b"slow but done", b"close")
            await busy.rest()
        with trio.fail_after(1):
            await server.stopped.wait()


async def test_a_pipeline_of_plain_requests_lets_others_go_on() -> None:
    async with serving(express=Express()) as server, server.client() as greedy:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(greedy.send, HEALTHZ * 20_000)
            nursery.start_soon(greedy.rest)
            assert await server.is_healthy()
            nursery.cancel_scope.cancel()


# --- errors stay where they are


async def test_an_error_in_a_connection_ends_only_that_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as server, server.client() as other:
        assert (await other.ask(HEALTHZ)).status == 200
        await server.exchange(b"GET /bad HTTP/1.1\r\n%s\r\n" % HOST)
        assert (await other.ask(HEALTHZ)).status == 200
    assert "a connection ended by an error" in caplog.messages


async def test_frames_before_the_handshake_is_answered_end_the_connection_and_log_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as server:
        with_it = await server.exchange(upgrade(b"/echo") + frame(b"hi"))
        await server.exchange(upgrade(b"/echo"), frame(b"hi"), frame(b"", 8))  # a race
        async with server.client() as client:
            await client.send(upgrade(b"/late"))
            await trio.sleep(0.05)
            await client.send(frame(b"hi"))
            assert await client.rest() == b""
        assert await server.is_healthy()
    assert with_it.startswith(b"HTTP/1.1 400 ")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("good", "bad"), [(b"Version: 13", b"Version: 1"), (b"WebSocket-Key", b"X"), (b"1.1", b"1.0")]
)
async def test_a_bad_handshake_is_refused_and_closed(good: bytes, bad: bytes) -> None:
    async with serving() as server:
        answer = await server.exchange(upgrade(b"/echo").replace(good, bad))
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("settings", [b"AAMAAABkAAQAoAAAAAIAAAAA", b"AAA", b"", b"!!!!"])
async def test_an_upgrade_to_http2_is_answered_in_http1(settings: bytes) -> None:
    asked = (
        b"GET /healthz HTTP/1.1\r\nHost: test\r\nUpgrade: h2c\r\n"
        b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: %s\r\n\r\n"
    )
    async with serving() as server, server.client() as client:
        answer = await client.ask(asked % settings)
        assert (answer.status, answer.body) == (200, b"ok")
        assert (await client.ask(HEALTHZ)).status == 200


async def test_http2_with_prior_knowledge_is_refused() -> None:
    async with serving() as server:
        answer = await server.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes(9))
    assert answer.startswith(b"HTTP/1.1 505 ")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET http://[ HTTP/1.1", 400),
        (b"GET http://[::1 HTTP/1.1", 400),
        (b"GET ftp://test/healthz HTTP/1.1", 400),
        (b"GET healthz HTTP/1.1", 400),
        (b"GET ? HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"CONNECT test:80 HTTP/1.1", 400),
        (b"GET  HTTP/1.1", 400),
        (b"GET /healthz HTTP/0.9", 505),
        (b"GET /healthz HTTP/3.0", 505),
        (b"GET http://test/healthz HTTP/1.1", 200),
        (b"GET /healthz?%zz=%ff HTTP/1.1", 200),
    ],
)
async def test_targets_and_versions(line: bytes, status: int) -> None:
    async with serving() as server:
        answer = await server.exchange(line + b"\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)


async def test_a_request_with_two_lengths_is_refused() -> None:
    lengths = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"
    async with serving() as server:
        smuggled = b"0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n"
        answer = await server.exchange(b"POST /echo HTTP/1.1\r\n", HOST, lengths, b"\r\n", smuggled)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


# --- limits


@pytest.mark.parametrize("size", [7000, 9000, 60_000, 1_000_000])
async def test_large_headers_are_refused_however_they_arrive(size: int) -> None:
    header = b"X-Large: " + b"x" * size + b"\r\n"
    async with serving(header_bytes_max=8192) as server:
        # In one piece, as h11 only looks at headers that are incomplete.
        asked = b"GET /healthz HTTP/1.1\r\n" + HOST + b"Connection: close\r\n" + header + b"\r\n"
        answer = await server.exchange(asked)
    assert answer.startswith(b"HTTP/1.1 200 " if size < 8000 else b"HTTP/1.1 431 ")


@pytest.mark.slow
async def test_headers_sent_byte_by_byte_are_cut_at_the_deadline() -> None:
    async with serving(headers_timeout_s=0.4, keep_alive_s=30) as server, server.client() as client:
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, client, HEALTHZ)
            answer = await client.rest()
            nursery.cancel_scope.cancel()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert 0.3 < trio.current_time() - started < 1.5


@pytest.mark.slow
async def test_a_body_that_does_not_come_is_cut_at_the_deadline() -> None:
    async with serving(body_timeout_s=0.3) as server, server.client() as client:
        await client.send(b"POST /echo HTTP/1.1\r\n%sContent-Length: 99\r\n\r\n" % HOST)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, client, bytes(99))
            with trio.fail_after(1.5):
                assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
            nursery.cancel_scope.cancel()


async def drip(client: Client, data: bytes) -> None:
    try:
        for byte in data:
            await client.send(bytes([byte]))
            await trio.sleep(0.05)
    except trio.BrokenResourceError:
        pass


@pytest.mark.slow
async def test_a_client_that_never_reads_is_cut() -> None:
    async with serving(send_timeout_s=0.3, grace_s=30) as server:
        base = trio.lowlevel.current_statistics().tasks_living
        async with server.client() as answer, server.client() as watcher:
            await answer.send(b"GET /big HTTP/1.1\r\n" + HOST + b"\r\n")
            await watcher.send(upgrade(b"/flood"))
            await trio.sleep(0.1)
            assert trio.lowlevel.current_statistics().tasks_living > base
            assert await server.is_healthy()
            await expect_tasks(base)
            assert len(await answer.rest()) < BIG


@pytest.mark.slow
async def test_a_client_that_reads_slowly_but_steadily_gets_everything() -> None:
    async with serving(send_timeout_s=0.3) as server, server.client(64 * 1024) as client:
        started = trio.current_time()
        await client.send(b"GET /big HTTP/1.1\r\n" + HOST + b"\r\n")
        await client.head()
        received = len(client.buffer)
        while received < BIG:
            data = await client.stream.receive_some(BIG // 40)
            assert data
            received += len(data)
            await trio.sleep(0.002)
        assert trio.current_time() - started > 0.3


@pytest.mark.slow
async def test_a_client_that_never_reads_does_not_block_the_shutdown() -> None:
    async with serving(send_timeout_s=60, grace_s=0.2) as server, server.client() as watcher:
        await watcher.send(upgrade(b"/flood"))
        await trio.sleep(0.2)
        server.stop.set()
        with trio.fail_after(2):
            await server.stopped.wait()


async def test_more_connections_than_allowed_wait_for_room() -> None:
    async with serving(connections_max=2, keep_alive_s=30) as server:
        async with server.client() as first, server.client() as second, server.client() as third:
            for client in (first, second):
                await client.send(b"GET /slow?s=20 HTTP/1.1\r\n%s\r\n" % HOST)
            await third.send(HEALTHZ)
            with trio.move_on_after(0.2) as waited:
                await third.head()
            assert waited.cancelled_caught
            await first.stream.aclose()
            assert (await third.answer()).status == 200


@pytest.mark.slow
async def test_who_has_been_idle_longest_makes_room_for_who_waits() -> None:
    async with serving(connections_max=2, keep_alive_s=60) as server:
        async with server.client() as first, server.client() as second, server.client() as third:
            assert (await first.ask(HEALTHZ)).status == 200
            await trio.sleep(0.05)
            assert (await second.ask(HEALTHZ)).status == 200
            assert (await third.ask(HEALTHZ)).status == 200
            assert await first.rest() == b""
            assert (await second.ask(HEALTHZ)).status == 200


@pytest.mark.slow
async def test_nobody_is_closed_for_being_idle_while_there_is_room() -> None:
    async with serving(connections_max=3, keep_alive_s=60) as server:
        async with server.client() as first, server.client() as second:
            assert (await first.ask(HEALTHZ)).status == 200
            assert (await second.ask(HEALTHZ)).status == 200
            await trio.sleep(SPARED_S * 2)
            assert (await first.ask(HEALTHZ)).status == 200


@pytest.mark.parametrize("field", [f.name for f in attrs.fields(ServerConfig)[2:]])
def test_a_limit_of_nothing_is_refused(field: str) -> None:
    limits: dict[str, Any] = {field: 0}
    with pytest.raises(ValueError, match=field):
        ServerConfig(**limits)


async def test_a_port_in_use_is_reported_unwrapped() -> None:
    async with serving() as server:
        with pytest.raises(OSError, match="in use"):
            await serve(
                quart_app(), ServerConfig(port=server.port), shutdown_trigger=trio.sleep_forever
            )


# --- websockets


async def test_websockets_work_but_messages_are_not_compressed() -> None:
    async with serving() as server, server.client() as client:
        await client.send(upgrade(b"/echo", b"Sec-WebSocket-Extensions: permessage-deflate"))
        answer = await client.head()
        assert answer.status == 101
        assert b"sec-websocket-extensions" not in answer.headers
        await client.send(frame(b"x" * 4096))
        while len(client.buffer) < 4 + 4096:
            data = await client.receive()
            assert data
            client.buffer += data
        assert client.buffer == b"\x81\x7e\x10\x00" + b"x" * 4096


async def test_a_pong_does_not_get_into_a_message() -> None:
    async with serving() as server, server.client() as client:
        await client.send(upgrade(b"/big"))
        await client.head()
        await client.send(frame(b"ping", 9))
        await trio.sleep(0.05)
        end = b"\x8a\x04ping"
        while not client.buffer.endswith(end):
            data = await client.receive()
            assert data
            client.buffer += data
        assert client.buffer == b"\x82\x7f" + struct.pack("!Q", BIG) + bytes(BIG) + end


async def test_an_app_can_send_frames_of_its_own_making() -> None:
    text, end = b"\x81\x05hello", b"\x8a\x04ping"
    whole = b"\x82\x7f" + struct.pack("!Q", BIG) + bytes(BIG)

    async def framed(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        send_frames = scope["extensions"][SEND_FRAMES]
        await send_frames(text)  # nothing yet
        await send({"type": "websocket.accept"})
        await send_frames(whole)
        await send_frames(text * 2)
        await send({"type": "websocket.close"})
        await send_frames(text)  # nothing any more

    async with serving(framed) as server, server.client() as client:
        await client.send(upgrade(b"/"))
        await client.head()
        await client.send(frame(b"ping", 9))
        await trio.sleep(0.05)  # the pong waits for its turn
        received = await client.rest()
    assert received == whole + end + text * 2 + b"\x88\x02" + struct.pack("!H", 1000)


@pytest.mark.slow
async def test_an_app_that_sends_frames_to_nobody_does_not_freeze_the_server() -> None:
    message = b"\x82\x7e" + struct.pack("!H", 60_000) + bytes(60_000)

    async def flood(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            while True:
                await scope["extensions"][SEND_FRAMES](message)
        await start(send, 2)
        await send({"type": "http.response.body", "body": b"ok"})

    async with serving(flood, grace_s=0.3, send_timeout_s=0.3) as server:
        base = trio.lowlevel.current_statistics().tasks_living
        async with server.client() as client, server.client() as deaf:
            await client.send(upgrade(b"/"))
            await deaf.send(upgrade(b"/"))
            await client.head()
            await client.reset()
            assert await server.is_healthy()
            await expect_tasks(base)


@pytest.mark.slow
@pytest.mark.parametrize(
    "message",
    [frame(b"x" * 4097), frame(b"x" * 4000, fin=False) + frame(b"x" * 97, 0)],
    ids=["one frame", "fragments"],
)
async def test_a_large_websocket_message_ends_the_connection(message: bytes) -> None:
    async with serving(websocket_message_bytes_max=4096) as server, server.client() as client:
        base = trio.lowlevel.current_statistics().tasks_living
        await client.send(upgrade(b"/echo"))
        await client.head()
        await client.send(message)
        assert await client.rest() == b"\x88\x02" + struct.pack("!H", 1009)  # and nobody waits
        await expect_tasks(base)  # although our side of the connection is still open


@pytest.mark.slow
@pytest.mark.parametrize("reset", [False, True])
async def test_an_app_that_sends_for_ever_does_not_freeze_the_server(reset: bool) -> None:
    async def flood(receive: Any, send: Any) -> None:
        """Does not look whether anyone is there: after the disconnect ``send`` does nothing."""
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "x", "bytes": None})

    for app in (asgi(flood, "websocket"), quart_app()):
        async with serving(app, grace_s=0.3) as server:
            base = trio.lowlevel.current_statistics().tasks_living
            async with server.client() as client:
                await client.send(upgrade(b"/flood"))
                await client.head()
                if reset:
                    await client.reset()
            assert await server.is_healthy()
            await expect_tasks(base)


@pytest.mark.slow
async def test_an_app_that_streams_for_ever_does_not_freeze_the_server() -> None:
    async def stream(receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"", "more_body": True})

    async with serving(asgi(stream, "http")) as server, server.client() as client:
        await client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await client.head()).status == 200
        assert await server.is_healthy()


# --- the end


@pytest.mark.slow
async def test_draining_closes_listeners_then_finishes_what_has_begun() -> None:
    async with serving(keep_alive_s=30, grace_s=10) as server:
        async with server.client() as idle, server.client() as busy, server.client() as watcher:
            await idle.ask(HEALTHZ)
            await watcher.send(upgrade(b"/echo"))
            await watcher.head()
            await busy.send(b"GET /slow?s=0.3 HTTP/1.1\r\n" + HOST + b"\r\n")
            await trio.sleep(0.05)
            server.stop.set()
            assert await idle.rest() == b""
            assert await watcher.rest() == b"\x88\x02" + struct.pack("!H", 1001)
            with pytest.raises(OSError, match="failed"):
                await trio.open_tcp_stream("127.0.0.1", server.port)
            assert not server.stopped.is_set()
            answer = await busy.answer()
            assert (answer.body, answer.headers[b"connection"]) == (b"slow but done", b"close")
            await busy.rest()
        with trio.fail_after(1):
            await server.stopped.wait()


async def test_draining_ends_a_connection_whose_answer_had_begun() -> None:
    began = trio.Event()

    async def halves(receive: Any, send: Any) -> None:
        await start(send, 8)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        began.set()
        await trio.sleep(0.1)
        await send({"type": "http.response.body", "body": b"half"})

    async with (
        serving(asgi(halves, "http"), keep_alive_s=30, grace_s=30) as server,
        server.client() as client,
    ):
        await client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        await began.wait()
        server.stop.set()
        assert (await client.answer()).body == b"halfhalf"
        with trio.fail_after(LINGER_S * 0.8):
            assert await client.rest() == b""


@pytest.mark.slow
async def test_what_does_not_end_in_the_grace_is_cut() -> None:
    async with serving(grace_s=0.2) as server, server.client() as client:
        await client.send(b"GET /slow?s=60 HTTP/1.1\r\n" + HOST + b"\r\n")
        await trio.sleep(0.05)
        server.stop.set()
        assert await client.rest() == b""


async def test_the_grace_can_be_cut_short() -> None:
    async with serving(grace_s=60) as server, server.client() as client:
        await client.send(b"GET /slow?s=60 HTTP/1.1\r\n" + HOST + b"\r\n")
        await trio.sleep(0.05)
        server.stop.set()
        await trio.sleep(0.05)
        server.cut.set()
        assert await client.rest() == b""


PROGRAM = """
import sys, trio
from web.server import SPARED_S, serve
from web.settings import ServerConfig
from web.signals import StopSignals

async def app(scope, receive, send):
    assert scope["type"] == "http"
    with trio.CancelScope(shield=scope["path"] == "/stubborn"):
        await trio.sleep(float(scope["query_string"]))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})

async def main(grace_s, exit_after_s, after_s):
    signals = StopSignals(exit_after_s)
    config = ServerConfig(port=0, grace_s=grace_s)
    async with trio.open_nursery() as nursery:
        await nursery.start(signals.watch)
        server = lambda task_status: serve(
            app, config, shutdown_trigger=signals.first.wait, cut_trigger=signals.second.wait,
            task_status=task_status)
        async with trio.open_nursery() as servers:
            print((await servers.start(server))[0], flush=True)
        nursery.cancel_scope.cancel()
    await trio.sleep(after_s)

trio.run(main, *map(float, sys.argv[1:]))
"""


@asynccontextmanager
async def program(
    grace_s: float, exit_after_s: float, after_s: float = 0
) -> AsyncIterator[tuple[trio.Process, Running]]:
    command = [sys.executable, "-c", PROGRAM, *map(str, [grace_s, exit_after_s, after_s])]
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with trio.fail_after(10):
            url = await process.stdout.receive_some()
        port = int(url.rpartition(b":")[2])
        yield process, Running(port, trio.Event(), trio.Event(), trio.Event())
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()
            await process.stderr.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_requests_finish_and_the_process_exit_cleanly(
    number: signal.Signals,
) -> None:
    async with program(grace_s=10, exit_after_s=15) as (process, server):
        async with server.client() as client:
            await client.send(b"GET /?1 HTTP/1.1\r\n" + HOST + b"\r\n")
            await trio.sleep(0.1)
            process.send_signal(number)
            answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"done" in answer
        with trio.fail_after(2):
            assert await process.wait() == 0


@pytest.mark.slow
async def test_a_second_signal_ends_the_grace() -> None:
    async with program(grace_s=60, exit_after_s=65) as (process, server), server.client() as client:
        await client.send(b"GET /?60 HTTP/1.1\r\n" + HOST + b"\r\n")
        await trio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(0.2):
            await process.wait()
        assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(2):
            assert await process.wait() == 0


@pytest.mark.slow
async def test_the_watchdog_ends_what_ignores_the_end_of_its_grace() -> None:
    async with program(grace_s=0.1, exit_after_s=0.5) as (process, server):
        async with server.client() as client:
            await client.send(b"GET /stubborn?60 HTTP/1.1\r\n" + HOST + b"\r\n")
            await trio.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            with trio.fail_after(3):
                assert await process.wait() == 70
        assert process.stderr is not None
        assert b"most recent call first" in await process.stderr.receive_some()  # says where


@pytest.mark.slow
async def test_the_watchdog_lets_go_of_what_stopped_in_time() -> None:
    async with program(grace_s=0.1, exit_after_s=0.4, after_s=0.6) as (process, _):
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(3):
            assert await process.wait() == 0


# --- whatever they send


async def expect_tasks(count: int) -> None:
    """All tasks but these end soon."""
    with trio.fail_after(15):
        while trio.lowlevel.current_statistics().tasks_living > count:  # noqa: ASYNC110  # no event tells
            await trio.sleep(0.01)


@attrs.frozen
class Hostile:
    """Says its lines, and leaves in one of three ways."""

    parts: list[bytes]
    handshake: bool = False

    async def attack(self, server: Running, how: str) -> None:
        async with server.client() as client:
            try:
                if self.handshake:
                    await client.send(upgrade(b"/echo"))
                    await client.head()
                for part in self.parts:
                    await client.send(part)
                if how == "reset":
                    await client.reset()
                elif how == "listen":
                    with trio.move_on_after(1.5):  # some are good enough to stay open
                        await client.rest()
            except trio.BrokenResourceError:
                pass


@pytest.mark.slow
@pytest.mark.parametrize("lane", [Express, NoLane])
@pytest.mark.parametrize("how", ["listen", "leave", "reset"])
async def test_whatever_they_send_the_server_goes_on(how: str, lane: type[Lane]) -> None:
    everyone = {name: Hostile(parts) for name, parts in CORPUS.items()}
    everyone |= {f"frame: {name}": Hostile([data], True) for name, data in FRAMES.items()}
    assert len(everyone) > 400
    times = {"keep_alive_s": 1.5, "headers_timeout_s": 1.5, "body_timeout_s": 1.5}
    async with serving(express=lane(), **times, send_timeout_s=0.5) as server:
        base = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as nursery:
            for name, hostile in everyone.items():
                nursery.start_soon(partial(hostile.attack, server, how), name=name)
                assert await server.is_healthy(), name
        await expect_tasks(base)
        assert await server.is_healthy()


@pytest.mark.slow
async def test_no_hostile_request_is_answered_by_a_server_error_nor_otherwise_by_one_lane(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """505 and 501 name what the client may not ask for; a 500 would be our fault."""
    express, quart = [await answers_to_corpus(lane) for lane in (Express(), NoLane())]
    assert [name for name, answer in express.items() if b"HTTP/1.1 500" in answer] == []
    assert "a connection ended by an error" not in caplog.messages
    assert {name: statuses(answer) for name, answer in express.items()} == {
        name: statuses(answer) for name, answer in quart.items()
    }


def statuses(answers: bytes) -> list[str]:
    """Each once where there are several of it: not all of a pipeline is answered in time."""
    return [status for status, _ in groupby(re.findall(r"HTTP/1\.1 (\d+)", answers.decode()))]


async def answers_to_corpus(lane: Lane) -> dict[str, bytes]:
    """To each sequence in one go: what comes first shall not depend on what runs beside."""
    limits = {"keep_alive_s": 2, "headers_timeout_s": 2, "body_timeout_s": 5}
    async with serving(express=lane, **limits) as server:
        answers: dict[str, bytes] = {}

        async def ask(name: str, parts: list[bytes]) -> None:
            async with server.client() as client:
                with suppress(trio.BrokenResourceError):
                    await client.send(b"".join(parts))
                with trio.fail_after(30):  # all are closed by a limit, but for websockets
                    while b"HTTP/1.1 101" not in client.buffer and (data := await client.some()):
                        client.buffer += data
                answers[name] = client.buffer

        async with trio.open_nursery() as nursery:
            for name, parts in CORPUS.items():
                nursery.start_soon(ask, name, parts)
    return answers
