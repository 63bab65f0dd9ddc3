"""Answers made to harm: everything has a limit, and nothing ambiguous is believed."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from engine.core.outcome import Answer
from engine.core.task import ErrorClass
from tests.support.callbacks import CAP, CHUNKED, failed, one_call, open_caller, open_net, request
from tests.support.raw_server import Connection, Script, always, answer, once, raw_server

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"

REFUSED = {
    "a bare LF after the status line": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "a bare LF after a header": OK + b"A: b\n" + EMPTY,
    "a bare LF at the end of the head": OK + b"Content-Length: 0\r\n\n",
    "a bare CR in a value": OK + b"A: b\rc\r\n" + EMPTY,
    "a blank before the colon": OK + b"A : b\r\n" + EMPTY,
    "a blank before the colon of a coding": OK + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "NUL in a value": OK + b"A: b\0c\r\n" + EMPTY,
    "a control character in a value": OK + b"A: b\x01c\r\n" + EMPTY,
    "DEL in a value": OK + b"A: b\x7fc\r\n" + EMPTY,
    "a folded header": OK + b"A: b\r\n c\r\n" + EMPTY,
    "a folded length": OK + b"Content-Length: 1\r\n 0\r\n\r\n",
    "a folded coding": OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a blank before the first header": OK + b" A: b\r\n" + EMPTY,
    "a name that is no token": OK + b"A(b: c\r\n" + EMPTY,
    "no name": OK + b": c\r\n" + EMPTY,
    "the same length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "a list of lengths": OK + b"Content-Length: 2, 2\r\n\r\nab",
    "a length with a sign": OK + b"Content-Length: +2\r\n\r\nab",
    "an empty length": OK + b"Content-Length: \r\n\r\nab",
    "a length with a blank in it": OK + b"Content-Length: 1 2\r\n\r\nab",
    "a length in hexadecimal": OK + b"Content-Length: 0x2\r\n\r\nab",
    "a length too big for anything": OK + b"Content-Length: 99999999999999999999\r\n\r\nab",
    "length and coding": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, gzip": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nabc",
    "an empty coding": OK + b"Transfer-Encoding: \r\n\r\nabc",
    "a negative chunk": CHUNKED + b"-1\r\n",
    "a chunk too big for anything": CHUNKED + b"fffffffffffffffff\r\nabc",
    "a chunk with a sign": CHUNKED + b"+1\r\na\r\n0\r\n\r\n",
    "a chunk with 0x": CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "a blank after a chunk size": CHUNKED + b"1 \r\na\r\n0\r\n\r\n",
    "a bare LF after a chunk size": CHUNKED + b"1\na\r\n0\r\n\r\n",
    "a bare LF after a chunk": CHUNKED + b"1\r\na\n0\r\n\r\n",
    "a bare LF in an extension": CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n",
    "no chunk size": CHUNKED + b"\r\na\r\n0\r\n\r\n",
    "a length as a trailer": CHUNKED + b"1\r\na\r\n0\r\nContent-Length: 7\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n" + EMPTY,
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n" + EMPTY,
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n" + EMPTY,
    "RTSP": b"RTSP/1.0 200 OK\r\n" + EMPTY,
    "status 000": b"HTTP/1.1 000 OK\r\n" + EMPTY,
    "status 099": b"HTTP/1.1 099 OK\r\n" + EMPTY,
    "two digits": b"HTTP/1.1 20 OK\r\n" + EMPTY,
    "two blanks before the status": b"HTTP/1.1  200 OK\r\n" + EMPTY,
    "an empty line before the status line": b"\r\n" + OK + EMPTY,
    "lower case": b"http/1.1 200 OK\r\n" + EMPTY,
    "our request": b"POST /hook HTTP/1.1\r\n" + EMPTY,
    "an interim answer that closes": b"HTTP/1.1 100 X\r\nConnection: close\r\n\r\n" + OK + EMPTY,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
async def test_what_could_be_read_in_two_ways_is_refused(data: bytes) -> None:
    assert failed(await one_call(once(data)), ErrorClass.PROTOCOL, "not valid HTTP")


BELIEVED = {
    "blanks around a length": (OK + b"Content-Length:  2 \r\n\r\nab", b"ab"),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nab", b"ab"),
    "NUL in the reason, which nobody reads": (b"HTTP/1.1 200 \0\r\nContent-Length: 0\r\n\r\n", b""),
    "bytes above ASCII in a value": (OK + b"A: \xe9\r\nContent-Length: 2\r\n\r\nab", b"ab"),
    "CHUNKED": (OK + b"Transfer-Encoding: CHUNKED \r\n\r\n2\r\nab\r\n0\r\n\r\n", b"ab"),
    "an extension": (CHUNKED + b'2;a=b;c="d"\r\nab\r\n0;e\r\n\r\n', b"ab"),
    "a trailer": (CHUNKED + b"2\r\nab\r\n0\r\nRetry-After: 5\r\n\r\n", b"ab"),
    "a trailer about the coding": (
        CHUNKED + b"2\r\nab\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"ab",
    ),
    "zeros before a chunk size": (CHUNKED + b"0002\r\nab\r\n0\r\n\r\n", b"ab"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", b"ab"),
    "HTTP/1.0 to the end": (b"HTTP/1.0 200 OK\r\n\r\nab", b"ab"),
    "to the end": (OK + b"\r\nab", b"ab"),
    "an interim answer with headers": (
        b"HTTP/1.1 103 X\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\n"
        + OK
        + b"Content-Length: 2\r\n\r\nab",
        b"ab",
    ),
    "sixteen interim answers": (b"HTTP/1.1 102 X\r\n\r\n" * 16 + answer(b"ab"), b"ab"),
}


@pytest.mark.parametrize("case", BELIEVED.values(), ids=BELIEVED.keys())
async def test_what_is_unusual_and_clear_is_an_answer(case: tuple[bytes, bytes]) -> None:
    data, body = case
    assert await one_call(once(data)) == Answer(status_code=200, body=body)


@pytest.mark.parametrize("case", BELIEVED.values(), ids=BELIEVED.keys())
async def test_an_answer_may_come_in_byte_by_byte(case: tuple[bytes, bytes]) -> None:
    data, body = case

    async def script(connection: Connection) -> None:
        await connection.request()
        for place in range(len(data)):
            await connection.send(data[place : place + 1])
            await trio.testing.wait_all_tasks_blocked()

    assert await one_call(script) == Answer(status_code=200, body=body)


async def test_the_same_header_twice_is_joined() -> None:
    found = await one_call(once(OK + b"Retry-After: 1\r\nretry-after:  2\r\n" + EMPTY))
    assert found.headers == {"retry-after": "1, 2"}


# -- limits ------------------------------------------------------------------------------------


def flood(begin: bytes, part: bytes) -> Script:
    """Begins like an answer and never comes to its end."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(begin)
        while True:
            await connection.send(part)

    return script


