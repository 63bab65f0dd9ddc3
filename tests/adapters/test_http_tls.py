"""TLS: the name of the URL is verified, and nothing is left open."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trustme

from engine.core.outcome import Answer
from engine.core.task import ErrorClass
from engine.ports.callback_net import Caller
from tests.support.callbacks import (
    CAP,
    CancelHere,
    ScriptedNames,
    SpyingConnect,
    failed,
    open_caller,
    open_net,
    request,
)
from tests.support.raw_server import (
    Connection,
    RawServer,
    Script,
    always,
    answer,
    once,
    raw_server,
    reset_at_once,
)

_RECORD_BYTES = 16 * 1024  # as much as one record of TLS can hold


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system trusts the authority."""
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(file)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))


class TlsServer(RawServer):
    """What a TLS server has seen so far."""

    def __init__(self, port: int) -> None:
        super().__init__(port, "https")
        self.names: list[str | None] = []
        self.protocols: list[str | None] = []


@asynccontextmanager
async def tls_server(
    authority: trustme.CA, script: Script, *identities: str
) -> AsyncIterator[TlsServer]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert(*(identities or ("127.0.0.1",))).configure_cert(context)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server = TlsServer(listeners[0].socket.getsockname()[1])
        context.sni_callback = lambda _socket, name, _context: server.names.append(name)

        async def handle(tcp: trio.SocketStream) -> None:
            server.connections += 1
            stream = trio.SSLStream(tcp, context, server_side=True, https_compatible=True)
            with suppress(trio.BrokenResourceError):
                async with stream:
                    await stream.do_handshake()
                    server.protocols.append(stream.selected_alpn_protocol())
                    await script(Connection(stream, server))

        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield server
        nursery.cancel_scope.cancel(reason="the test is over")


@asynccontextmanager
async def caller_to(*names: str) -> AsyncIterator[tuple[Caller, SpyingConnect]]:
    """A caller that finds these names at 127.0.0.1."""
    spy = SpyingConnect()
    resolver = ScriptedNames({name: [["127.0.0.1"]] for name in names})
    net = open_net(tls=None, resolver=resolver, connect=spy)
    async with net.open_caller() as caller:
        yield caller, spy
    assert spy.open == 0


async def test_tls_to_a_server_that_speaks_plain_http() -> None:
    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with raw_server(script, scheme="https") as server, open_caller(tls=None) as caller:
        assert failed(await caller.call(request(server.url)), ErrorClass.TLS)


@pytest.mark.parametrize(
    ("connect_timeout_s", "timeout_s", "outcome"),
    [(1, 0.1, ErrorClass.TIMEOUT), (0.1, 1, ErrorClass.CONNECT_TIMEOUT)],
)
async def test_a_handshake_that_hangs_is_cut_and_its_connection_closed(
    connect_timeout_s: float, timeout_s: float, outcome: ErrorClass
) -> None:
    left = trio.Event()

    async def script(connection: Connection) -> None:
        assert await connection.request() is None
        left.set()

    async with raw_server(script, scheme="https") as server:
        async with open_caller(tls=None, connect_timeout_s=connect_timeout_s) as caller:
            assert failed(await caller.call(request(server.url, timeout_s)), outcome)
            with trio.fail_after(1):
                await left.wait()


async def test_a_reset_in_the_middle_of_a_handshake() -> None:
    async def script(connection: Connection) -> None:
        await connection.part()
        await connection.reset()

    async with raw_server(script, scheme="https") as server, open_caller(tls=None) as caller:
        assert failed(await caller.call(request(server.url)), ErrorClass.DISCONNECTED)


@pytest.mark.usefixtures("trusted")
async def test_cancelling_at_any_step_of_a_handshake_leaves_nothing_open(
    authority: trustme.CA,
) -> None:
    async with tls_server(authority, once(answer())) as server:
        for step in range(1, 100):
            scope = trio.CancelScope()
            instrument = CancelHere(step, scope)
            async with caller_to() as (caller, spy):
                with scope:
                    trio.lowlevel.add_instrument(instrument)
                    try:
                        found = await caller.call(request(server.url))
                    finally:
                        trio.lowlevel.remove_instrument(instrument)
                assert spy.open == 0 or not scope.cancelled_caught
            if not instrument.fired:
                assert found.status_code == 200
                return
        pytest.fail("the call never ran to its end")


