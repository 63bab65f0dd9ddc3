"""Callees that go wrong in every way there is. Each keeps its port and can be made good again, so
that a test can show what a caller is still worth afterwards."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import trio
import trustme

from tests.support.raw_server import Connection, Script, Seen, answer

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


# -- the server --------------------------------------------------------------------------------


class Callee:
    """A port of our own. ``script`` serves every connection; ``become`` another to change it."""

    def __init__(self, sock: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        self.script: Script = hang
        self.scheme = "http"
        self.tls: ssl.SSLContext | None = None  # without it, plain TCP whatever the scheme
        self.seen: list[Seen] = []
        self._connections: set[trio.CancelScope] = set()
        self._sock = sock
        self._nursery = nursery
        self._fillers: list[trio.socket.SocketType] = []
        self._serving = False

    @property
    def port(self) -> int:
        port: int = self._sock.getsockname()[1]
        return port

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    async def fill(self) -> None:
        """Listen, but take nobody in, until the kernel's queue is full: whoever connects now is
        neither answered nor refused."""
        self._sock.listen(0)
        for _ in range(4):
            filler = trio.socket.socket()
            self._fillers.append(filler)
            with trio.move_on_after(0.05):
                await filler.connect(self._sock.getsockname())

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def become(self, script: Script) -> None:
        """Serve with another script; the connections that are open are closed."""
        self.script = script
        for scope in self._connections:
            scope.cancel(reason="the callee becomes another")

    async def serve(self) -> None:
        """Take connections in, if that is not done yet."""
        if not self._serving:
            self._serving = True
            self.empty()
            self._sock.listen(1024)
            listener = trio.SocketListener(self._sock)
            await self._nursery.start(trio.serve_listeners, self._handle, [listener])

    def empty(self) -> None:
        """Take those who fill the queue out of it."""
        for filler in self._fillers:
            filler.close()

    async def _handle(self, stream: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                await self._run(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # in most tests somebody leaves in the middle
            finally:
                self._connections.remove(scope)
                stream.socket.close()

    async def _run(self, stream: trio.SocketStream) -> None:
        wire: trio.abc.Stream = stream
        if self.tls is not None:
            wire = trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True)
        await self.script(Connection(wire, self))  # type: ignore[arg-type]  # it only adds to seen
        await wire.aclose()


@asynccontextmanager
async def open_callee(script: Script | None) -> AsyncIterator[Callee]:
    """A callee with this script; with none nobody listens at its port yet."""
    async with trio.open_nursery() as nursery:
        with trio.socket.socket() as sock:
            await sock.bind(("127.0.0.1", 0))
            callee = Callee(sock, nursery)
            if script is not None:
                callee.script = script
                await callee.serve()
            yield callee
            callee.empty()
            nursery.cancel_scope.cancel(reason="the test is over")


# -- certificates ------------------------------------------------------------------------------


@attrs.frozen
class Certificates:
    """Servers' TLS contexts, good and bad, and the file that names whom to trust."""

    trusted: Path
    good: ssl.SSLContext
    expired: ssl.SSLContext
    not_yet: ssl.SSLContext
    wrong_name: ssl.SSLContext
    self_signed: ssl.SSLContext
    unknown_issuer: ssl.SSLContext


def make_certificates(place: Path) -> Certificates:
    """Issued anew, for 127.0.0.1."""
    past, future = datetime(2020, 1, 1, tzinfo=UTC), datetime(2900, 1, 1, tzinfo=UTC)
    day = timedelta(days=1)
    ca, other = trustme.CA(), trustme.CA()
    trusted = place / "trusted.pem"
    ca.cert_pem.write_to_path(str(trusted))
    return Certificates(
        trusted=trusted,
        good=_context(ca.issue_cert("127.0.0.1")),
        expired=_context(ca.issue_cert("127.0.0.1", not_before=past, not_after=past + day)),
        not_yet=_context(ca.issue_cert("127.0.0.1", not_before=future, not_after=future + day)),
        wrong_name=_context(ca.issue_cert("somebody.example")),
        self_signed=_self_signed(other, place),
        unknown_issuer=_context(other.issue_cert("127.0.0.1")),
    )


def _context(cert: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    cert.configure_cert(context)
    return context


def _self_signed(ca: trustme.CA, place: Path) -> ssl.SSLContext:
    file = place / "self_signed.pem"
    file.write_bytes(ca.private_key_pem.bytes() + ca.cert_pem.bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


# -- behaviour ---------------------------------------------------------------------------------


def says(*parts: bytes) -> Script:
    """Reads a request, sends the parts, and closes."""

    async def script(connection: Connection) -> None:
        await connection.request()
        for part in parts:
            await connection.send(part)

    return script


def keeps_saying(*parts: bytes) -> Script:
    """Answers every request of a connection with these parts, and keeps it open."""

    async def script(connection: Connection) -> None:
        while await connection.request():
            for part in parts:
                await connection.send(part)

    return script


def endless(head: bytes, piece: bytes, *, pause_s: float = 0.0) -> Script:
    """Reads a request, sends the head, and then the piece again and again."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(head)
        while True:
            await connection.send(piece)
            await trio.sleep(pause_s)

    return script


def resets(head: bytes = b"", *, unread: bool = False) -> Script:
    """Cuts the connection off with RST: behind these bytes, or before it has read the request."""

    async def script(connection: Connection) -> None:
        if not unread:
            await connection.request()
        if head:
            await connection.send(head)
            await trio.sleep(0.05)  # a reset overtakes what has not been read yet
        await connection.reset()

    return script


async def answers_unread(connection: Connection) -> None:
    """Answers before anything was asked, and only then reads."""
    await connection.send(answer(b"hasty"))
    await hang(connection)


async def closes_unread(connection: Connection) -> None:
    """Closes as soon as somebody is there."""


async def hang(connection: Connection) -> None:
    """Reads the request, never answers, and notices when the client leaves."""
    while await connection.request():
        pass


async def never_reads(connection: Connection) -> None:
    """Lets the client talk to nobody."""
    await trio.sleep_forever()


async def status_in_path(connection: Connection) -> None:
    """Answers every request with the status that its path ends in."""
    while (seen := await connection.request()) is not None:
        status = int(seen.head.split(b" ")[1].rpartition(b"/")[2])
        body = b"" if status in (204, 304) else b"said"
        await connection.send(answer(body, status))


def together(number: int) -> Callable[[Connection], Awaitable[None]]:
    """Answers as soon as so many requests are there at once; fewer get no answer."""
    waiting, all_there = 0, trio.Event()

    async def script(connection: Connection) -> None:
        nonlocal waiting
        while await connection.request():
            waiting += 1
            if waiting >= number:
                all_there.set()
            await all_there.wait()
            await connection.send(answer(b"fine"))

    return script
