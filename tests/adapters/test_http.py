"""The real HTTP client against real sockets: whatever the other side does is an ``Answer``."""

from __future__ import annotations

import gzip
import os
import resource
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import httpcore
import pytest
import trio
import trio.testing

from engine.adapters.http import HttpCallbackNet, _failure, _Network
from engine.core.callback import CallbackRequest
from engine.core.outcome import Answer
from engine.core.task import ErrorClass
from engine.ports.callback_net import Caller
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

CAP = 1000
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


def request(url: str, timeout_s: float = 2.0) -> CallbackRequest:
    headers = {"User-Agent": "Ringback/test", "Content-Type": "application/json"}
    return CallbackRequest(
        method="POST", url=url, headers=headers, body=b'{"a":1}', timeout_s=timeout_s
    )


@asynccontextmanager
async def open_caller(connect_timeout_s: float = 1.0) -> AsyncIterator[Caller]:
    net = HttpCallbackNet(body_bytes_max=CAP, connect_timeout_s=connect_timeout_s)
    async with net.open_caller() as caller:
        yield caller


async def one_call(script: Script, timeout_s: float = 2.0) -> Answer:
    """The answer to one call; the next call on the same caller must work, whatever it was."""
    async with raw_server(script) as server, open_caller() as caller:
        first = await caller.call(request(server.url, timeout_s))
        async with raw_server(always(answer())) as healthy:
            assert await caller.call(request(healthy.url)) == Answer(status_code=200, body=b"ok")
        return first


def failed(found: Answer, error_class: ErrorClass, part: str = "") -> bool:
    assert found.error is not None
    assert found.error_class is error_class, found
    assert part in found.error
    assert len(found.error) <= 300
    return found.status_code is None and found.body == b""


# -- answers -----------------------------------------------------------------------------------


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


async def test_an_upgrade_nobody_asked_for_is_just_a_status() -> None:
    switch = b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    found = await one_call(always(switch), timeout_s=0.2)
    assert found.status_code == 101 or found.error_class is not None


# -- the cap -----------------------------------------------------------------------------------


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


# -- what goes wrong ---------------------------------------------------------------------------


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


async def test_a_refused_connection() -> None:
    async with raw_server(hang) as server:
        url = server.url
    async with open_caller() as caller:
        found = await caller.call(request(url))
    assert failed(found, ErrorClass.REFUSED, "Connection refused")


async def test_a_close_without_an_answer() -> None:
    assert failed(await one_call(close_at_once), ErrorClass.DISCONNECTED)


async def test_a_reset_after_the_request() -> None:
    assert failed(await one_call(reset_at_once), ErrorClass.DISCONNECTED)


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\nFoo: b", b"some text"])
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


async def test_interim_answers_without_end_are_cut_at_the_timeout() -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        while True:
            await connection.send(b"HTTP/1.1 102 Processing\r\n\r\n")

    assert failed(await one_call(script, timeout_s=0.1), ErrorClass.TIMEOUT)