async def test_a_certificate_nobody_vouches_for(authority: trustme.CA) -> None:
    async with tls_server(authority, always(answer())) as server, open_caller(tls=None) as caller:
        found = await caller.call(request(server.url))
    assert failed(found, ErrorClass.TLS, "unable to get local issuer certificate")


@pytest.mark.usefixtures("trusted")
async def test_a_certificate_the_system_trusts(authority: trustme.CA) -> None:
    async with tls_server(authority, always(answer())) as server, open_caller(tls=None) as caller:
        for _ in range(2):
            found = await caller.call(request(server.url))
            assert found == Answer(status_code=200, body=b"ok")
        assert server.connections == 1  # tickets that come in do not make it unusable
        assert server.protocols == ["http/1.1"]


@pytest.mark.usefixtures("trusted")
async def test_a_certificate_for_another_name(authority: trustme.CA) -> None:
    async with tls_server(authority, always(answer())) as server, open_caller(tls=None) as caller:
        found = await caller.call(request(server.url.replace("127.0.0.1", "localhost")))
    assert failed(found, ErrorClass.TLS, "Hostname mismatch")


@pytest.mark.usefixtures("trusted")
async def test_the_name_of_the_url_is_verified_and_not_the_address(authority: trustme.CA) -> None:
    async with (
        tls_server(authority, always(answer()), "good.test") as server,
        caller_to("good.test", "good.test.", "evil.test") as (caller, _),
    ):
        for host in ("good.test", "good.test."):
            found = await caller.call(request(f"https://{host}:{server.port}/"))
            assert found.status_code == 200
        found = await caller.call(request(f"https://evil.test:{server.port}/"))
        assert failed(found, ErrorClass.TLS, "Hostname mismatch")
        assert server.names == ["good.test", "good.test", "evil.test"]


@pytest.mark.usefixtures("trusted")
async def test_an_address_in_the_url_is_verified_as_an_address(authority: trustme.CA) -> None:
    async with tls_server(authority, always(answer()), "::1") as server:
        async with caller_to("::1") as (caller, _):
            found = await caller.call(request(f"https://[::1]:{server.port}/"))
            assert found.status_code == 200, found
            found = await caller.call(request(f"https://127.0.0.1:{server.port}/"))
            assert failed(found, ErrorClass.TLS, "IP address mismatch")
        assert server.names == [None, None]  # RFC 6066 §3: no address is sent as a name


@pytest.mark.usefixtures("trusted")
async def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one(
    authority: trustme.CA,
) -> None:
    body = b"x" * (_RECORD_BYTES - len(answer(b"")) - len("16384") + len("0"))
    asked_for = answer(body)
    assert len(asked_for) == _RECORD_BYTES  # so what is behind it is a record of its own
    net = open_net(tls=None, body_bytes_max=_RECORD_BYTES)
    script = always(asked_for + answer(b"forged"))
    async with tls_server(authority, script) as server, net.open_caller() as caller:
        for _ in range(3):
            found = await caller.call(request(server.url))
            assert found == Answer(status_code=200, body=body)
        assert server.connections == 3


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("ending", [once(b""), reset_at_once])
async def test_a_kept_connection_that_dies_unanswered_is_replaced(
    authority: trustme.CA, ending: Script
) -> None:
    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer())
        if server.connections == 1:
            await ending(connection)
        else:
            await connection.request()

    async with tls_server(authority, script) as server, open_caller(tls=None) as caller:
        for _ in range(2):
            assert (await caller.call(request(server.url))).status_code == 200
        assert server.connections == 2


@pytest.mark.usefixtures("trusted")
async def test_a_big_request_and_a_cut_answer(authority: trustme.CA) -> None:
    async with tls_server(authority, always(answer(b"x" * 300_000))) as server:
        async with open_caller(tls=None) as caller:
            found = await caller.call(request(server.url, body=b"y" * 300_000))
    assert found == Answer(status_code=200, body=b"x" * CAP, truncated=True)
    assert server.seen[0].body == b"y" * 300_000
