"""The real HTTP client against real sockets: whatever the other side does is an ``Answer``."""

from __future__ import annotations

import gzip
import os
import resource
import ssl
import subprocess
import sys

import pytest
import trio

from engine.adapters.http.failures import failure
from engine.core.outcome import Answer
from engine.core.task import ErrorClass
from tests.support.callbacks import CAP, CHUNKED, ENDLESS, failed, one_call, open_caller, request
from tests.support.raw_server import (
    Connection,
    always,
    answer,
    close_at_once,
    hang,
    once,
    raw_server,
    reset_at_once,
)


async def test_an_answer_has_its_status_and_body() -> None:
    assert await one_call(always(answer(b"hello"))) == Answer(status_code=200, body=b"hello")


@pytest.mark.parametrize("status", [200, 201, 204, 400, 404, 410, 429, 500, 501, 503, 599])
async def test_every_status_is_recorded(status: int) -> None:
    assert (await one_call(always(answer(b"", status)))).status_code == status


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with raw_server(always(answer())) as target, open_caller() as caller:
        async with raw_server(always(answer(b"", status, Location=target.url))) as server:
            found = await caller.call(request(server.url))
        assert found.status_code == status
        assert target.connections == 0


async def test_only_the_headers_the_engine_reads_are_kept_and_they_are_short() -> None:
    headers = {
        "Retry_After": "120",
        "X_Task_No_Retry": "true",
        "Content_Type": "text/plain" + "x" * 5000,
        "Set_Cookie": "a=1",
    }
    found = await one_call(always(answer(b"ok", 503, **headers)))
    assert found.headers == {
        "retry-after": "120",
        "x-task-no-retry": "true",
        "content-type": ("text/plain" + "x" * 5000)[:256],
    }


