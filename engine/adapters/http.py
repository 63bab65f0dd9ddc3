"""Callbacks over HTTP/1.1: ``resolve → check → connect → TLS → send → read → classify``.

* resolve: in threads of our own, bounded; a slow name server cannot starve the store's threads.
* check: the egress check of the resolved addresses is a hook in ``_Network.connect_tcp``, still to
  come; only addresses that passed it will be connected to, and TLS verifies the original name.
* send: exactly the request's headers and body, plus Host and Content-Length. The signature is
  one of those headers, made where the exact bytes are known (``engine.core.callback``).
* read: the raw body up to a cap, never decompressed; no redirect is followed, no cookie kept.
* classify: whatever the other side provokes becomes an ``Answer``; nothing of it is raised.

httpx's transport is driven directly, without its client, and every caller has its own: one shared
pool costs ten times as much per request, and a request that is cancelled can hold a slot of its
pool for ever (encode/httpcore #1093). So an exchange that did not end well takes all connections of
its caller with it.
"""

# ruff: noqa: RUF100, RUF102  # ASYNC910 is flake8-async's
from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import h11
import httpcore
import httpx
import trio

from engine.core.callback import CallbackRequest
from engine.core.outcome import Answer
from engine.core.task import ErrorClass
from engine.ports.callback_net import Caller

_RESOLVERS = 20  # threads that look up names; one that hangs is held until the system gives up
_KEEPALIVE_S = 2.0  # shorter than what servers grant, so that we are the one who closes
_CHUNKS_AT_ONCE = 100  # one read can bring ten thousand tiny chunks: let others run in between
_HEADERS_KEPT = ("retry-after", "x-task-no-retry", "content-type")
_HEADER_MAX = 256  # characters kept of each
_ERROR_MAX = 300  # characters kept of an error's text
_EARLY_END = ("Server disconnected", "peer closed connection")  # as httpcore and h11 word it


class HttpCallbackNet:
    """The real network. One TLS context serves all callers: making one takes milliseconds."""

    def __init__(self, *, body_bytes_max: int, connect_timeout_s: float) -> None:
        self._body_bytes_max = body_bytes_max
        self._connect_timeout_s = connect_timeout_s
        self._tls = ssl.create_default_context()
        self._resolvers = trio.CapacityLimiter(_RESOLVERS)

    @asynccontextmanager
    async def open_caller(self) -> AsyncIterator[Caller]:
        """A caller with connections of its own, closed at the end of the block."""
        transport = _Transport(self._tls, self._resolvers)
        await trio.lowlevel.checkpoint()
        try:
            yield _HttpCaller(transport, self._body_bytes_max, self._connect_timeout_s)
        finally:
            transport.drop_connections()
        await trio.lowlevel.checkpoint()


