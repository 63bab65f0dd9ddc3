"""A server that answers with exactly the bytes a test asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import attrs
import h11
import trio


@attrs.frozen
class Seen:
    """One request as it came in: head as bytes on the wire, body as bytes."""

    head: bytes
    body: bytes


class Connection:
    """One accepted connection, as a script sees it."""

    def __init__(self, stream: trio.abc.Stream, server: RawServer) -> None:
        self._stream = stream
        self._server = server
        self._buffer = b""

    async def request(self) -> Seen | None:
        """The next request, or ``None`` if the client has closed."""
        while b"\r\n\r\n" not in self._buffer:
            if not await self._more():
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lengths = [
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ]
        length = lengths[0] if lengths else 0
        while len(self._buffer) < length:
            if not await self._more():
                return None
        seen, self._buffer = Seen(head, self._buffer[:length]), self._buffer[length:]
        self._server.seen.append(seen)
        return seen

    async def part(self) -> bytes:
        """What comes in next, whatever it is; ``b""`` if the client has closed."""
        return bytes(await self._stream.receive_some())

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def reset(self) -> None:
        """Close with RST instead of FIN."""
        stream = self._stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        assert isinstance(stream, trio.SocketStream)
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
        await stream.aclose()

    async def _more(self) -> bool:
        data = await self._stream.receive_some()
        self._buffer += data
        return bool(data)


Script = Callable[[Connection], Awaitable[None]]


class RawServer:
    """What a server has seen so far, and where it listens."""

    def __init__(self, port: int, scheme: str) -> None:
        self.port = port
        self.url = f"{scheme}://127.0.0.1:{port}/hook"
        self.connections = 0
        self.seen: list[Seen] = []


@asynccontextmanager
async def raw_server(*scripts: Script, scheme: str = "http") -> AsyncIterator[RawServer]:
    """Serves the n-th connection with the n-th script; the last one serves all that follow."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server = RawServer(listeners[0].socket.getsockname()[1], scheme)

        async def handle(stream: trio.SocketStream) -> None:
            script = scripts[min(server.connections, len(scripts) - 1)]
            server.connections += 1
            # In many tests the client leaves in the middle.
            with suppress(trio.BrokenResourceError):
                async with stream:
                    await script(Connection(stream, server))

        nursery.start_soon(partial(trio.serve_listeners, handle, listeners))
        yield server
        nursery.cancel_scope.cancel(reason="the test is over")


def answer(body: bytes = b"ok", status: int = 200, **headers: str) -> bytes:
    """A whole response with a Content-Length."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    connection = h11.Connection(h11.SERVER)
    head = h11.Response(
        status_code=status, headers=[("content-length", str(len(body))), *named], reason=b"x"
    )
    return (connection.send(head) or b"") + body


def always(data: bytes) -> Script:
    """Answers every request of a connection with these bytes."""

    async def script(connection: Connection) -> None:
        while await connection.request():
            await connection.send(data)

    return script


def once(data: bytes) -> Script:
    """Answers one request with these bytes and closes."""

    async def script(connection: Connection) -> None:
        await connection.request()
        await connection.send(data)

    return script


async def close_at_once(connection: Connection) -> None:
    """Reads the request and closes without an answer."""
    await connection.request()


async def reset_at_once(connection: Connection) -> None:
    """Reads the request and resets the connection."""
    await connection.request()
    await connection.reset()


async def hang(connection: Connection) -> None:
    """Reads the request and never answers."""
    await connection.request()
    await trio.sleep_forever()