FLOODS = {
    "one header": flood(OK + b"A: ", b"x" * 1000),
    "one name": flood(OK, b"x" * 1000),
    "headers": flood(OK, b"A: b\r\n" * 100),
    "a reason": flood(b"HTTP/1.1 200 ", b"x" * 1000),
    "interim answers": flood(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "interim answers with headers": flood(b"", b"HTTP/1.1 103 X\r\n" + b"A: b\r\n" * 999 + b"\r\n"),
    "one interim answer": flood(b"HTTP/1.1 103 X\r\nA: ", b"x" * 1000),
    "a chunk size": flood(CHUNKED, b"0" * 1000),
    "an extension": flood(CHUNKED + b"1;a=", b"x" * 1000),
    "an extension for each chunk": flood(CHUNKED, (b"1;" + b"x" * 500 + b"\r\na\r\n") * 2),
    "trailers": flood(CHUNKED + b"0\r\n", b"A: b\r\n" * 100),
    "one trailer": flood(CHUNKED + b"0\r\nA: ", b"x" * 1000),
}


@pytest.mark.parametrize("script", FLOODS.values(), ids=FLOODS.keys())
async def test_what_is_not_body_has_a_limit(script: Script) -> None:
    net = open_net(body_bytes_max=64 * 1024)
    async with raw_server(script) as server, net.open_caller() as caller:
        found = await caller.call(request(server.url, timeout_s=60))
    assert failed(found, ErrorClass.PROTOCOL, "not valid HTTP")


async def test_interim_answers_are_counted() -> None:
    found = await one_call(once(b"HTTP/1.1 102 X\r\n\r\n" * 17 + answer()))
    assert failed(found, ErrorClass.PROTOCOL, "too many interim answers")


async def test_a_body_of_tiny_chunks_is_whole_and_lets_others_run() -> None:
    body = b"x" * 100_000
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    net = open_net(body_bytes_max=len(body))
    script = always(CHUNKED + b"1\r\nx\r\n" * len(body) + b"0\r\n\r\n")
    async with raw_server(script) as server, net.open_caller() as caller:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            found = await caller.call(request(server.url))
            nursery.cancel_scope.cancel(reason="the answer is there")
    assert found == Answer(status_code=200, body=body)
    assert turns >= 6 * len(body) / (16 * 1024)


async def test_a_chunk_that_promises_everything_is_cut_at_the_cap() -> None:
    data = CHUNKED + b"ffffffffffffffff\r\n" + b"x" * 5000
    assert await one_call(once(data)) == Answer(status_code=200, body=b"x" * CAP, truncated=True)


# -- what must not reach the next call ---------------------------------------------------------


SPOILED = {
    "a body where none may be": b"HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\nhello",
    "chunks where none may be": b"HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an answer where a body may not be": b"HTTP/1.1 204 X\r\n\r\n" + answer(b"forged"),
    "a second answer": answer(b"") + answer(b"forged"),
    "half a second answer": answer(b"") + b"HTTP/1.1 200 OK\r\nContent-Le",
    "noise": answer(b"") + b"\x00\x01",
    "one byte": answer(b"") + b"H",
    "a last chunk twice": CHUNKED + b"0\r\n\r\n0\r\n\r\n",
    "connection: close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "close in a list": b"HTTP/1.1 200 OK\r\nConnection: a, Close\r\nContent-Length: 0\r\n\r\n",
    "close, with more behind": b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + EMPTY + answer(b"f"),
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.0 that would stay": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + EMPTY,
    "a cut body": answer(b"x" * (CAP + 1)),
}


@pytest.mark.parametrize("data", SPOILED.values(), ids=SPOILED.keys())
async def test_a_connection_that_is_not_clean_is_not_used_again(data: bytes) -> None:
    async with raw_server(always(data)) as server, open_caller() as caller:
        for _ in range(2):
            found = await caller.call(request(server.url))
            assert found.status_code is not None
            assert found.body in (b"", b"x" * CAP)
        assert server.connections == 2


async def test_a_lone_empty_line_after_an_answer_does_no_harm() -> None:
    """llhttp passes over it; should it come later, the connection is not quiet any more."""
    async with raw_server(always(answer() + b"\r\n")) as server, open_caller() as caller:
        for _ in range(3):
            found = await caller.call(request(server.url))
            assert found == Answer(status_code=200, body=b"ok")


async def test_what_comes_in_on_an_idle_connection_makes_it_unusable() -> None:
    forged = trio.Event()

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer(b"asked for"))
        await trio.testing.wait_all_tasks_blocked()
        await connection.send(answer(b"forged"))
        forged.set()
        await connection.request()

    async with raw_server(script, always(answer(b"fresh"))) as server, open_caller() as caller:
        assert (await caller.call(request(server.url))).body == b"asked for"
        await forged.wait()
        assert (await caller.call(request(server.url))).body == b"fresh"
        assert server.connections == 2