class _HttpCaller:
    """One executor's way to the network."""

    def __init__(
        self, transport: _Transport, body_bytes_max: int, connect_timeout_s: float
    ) -> None:
        self._transport = transport
        self._body_bytes_max = body_bytes_max
        # Reading and writing have no timeouts of their own: those would start anew at every byte.
        self._extensions = {
            "timeout": {"connect": connect_timeout_s, "read": None, "write": None, "pool": None}
        }

    async def call(self, request: CallbackRequest) -> Answer:
        """See the port."""
        await trio.lowlevel.checkpoint()
        answer = None
        try:
            with trio.move_on_after(request.timeout_s):
                answer = await self._exchange(self._outgoing(request))
        except Exception as error:  # noqa: BLE001 - whatever a callee can provoke is its outcome
            return _failure(error)
        finally:
            if answer is None or answer.truncated:
                self._transport.drop_connections()
        return answer or Answer(
            error_class=ErrorClass.TIMEOUT,
            error=f"no complete answer within {request.timeout_s:g} s",
        )

    def _outgoing(self, request: CallbackRequest) -> httpx.Request:
        url = httpx.URL(request.url)
        if not url.host:
            raise httpx.InvalidURL("no host")
        if url.port is not None and not 1 <= url.port <= 65535:
            raise httpx.InvalidURL("the port is not one from 1 to 65535")
        headers = list(request.headers.items())
        outgoing = httpx.Request(
            request.method, url, headers=headers, content=request.body, extensions=self._extensions
        )
        outgoing.stream = _Body(request.body)
        return outgoing

    async def _exchange(self, outgoing: httpx.Request) -> Answer:
        response = await self._respond(outgoing)
        body, truncated = await self._read(cast("httpx.AsyncByteStream", response.stream))
        return Answer(
            status_code=response.status_code,
            headers=_kept_headers(response.headers),
            body=body,
            truncated=truncated,
        )

    async def _respond(self, outgoing: httpx.Request) -> httpx.Response:
        """The head of the response. A kept connection may have been closed by the server just as
        we used it; only then is the request sent again, on a fresh one."""
        opened = self._transport.opened
        try:
            return await self._transport.handle_async_request(outgoing)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError) as error:
            reused = self._transport.opened == opened
            spoke = isinstance(error, httpx.RemoteProtocolError) and not _is_early_end(error)
            if spoke or not reused:
                raise
        self._transport.drop_connections()
        return await self._transport.handle_async_request(outgoing)

    async def _read(self, stream: httpx.AsyncByteStream) -> tuple[bytes, bool]:
        """The body up to the cap, and whether there was more."""
        body, truncated, chunks = bytearray(), False, 0
        try:
            async for chunk in stream:
                chunks += 1
                if chunks % _CHUNKS_AT_ONCE == 0:  # not cancelled here, see below
                    await trio.lowlevel.cancel_shielded_checkpoint()
                body += chunk[: self._body_bytes_max + 1 - len(body)]
                if len(body) > self._body_bytes_max and not truncated:
                    # Leaving the loop would leave httpcore's generators half run. Without its
                    # connection the stream ends by itself at the next read.
                    truncated = True
                    self._transport.drop_connections()
        except Exception:
            if not truncated:
                raise
        if truncated:
            await trio.lowlevel.checkpoint()
        else:
            await stream.aclose()  # gives the connection back
            if self._transport.has_leftovers:
                self._transport.drop_connections()
        return bytes(body[: self._body_bytes_max]), truncated


class _Body(httpx.AsyncByteStream):
    """A request's body. httpx's own is a generator: cut off in the middle of a send, it would be
    left to the garbage collector."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Chunks([self._body] if self._body else [])


class _Chunks(AsyncIterator[bytes]):
    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    async def __anext__(self) -> bytes:
        if not self._chunks:
            raise StopAsyncIteration
        return self._chunks.pop()  # noqa: ASYNC910  # sending it is a checkpoint


class _Transport(httpx.AsyncHTTPTransport):
    """httpx's transport over our network. The only place that reaches into httpx's inside."""

    def __init__(self, tls: ssl.SSLContext, resolvers: trio.CapacityLimiter) -> None:
        super().__init__(verify=tls, http1=True, http2=False, retries=0)
        self._tls = tls
        self._network = _Network(resolvers)
        self._pool = self._new_pool()

    @property
    def opened(self) -> int:
        """How many connections have been opened so far."""
        return self._network.opened

    @property
    def has_leftovers(self) -> bool:
        """Whether a server sent more than an answer: on a connection that is kept, it would be
        taken for the answer to the next request."""
        kept = [getattr(connection, "_connection", None) for connection in self._pool.connections]
        return any(http11._h11_state.trailing_data[0] for http11 in kept if http11)  # noqa: SLF001

    def drop_connections(self) -> None:
        """Close every connection and forget the pool, whatever state it is in. Does not wait."""
        self._network.close()
        self._pool = self._new_pool()

    def _new_pool(self) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            max_connections=2,  # one idle at the last host, one in use
            max_keepalive_connections=1,
            keepalive_expiry=_KEEPALIVE_S,
            http1=True,
            http2=False,
            retries=0,
            network_backend=self._network,
        )


class _Network(httpcore.TrioBackend):
    """Opens the connections of one caller, and can close them all at once."""

    def __init__(self, resolvers: trio.CapacityLimiter) -> None:
        self._resolvers = resolvers
        self._sockets: list[trio.socket.SocketType] = []
        self.opened = 0

    def close(self) -> None:
        """Close every connection now, also one whose TLS handshake was cut off."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Resolve the name and connect to the first address that answers."""
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout) as scope:
                addresses = await self._resolve(host, port)
                # The egress check goes here: every address, before any is connected to.
                stream = await self._connect(addresses, port, scope.deadline)
        except trio.TooSlowError as error:
            raise httpcore.ConnectTimeout(error) from error
        self._sockets = [sock for sock in self._sockets if sock.fileno() != -1]
        self._sockets.append(stream.get_extra_info("socket"))
        self.opened += 1
        return stream

    async def _resolve(self, host: str, port: int) -> list[str]:
        kind = socket.SOCK_STREAM
        try:  # an address needs no thread
            found = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = await trio.to_thread.run_sync(
                lambda: socket.getaddrinfo(host, port, type=kind),
                abandon_on_cancel=True,
                limiter=self._resolvers,
            )
        else:
            await trio.lowlevel.checkpoint()
        return [str(address[0]) for *_, address in found]

    async def _connect(
        self, addresses: list[str], port: int, deadline: float
    ) -> httpcore.AsyncNetworkStream:
        """Try one after the other; each gets an equal share of the time that is left."""
        for left in range(len(addresses) - 1, 0, -1):
            share_s = (deadline - trio.current_time()) / (left + 1)
            try:
                return await super().connect_tcp(addresses[-left - 1], port, timeout=share_s)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await super().connect_tcp(addresses[-1], port)


