"""Ways to make a callback, to be measured beside the engine's own (``benchmarks.transport``).

Each is as small as it can be while it does the work: it owns its connections, sends the request of
``CallbackRequest``, reads the whole answer within the deadline and says its status. What they lack
is everything the engine's way does besides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, TypeAlias

import h11
import httpcore
import httptools
import httpx
import trio

from engine.adapters.http import HttpCallbackNet
from engine.core.callback import CallbackRequest

Call: TypeAlias = Callable[[CallbackRequest], Awaitable[int | None]]
OpenCalls: TypeAlias = Callable[[int], AbstractAsyncContextManager[list[Call]]]
"""Opens so many callers, each to be used by one task."""


def _outgoing(request: CallbackRequest) -> httpx.Request:
    return httpx.Request(
        request.method, request.url, headers=dict(request.headers), content=request.body
    )


def _client_call(client: httpx.AsyncClient) -> Call:
    async def call(request: CallbackRequest) -> int:
        with trio.fail_after(request.timeout_s):
            answer = await client.request(
                request.method, request.url, headers=dict(request.headers), content=request.body
            )
        return answer.status_code

    return call


@asynccontextmanager
async def shared_client(count: int) -> AsyncIterator[list[Call]]:
    """One httpx client with as many connections as there are callers."""
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=count)
    async with httpx.AsyncClient(limits=limits, timeout=10, trust_env=False) as client:
        yield [_client_call(client)] * count


@asynccontextmanager
async def client_each(count: int) -> AsyncIterator[list[Call]]:
    """An httpx client for each caller."""
    async with AsyncExitStack() as stack:
        yield [
            _client_call(
                await stack.enter_async_context(
                    httpx.AsyncClient(limits=httpx.Limits(max_connections=1), trust_env=False)
                )
            )
            for _ in range(count)
        ]


@asynccontextmanager
async def pool_each(count: int) -> AsyncIterator[list[Call]]:
    """An httpcore pool of one connection for each caller, without httpx."""

    def call_of(pool: httpcore.AsyncConnectionPool) -> Call:
        async def call(request: CallbackRequest) -> int:
            headers = [("Host", httpx.URL(request.url).netloc.decode()), *request.headers.items()]
            with trio.fail_after(request.timeout_s):
                answer = await pool.request(
                    request.method, request.url, headers=headers, content=request.body
                )
            return answer.status

        return call

    async with AsyncExitStack() as stack:
        yield [
            call_of(
                await stack.enter_async_context(httpcore.AsyncConnectionPool(max_connections=1))
            )
            for _ in range(count)
        ]


class _H11:
    """One connection, parsed by h11."""

    def __init__(self) -> None:
        self._stream: trio.SocketStream | None = None
        self._http = h11.Connection(h11.CLIENT)

    async def exchange(
        self, url: httpx.URL, method: str, headers: list[tuple[str, str]], body: bytes
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        if self._stream is None:
            self._stream = await trio.open_tcp_stream(url.host, url.port or 80)
        http = self._http
        head = http.send(h11.Request(method=method, target=url.raw_path, headers=headers))
        sent = (head or b"") + (http.send(h11.Data(data=body)) or b"")
        await self._stream.send_all(sent + (http.send(h11.EndOfMessage()) or b""))
        status, received, parts = 0, [], list[bytes]()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await self._stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                status, received = event.status_code, list(event.headers)
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                http.start_next_cycle()
                return status, received, b"".join(parts)


class _HttpTools:
    """One connection, parsed by httptools."""

    def __init__(self) -> None:
        self._stream: trio.SocketStream | None = None
        self._http = httptools.HttpResponseParser(self)

    async def exchange(
        self, url: httpx.URL, method: str, headers: list[tuple[str, str]], body: bytes
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        if self._stream is None:
            self._stream = await trio.open_tcp_stream(url.host, url.port or 80)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        head = f"{method} {url.raw_path.decode()} HTTP/1.1\r\n{lines}\r\n".encode("ascii")
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""
        self._complete = False
        await self._stream.send_all(head + body)
        while not self._complete:
            self._http.feed_data(await self._stream.receive_some(65536))
        return self._http.get_status_code(), self._headers, self._body

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        self._complete = True


class _Transport(httpx.AsyncBaseTransport):
    """One connection behind httpx's transport interface."""

    def __init__(self, connection: _H11 | _HttpTools) -> None:
        self._connection = connection

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, headers, body = await self._connection.exchange(
            request.url, request.method, request.headers.multi_items(), request.content
        )
        return httpx.Response(status, headers=headers, content=body)


def by_transport(kind: type[_H11 | _HttpTools]) -> OpenCalls:
    """Our own transport, called directly with httpx's requests and responses."""

    def call_of() -> Call:
        transport = _Transport(kind())

        async def call(request: CallbackRequest) -> int:
            with trio.fail_after(request.timeout_s):
                answer = await transport.handle_async_request(_outgoing(request))
            return answer.status_code

        return call

    return _opened(call_of)


def by_hand(kind: type[_H11 | _HttpTools]) -> OpenCalls:
    """The same connection without httpx's objects."""

    def call_of() -> Call:
        connection = kind()
        parsed: dict[str, httpx.URL] = {}

        async def call(request: CallbackRequest) -> int:
            url = parsed.setdefault(request.url, parsed.get(request.url) or httpx.URL(request.url))
            headers = [
                ("Host", url.netloc.decode()),
                *request.headers.items(),
                ("Content-Length", str(len(request.body))),
            ]
            with trio.fail_after(request.timeout_s):
                status, _, _ = await connection.exchange(url, request.method, headers, request.body)
            return status

        return call

    return _opened(call_of)


def _opened(call_of: Callable[[], Call]) -> OpenCalls:
    @asynccontextmanager
    async def open_calls(count: int) -> AsyncIterator[list[Call]]:
        yield [call_of() for _ in range(count)]  # their sockets close with them

    return open_calls


@asynccontextmanager
async def ringback(count: int) -> AsyncIterator[list[Call]]:
    """The engine's own way, everything included."""
    net = HttpCallbackNet(body_bytes_max=64 * 1024, connect_timeout_s=5)

    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(net.open_caller()) for _ in range(count)]

        def call_of(number: int) -> Call:
            async def call(request: CallbackRequest) -> int | None:
                return (await callers[number].call(request)).status_code

            return call

        yield [call_of(number) for number in range(count)]


BASE: Final = "one shared httpx client"
OURS: Final = "Ringback's own"
WAYS: Final[Mapping[str, OpenCalls]] = {
    BASE: shared_client,
    "an httpx client each": client_each,
    "an httpcore pool each": pool_each,
    "own transport: httpx objects, h11": by_transport(_H11),
    "own transport: httpx objects, httptools": by_transport(_HttpTools),
    "by hand: h11": by_hand(_H11),
    "by hand: httptools": by_hand(_HttpTools),
    OURS: ringback,
}