async def test_a_chunked_answer_is_joined() -> None:
    found = await one_call(always(CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"))
    assert found == Answer(status_code=200, body=b"abcde")


async def test_interim_answers_are_passed_over() -> None:
    found = await one_call(always(b"HTTP/1.1 100 Continue\r\n\r\n" + answer()))
    assert found == Answer(status_code=200, body=b"ok")


@pytest.mark.parametrize("headers", [b"", b"Connection: Upgrade\r\nUpgrade: x\r\n"])
async def test_an_upgrade_nobody_asked_for_is_no_answer(headers: bytes) -> None:
    found = await one_call(always(b"HTTP/1.1 101 X\r\n" + headers + b"\r\n"))
    assert failed(found, ErrorClass.PROTOCOL, "switches protocols")


async def test_a_body_of_exactly_the_cap_is_whole() -> None:
    assert await one_call(always(answer(b"x" * CAP))) == Answer(status_code=200, body=b"x" * CAP)


@pytest.mark.parametrize("size", [CAP + 1, 2 * CAP, 500_000])
async def test_a_body_over_the_cap_is_cut_and_flagged(size: int) -> None:
    found = await one_call(always(answer(b"x" * size)))
    assert found == Answer(status_code=200, body=b"x" * CAP, truncated=True)


async def test_a_chunked_body_over_the_cap_is_cut_and_flagged() -> None:
    found = await one_call(always(CHUNKED + b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n"))
    assert found == Answer(status_code=200, body=b"x" * CAP, truncated=True)


async def test_an_endless_body_ends_at_the_cap_and_the_connection_is_closed() -> None:
    client_left = trio.Event()

    async def endless(connection: Connection) -> None:
        await connection.request()
        await connection.send(ENDLESS)
        try:
            while True:
                await connection.send(b"x" * 10_000)
        finally:
            client_left.set()

    async with raw_server(endless) as server, open_caller() as caller:
        with trio.fail_after(1):
            found = await caller.call(request(server.url, timeout_s=60))
            await client_left.wait()
    assert found == Answer(status_code=200, body=b"x" * CAP, truncated=True)


async def test_a_compressed_body_is_not_inflated() -> None:
    bomb = gzip.compress(b"\0" * 500_000)
    assert len(bomb) < CAP
    found = await one_call(always(answer(bomb, Content_Encoding="gzip")))
    assert found == Answer(status_code=200, body=bomb)


async def test_thousands_of_tiny_chunks_are_cut_like_any_body() -> None:
    found = await one_call(always(CHUNKED + b"1\r\nx\r\n" * 5000))
    assert found == Answer(status_code=200, body=b"x" * CAP, truncated=True)


async def test_a_shortage_of_descriptors_is_our_own_fault() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with open_caller() as caller:
        next_free = os.dup(0)
        os.close(next_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_free, hard))
        try:
            result = await caller.call(request("http://127.0.0.1:9/"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert result.error_class is ErrorClass.SHORTAGE


WITHOUT_IPV6 = """
import trio
from engine.adapters.http import HttpCallbackNet
from engine.core.callback import CallbackRequest

async def main():
    request = CallbackRequest(
        method="POST", url="http://[::1]:9/", headers={}, body=b"", timeout_s=5
    )
    async with HttpCallbackNet(body_bytes_max=9, connect_timeout_s=5).open_caller() as caller:
        print((await caller.call(request)).error_class)

trio.run(main)
"""


def test_a_machine_without_ipv6_is_short_of_nothing() -> None:
    """The kernel says the same there as when it has no port left: address not available."""
    alone = ["unshare", "--user", "--map-root-user", "--net"]  # a network without any address
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("networks cannot be made here")
    found = subprocess.run(
        [*alone, sys.executable, "-c", WITHOUT_IPV6], check=True, capture_output=True, text=True
    )
    assert found.stdout == f"{ErrorClass.REFUSED}\n"


async def test_a_refused_connection() -> None:
    async with raw_server(hang) as server:
        url = server.url
    async with open_caller() as caller:
        found = await caller.call(request(url))
    assert failed(found, ErrorClass.REFUSED, "Connection refused")


async def test_a_close_without_an_answer() -> None:
    assert failed(await one_call(close_at_once), ErrorClass.DISCONNECTED)


async def test_a_reset_after_the_request() -> None:
    found = await one_call(reset_at_once)
    assert failed(found, ErrorClass.DISCONNECTED, "Connection reset by peer")


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\nFoo: b", b"HTTP/1.1 2", b"H"])
async def test_a_close_in_the_middle_of_the_head(part: bytes) -> None:
    assert failed(await one_call(once(part)), ErrorClass.DISCONNECTED)


async def test_a_body_shorter_than_announced() -> None:
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"
    assert failed(await one_call(once(short)), ErrorClass.DISCONNECTED)


async def test_a_body_longer_than_announced_does_not_reach_the_next_call() -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab" + answer(b"forged")
    async with raw_server(always(long)) as server, open_caller() as caller:
        for _ in range(2):
            found = await caller.call(request(server.url))
            assert found == Answer(status_code=200, body=b"ab")
        assert server.connections == 2


async def test_a_chunked_body_that_stops() -> None:
    assert failed(await one_call(once(CHUNKED + b"5\r\nab")), ErrorClass.DISCONNECTED)


NONSENSE = {
    "SMTP": b"HELO mail.example\r\n\r\n",
    "a text without an end": b"some text",
    "a text": b"just some text, as HTTP/0.9 had it\n\n",
    "TLS bytes": b"\x00\xff\x16\x03\x01" * 100 + b"\r\n\r\n",
    "a status that is no number": b"HTTP/1.1 abc OK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 9999 OK\r\n\r\n",
    "another version": b"HTTP/2 200 OK\r\n\r\n",
    "a header without a colon": b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
    "NUL in a header name": b"HTTP/1.1 200 OK\r\nA\x00b: c\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "an unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: magic\r\n\r\n",
    "a chunk size that is no number": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than announced": CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n",
    "one huge header": b"HTTP/1.1 200 OK\r\nBig: " + b"x" * 200_000 + b"\r\n\r\n",
    "very many headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE.keys())
async def test_an_answer_that_is_not_http(data: bytes) -> None:
    assert failed(await one_call(once(data)), ErrorClass.PROTOCOL, "not valid HTTP")


def test_an_error_nobody_thought_of_is_a_crash_with_its_type_and_text() -> None:
    found = failure(RuntimeError("x" * 1000))
    assert failed(found, ErrorClass.CRASHED, "RuntimeError: xxx")


def test_an_error_in_a_group_is_found() -> None:
    group = ExceptionGroup("several", [ValueError("a"), ExceptionGroup("", [ssl.SSLError("b")])])
    assert failed(failure(group), ErrorClass.TLS)