def _kept_headers(headers: httpx.Headers) -> Mapping[str, str]:
    return {name: headers[name][:_HEADER_MAX] for name in _HEADERS_KEPT if name in headers}


_SHORTAGES = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)

_CLASSES: tuple[tuple[type[BaseException], ErrorClass, str], ...] = (
    # The first row that fits anything in the chain of causes decides.
    (httpx.ConnectTimeout, ErrorClass.CONNECT_TIMEOUT, "the connection took too long"),
    (socket.gaierror, ErrorClass.DNS, "the host name could not be resolved"),
    (ssl.SSLError, ErrorClass.TLS, "TLS failed"),
    (httpx.InvalidURL, ErrorClass.INVALID_REQUEST, "the URL cannot be called"),
    (httpx.UnsupportedProtocol, ErrorClass.INVALID_REQUEST, "the URL is not one of HTTP"),
    (httpx.LocalProtocolError, ErrorClass.INVALID_REQUEST, "the request is not valid HTTP"),
    (h11.LocalProtocolError, ErrorClass.INVALID_REQUEST, "the request is not valid HTTP"),
    (UnicodeError, ErrorClass.INVALID_REQUEST, "the URL or a header cannot be encoded"),
    (ConnectionResetError, ErrorClass.DISCONNECTED, "the connection was cut off"),
    (BrokenPipeError, ErrorClass.DISCONNECTED, "the connection was cut off"),
    (httpx.ConnectError, ErrorClass.REFUSED, "the connection could not be made"),
    (httpx.ReadError, ErrorClass.DISCONNECTED, "the connection was cut off"),
    (httpx.WriteError, ErrorClass.DISCONNECTED, "the connection was cut off"),
    (httpx.RemoteProtocolError, ErrorClass.PROTOCOL, "the answer is not valid HTTP"),
)


def _failure(error: Exception) -> Answer:
    causes = list(_causes(error))
    error_class, text = ErrorClass.CRASHED, f"{type(error).__name__}: {error}"
    if any(isinstance(cause, OSError) and cause.errno in _SHORTAGES for cause in causes):
        error_class, text = ErrorClass.SHORTAGE, "no room for a connection" + _detail(causes)
    elif any(map(_is_early_end, causes)):
        error_class, text = ErrorClass.DISCONNECTED, "the connection ended before the answer did"
    else:
        for kind, row_class, row_text in _CLASSES:
            if any(isinstance(cause, kind) for cause in causes):
                error_class, text = row_class, row_text + _detail(causes)
                break
    return Answer(error_class=error_class, error=text[:_ERROR_MAX])


def _is_early_end(error: BaseException) -> bool:
    return isinstance(error, httpx.RemoteProtocolError) and str(error).startswith(_EARLY_END)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all behind it. httpcore hands on what it wraps as an argument, because its
    pool cuts the chain (``raise … from None``)."""
    yield error
    behind = [error.__cause__, *error.args]
    if isinstance(error, BaseExceptionGroup):
        behind = [error.__cause__, *error.exceptions]
    for cause in behind:
        if isinstance(cause, BaseException):
            yield from _causes(cause)


def _detail(causes: Iterable[BaseException]) -> str:
    """What is worth telling of the causes. Header values must not show: they may be secret."""
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f": {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "reason", None) or "unknown reason"
            return f": {reason.replace('_', ' ').lower()}"
        if isinstance(cause, OSError) and cause.strerror:
            return f": {cause.strerror}"
        if isinstance(cause, httpx.InvalidURL | httpx.RemoteProtocolError | UnicodeError):
            return f": {cause}"
    return ""