# -- time --------------------------------------------------------------------------------------


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
    [hang, drip(b"HTTP/1.1 200 OK\r\nSlow: "), drip(ENDLESS), drip(answer(b"", 200)[:-4])],
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


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when its task is about to make its n-th step."""

    def __init__(self, step: int, scope: trio.CancelScope) -> None:
        self._left = step
        self._scope = scope
        self._task = trio.lowlevel.current_task()
        self.fired = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self.fired = True
                self._scope.cancel(reason="sweep")


async def test_cancelling_at_any_step_leaves_the_caller_usable() -> None:
    async with raw_server(always(answer(b"x" * 100))) as server, open_caller() as caller:
        for step in range(1, 100):
            scope = trio.CancelScope()
            instrument = CancelAtStep(step, scope)
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


# -- connections -------------------------------------------------------------------------------


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


async def test_a_caller_keeps_one_connection_at_most() -> None:
    async with open_caller() as caller, raw_server(always(answer())) as first:
        async with raw_server(always(answer())) as second:
            for server in (first, second, first):
                await caller.call(request(server.url))
            assert (first.connections, second.connections) == (2, 1)


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


# -- what goes out -----------------------------------------------------------------------------


async def test_exactly_the_requests_bytes_go_out() -> None:
    setting = always(answer(Set_Cookie="a=1; Path=/"))
    async with raw_server(setting) as server, open_caller() as caller:
        for _ in range(2):  # the second shows that no cookie is kept
            await caller.call(request(server.url + "?q=1"))
    for seen in server.seen:
        line, *headers = seen.head.split(b"\r\n")
        assert line == b"POST /hook?q=1 HTTP/1.1"
        assert sorted(headers) == [
            b"Content-Length: 7",
            b"Content-Type: application/json",
            b"Host: 127.0.0.1:%d" % server.port,
            b"User-Agent: Ringback/test",
        ]
        assert seen.body == b'{"a":1}'


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_request_without_a_body_has_no_length(method: str) -> None:
    async with raw_server(always(answer())) as server, open_caller() as caller:
        bare = attrs.evolve(request(server.url), method=method, body=b"", headers={})
        assert (await caller.call(bare)).status_code == 200
    assert server.seen[0].head.split(b"\r\n") == [
        b"%s /hook HTTP/1.1" % method.encode(),
        b"Host: 127.0.0.1:%d" % server.port,
    ]


async def test_proxies_and_netrc_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with raw_server(always(answer())) as server, open_caller() as caller:
        assert (await caller.call(request(server.url))).status_code == 200
    assert b"authorization" not in server.seen[0].head.lower()


# -- requests that cannot be made --------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://a..b/",
        "http://" + "a" * 64 + ".example/",
        "http://xn--a/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:65536/",
        "http://127.0.0.1:-1/",
        "http://127.0.0.1:abc/",
        "http://[::1/",
        "http://[zz]/",
        "http:///path",
        "http://",
        "",
        "/path",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http://exa\nmple/",
        "http://x/" + "a" * 70_000,
    ],
    ids=lambda url: url[:30],
)
async def test_a_url_that_cannot_be_called(url: str) -> None:
    async with open_caller() as caller, raw_server(always(answer())) as server:
        assert failed(await caller.call(request(url)), ErrorClass.INVALID_REQUEST)
        assert (await caller.call(request(server.url))).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Bad Name": "x"},
        {"X": "secret\r\nInjected: yes"},
        {"X": "secret\x00"},
        {"X": "secret \u20ac"},
        {"Content-Length": "999"},
        {"Content-Length": "secret"},
    ],
)
async def test_a_header_that_cannot_be_sent(headers: dict[str, str]) -> None:
    async with open_caller() as caller, raw_server(always(answer())) as server:
        found = await caller.call(attrs.evolve(request(server.url, 0.3), headers=headers))
        assert failed(found, ErrorClass.INVALID_REQUEST)
        assert "secret" not in str(found.error)
        assert (await caller.call(request(server.url))).status_code == 200


async def test_an_unknown_host() -> None:
    async with open_caller() as caller:
        found = await caller.call(request("http://no-such-host.invalid/"))
    assert failed(found, ErrorClass.DNS, "could not be resolved")


async def test_an_error_text_holds_no_secret_of_the_url() -> None:
    async with open_caller() as caller:
        for host in ("a..b", "127.0.0.1:1", "127.0.0.1:x", "no-such-host.invalid"):
            found = await caller.call(request(f"http://user:secret@{host}/?key=secret"))
            assert found.error_class is not None
            assert "secret" not in str(found.error)


async def test_a_name_is_resolved() -> None:
    async with raw_server(always(answer())) as server, open_caller() as caller:
        found = await caller.call(request(f"http://localhost:{server.port}/"))
    assert found.status_code == 200


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    network = _Network(trio.CapacityLimiter(1))
    deadline = trio.current_time() + 1
    async with raw_server(hang) as server:
        for addresses in (["::1", "127.0.0.1"], ["127.0.0.2", "::1", "127.0.0.1"]):
            stream = await network._connect(addresses, server.port, deadline)
            await stream.aclose()
        assert server.connections == 2
    with pytest.raises(httpcore.ConnectError):
        await network._connect(["127.0.0.2", "127.0.0.1"], server.port, deadline)


def test_an_error_nobody_thought_of_is_a_crash_with_its_type_and_text() -> None:
    found = _failure(RuntimeError("x" * 1000))
    assert failed(found, ErrorClass.CRASHED, "RuntimeError: xxx")


def test_an_error_in_a_group_is_found() -> None:
    group = ExceptionGroup("several", [ValueError("a"), ExceptionGroup("", [ssl.SSLError("b")])])
    assert failed(_failure(group), ErrorClass.TLS)


# -- TLS ---------------------------------------------------------------------------------------


async def test_tls_to_a_server_that_speaks_plain_http() -> None:
    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with raw_server(script, scheme="https") as server, open_caller() as caller:
        assert failed(await caller.call(request(server.url)), ErrorClass.TLS)


async def test_a_handshake_that_hangs_is_cut_and_its_connection_closed() -> None:
    left = trio.Event()

    async def script(connection: Connection) -> None:
        assert await connection.request() is None
        left.set()

    async with raw_server(script, scheme="https") as server, open_caller() as caller:
        assert failed(await caller.call(request(server.url, 0.1)), ErrorClass.TIMEOUT)
        with trio.fail_after(1):
            await left.wait()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=ringback test", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    subprocess.run(
        ["openssl", "req", "-x509", *kind, *name, *files], check=True, capture_output=True
    )
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@asynccontextmanager
async def tls_server(certificate: Path) -> AsyncIterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        async with stream:
            try:
                while await stream.receive_some():
                    await stream.send_all(answer())
            except trio.BrokenResourceError:
                pass

    async with trio.open_nursery() as nursery:
        plain = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = plain[0].socket.getsockname()[1]
        listeners = [trio.SSLListener(each, context, https_compatible=True) for each in plain]
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield f"https://127.0.0.1:{port}/"
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_certificate_nobody_vouches_for(certificate: Path) -> None:
    async with tls_server(certificate) as url, open_caller() as caller:
        assert failed(await caller.call(request(url)), ErrorClass.TLS, "self-signed certificate")


async def test_a_certificate_the_system_trusts(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
    async with tls_server(certificate) as url, open_caller() as caller:
        for _ in range(2):
            assert await caller.call(request(url)) == Answer(status_code=200, body=b"ok")


async def test_a_certificate_for_another_name(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
    async with tls_server(certificate) as url, open_caller() as caller:
        found = await caller.call(request(url.replace("127.0.0.1", "localhost")))
    assert failed(found, ErrorClass.TLS, "Hostname mismatch")
