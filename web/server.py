"""Serves one ASGI app over HTTP/1.1 and websockets, also to clients that mean harm.

hypercorn brings the protocols (h11, wsproto, ASGI). How connections live is ours, because with
hypercorn 0.18 one bad client ends the process (h2c upgrades, early websocket frames), one that does
not read blocks the shutdown, and signals are not handled. Here no exception leaves a connection,
and everything a connection may take has a limit:

    waiting for a request   keep_alive_s        then closed
    request line, headers   headers_timeout_s   then 408
    request body            body_timeout_s      then 408
    sending to the client   send_timeout_s      then cut
    saying goodbye          LINGER_S            then closed

No TLS and no HTTP/2: a proxy in front does these. Nothing of hypercorn is patched: ``_Connection``
stands in for its ``TCPServer``, the rest are subclasses. So hypercorn is pinned exactly, and the
tests keep a corpus of hostile bytes.
"""

# ruff: noqa: RUF100, RUF102  # ASYNC910 is flake8-async's

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Event as StreamEvent, Response
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    AppWrapper,
    ASGIFramework,
    ASGIReceiveEvent,
    ASGISendEvent,
    ConnectionState,
    Scope,
)
from hypercorn.utils import parse_socket_addr, repr_socket_addr, wrap_app
from wsproto.connection import Connection as Websocket, ConnectionState as WebsocketState
from wsproto.events import CloseConnection
from wsproto.frame_protocol import CloseReason

logger = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 64 * 1024
SEND_BYTES: Final = 64 * 1024  # what one send_timeout_s is for: a slow but steady reader is not cut
LINGER_S: Final = 1.0
TELL_APP_S: Final = 1.0
TOO_LATE_STATUS: Final = 70  # EX_SOFTWARE of sysexits.h


def _limit(default: float, doc: str) -> Any:
    return attrs.field(default=default, validator=attrs.validators.gt(0), metadata={"doc": doc})


@attrs.frozen(kw_only=True)
class ServerConfig:
    """Settings of one server. Each has a safe default; a wrong one raises ``ValueError`` here."""

    host: str = attrs.field(default="127.0.0.1", metadata={"doc": "address to listen on"})
    port: int = attrs.field(default=8080, metadata={"doc": "port to listen on; 0 is any free one"})
    backlog: int = _limit(4096, "connections the kernel keeps until they are accepted")
    connections_max: int = _limit(10_000, "open connections; more wait in the kernel's backlog")
    keep_alive_s: float = _limit(5.0, "how long a connection may wait for its next request")
    headers_timeout_s: float = _limit(5.0, "time for the line and headers of a request, in all")
    body_timeout_s: float = _limit(60.0, "time for the body of a request, in all")
    send_timeout_s: float = _limit(5.0, "time a client may take to read 64 KiB")
    header_bytes_max: int = _limit(8192, "size of the line and headers of a request")
    websocket_message_bytes_max: int = _limit(4096, "size of a message from a websocket client")
    grace_s: float = _limit(30.0, "time requests in progress get when the server stops")


async def serve(
    app: ASGIFramework,
    config: ServerConfig,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]],
    cut_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` and report its URLs. When ``shutdown_trigger`` returns, drain: listeners close
    first, idle connections and websockets (1001) next, and requests in progress get ``grace_s``.
    When ``cut_trigger`` returns, nothing is waited for any more.
    """
    server = _Server(app, config)
    # Outside of the nursery, so that "address already in use" arrives unwrapped.
    listeners = await trio.open_tcp_listeners(config.port, host=config.host, backlog=config.backlog)
    try:
        lifespan = Lifespan(server.app, server.settings, server.state)
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            task_status.started([_url(listener) for listener in listeners])
            await server.run(listeners, shutdown_trigger, cut_trigger)
            await lifespan.wait_for_shutdown()
            nursery.cancel_scope.cancel(reason="the server has stopped")
    finally:
        for listener in listeners:
            listener.socket.close()


class StopSignals:
    """SIGTERM and SIGINT as events: the ``first`` asks to stop, the ``second`` to stop waiting.

    ``watch`` is a task of the outermost nursery: without it a second signal would kill the process
    halfway. From the first signal on a watchdog counts; it ends with ``watch``.
    """

    def __init__(self, exit_after_s: float) -> None:
        self.first = trio.Event()
        self.second = trio.Event()
        self.exit_after_s = exit_after_s  # more than the grace: it is for what ignores its end

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        # A thread, because a Trio deadline breaks neither a shielded wait nor a blocked loop.
        watchdog = threading.Timer(self.exit_after_s, _exit_at_once)
        watchdog.daemon = True
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            try:
                async for _ in signals:
                    if self.first.is_set():
                        self.second.set()
                    else:
                        self.first.set()
                        watchdog.start()
            finally:
                watchdog.cancel()


def _exit_at_once() -> None:
    try:
        faulthandler.dump_traceback()  # says where it hangs, and takes no lock to do so
    finally:
        os._exit(TOO_LATE_STATUS)


class _Server:
    """The open connections, and what they share."""

    def __init__(self, app: ASGIFramework, config: ServerConfig) -> None:
        self.config = config
        self.settings = _hypercorn_settings(config)
        self.app: AppWrapper = wrap_app(app, self.settings.wsgi_max_body_size, "asgi")
        self.context = WorkerContext(max_requests=None)
        self.state = ConnectionState({})
        self.connections: set[_Connection] = set()
        # When full we stop accepting. Idle connections end within keep_alive_s, so who waits in
        # the backlog is served soon; closing at once would turn a flood into errors for everyone.
        self.room = trio.Semaphore(config.connections_max)

    async def run(
        self,
        listeners: list[trio.SocketListener],
        shutdown_trigger: Callable[[], Awaitable[object]],
        cut_trigger: Callable[[], Awaitable[object]],
    ) -> None:
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(_cancel_when, cut_trigger, scope)
            with scope:
                await self._serve_until(shutdown_trigger, listeners, scope)
            if scope.cancelled_caught:
                logger.warning("the last connections were cut: the grace period is over")
            nursery.cancel_scope.cancel(reason="all connections are closed")

    async def _serve_until(
        self,
        shutdown_trigger: Callable[[], Awaitable[object]],
        listeners: list[trio.SocketListener],
        scope: trio.CancelScope,
    ) -> None:
        capped = [_CappedListener(listener, self.room) for listener in listeners]
        async with trio.open_nursery() as connections:
            accept = partial(trio.serve_listeners, handler_nursery=connections)
            async with trio.open_nursery() as accepting:
                accepting.start_soon(accept, self._handle, capped)
                await shutdown_trigger()
                accepting.cancel_scope.cancel(reason="the server stops")
            scope.deadline = trio.current_time() + self.config.grace_s
            self.settings.keep_alive_max_requests = 0  # answers now say "connection: close"
            await self.context.terminated.set()  # and hypercorn closes after them
            for connection in self.connections:
                connections.start_soon(connection.drain)

    async def _handle(self, stream: trio.SocketStream) -> None:  # noqa: ASYNC910  # after an error
        """The guard: whatever goes wrong in a connection ends this connection only."""
        try:
            await _Connection(self, stream).run()
        except* OSError:
            pass  # gone before we asked for its address
        except* Exception:
            logger.warning("a connection ended by an error", exc_info=True)
        finally:
            self.room.release()


async def _cancel_when(trigger: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
    await trigger()
    scope.cancel(reason="asked to stop waiting")


class _CappedListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts only while there is room. Who serves the connection gives the room back."""

    def __init__(self, listener: trio.SocketListener, room: trio.Semaphore) -> None:
        self._listener = listener
        self._room = room

    async def accept(self) -> trio.SocketStream:
        await self._room.acquire()
        try:
            return await self._listener.accept()
        except BaseException:
            self._room.release()
            raise

    async def aclose(self) -> None:
        await self._listener.aclose()


class _Connection:
    """One client: a reader, and the app's tasks beside it.

    The reader lives under one deadline that moves. hypercorn starts and cancels a task for every
    keep-alive wait, which costs a third of the requests per second.
    """

    def __init__(self, server: _Server, stream: trio.SocketStream) -> None:
        self.server = server
        self.config = server.config
        self.stream = stream
        self.sends = 0
        self.hold_back = False  # what is sent now waits for what is sent next
        self._protocol: _Protocol
        self._waiting = True  # nothing of the next request has come
        self._goodbye = False  # we have said all we wanted to say
        self._held = b""
        self._send_lock = trio.Lock()  # a websocket's app and our pongs
        self._reading = trio.CancelScope()
        self._allow(self.config.keep_alive_s)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._protocol = _Protocol(self, _AppTasks(self, nursery))
            self.server.connections.add(self)
            try:
                with self._reading, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._read()
                if self._reading.cancelled_caught and not (self._waiting or self._goodbye):
                    await self._protocol.refuse(408)
                with trio.move_on_after(TELL_APP_S):  # its inbox may be full
                    await self._protocol.handle(Closed())
            finally:
                self.server.connections.discard(self)
                self.stream.socket.close()  # also ends a shielded send when we are cancelled
            # The app should end now. Quart-Trio does; others must not stay for ever.
            nursery.cancel_scope.deadline = trio.current_time() + self.config.grace_s

    async def drain(self) -> None:
        """Close what does nothing, and websockets, which would go on for ever."""
        close = self._protocol.websocket_close()
        if close is not None:
            await self._send(close)
        if close is not None or self._waiting:
            self._say_goodbye()
        await trio.lowlevel.checkpoint()

    async def send(self, event: Event) -> None:  # noqa: ASYNC910  # often sync
        """Called by hypercorn's protocols: bytes to send, the end, a request begins or is over."""
        if isinstance(event, RawData):
            self._held += event.data
            if self.hold_back:
                self.sends += 1
            elif self._held:
                data, self._held = self._held, b""
                await self._send(data)
        elif isinstance(event, Closed):
            self._say_goodbye()
        elif isinstance(event, Updated):
            self._waiting = event.idle
            self._allow(self.config.keep_alive_s if event.idle else self.config.body_timeout_s)

    async def _read(self) -> None:
        while data := await self.stream.receive_some(RECEIVE_BYTES):
            if self._goodbye:
                continue
            if self._waiting:
                self._waiting = False
                self._allow(self.config.headers_timeout_s)  # in all: more bytes do not restart it
            await self._protocol.handle(RawData(bytes(data)))
            if self._protocol.request_is_read():
                self._allow(float("inf"))

    def _allow(self, seconds: float) -> None:
        if not self._goodbye:
            self._reading.deadline = trio.current_time() + seconds

    async def _send(self, data: bytes) -> None:
        """Shielded, as half a message spoils the connection; with a limit, as some never read."""
        with (
            suppress(trio.BrokenResourceError, trio.ClosedResourceError),
            trio.CancelScope(shield=True) as scope,
        ):
            async with self._send_lock:  # to the end: a pong must not get into a message
                for start in range(0, len(data), SEND_BYTES):
                    scope.deadline = trio.current_time() + self.config.send_timeout_s
                    await self.stream.send_all(data[start : start + SEND_BYTES])
                self.sends += 1
                return
        self.stream.socket.close()
        self._reading.cancel(reason="the client is gone or does not read")
        await trio.lowlevel.checkpoint()

    def _say_goodbye(self) -> None:
        """Close our direction and listen on for a moment. To close with input unread resets the
        connection, and the reset may overtake the answer.
        """
        if not self._goodbye:
            with suppress(OSError):
                self.stream.socket.shutdown(socket.SHUT_WR)
            self._allow(LINGER_S)
            self._goodbye = True


class _AppTasks(TaskGroup):
    """hypercorn's task group, on our nursery and with a guard around the app's ``send``."""

    def __init__(self, connection: _Connection, nursery: trio.Nursery) -> None:
        super().__init__()
        self._connection = connection
        self._nursery = nursery

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        async def guarded(message: ASGISendEvent | None) -> None:
            before = self._connection.sends
            await send(message)
            if message is not None and self._connection.sends == before:
                # Once the client is gone, hypercorn's send does nothing, not even a checkpoint:
                # an app that sends in a loop would freeze the process.
                await trio.lowlevel.checkpoint()

        return await super().spawn_app(app, config, scope, guarded)


class _Protocol(H11Protocol):
    """HTTP/1.1 as hypercorn speaks it, less what should be refused."""

    def __init__(self, connection: _Connection, tasks: _AppTasks) -> None:
        server, sock = connection.server, connection.stream.socket
        super().__init__(
            server.app,
            server.settings,
            server.context,
            tasks,
            ConnectionState(server.state.copy()),
            ssl=False,
            client=parse_socket_addr(sock.family, sock.getpeername()),
            server=parse_socket_addr(sock.family, sock.getsockname()),
            send=connection.send,
        )
        self._connection = connection

    async def handle(self, event: Event) -> None:
        upgrading = isinstance(self.stream, WSStream) and not self.stream.handshake.accepted
        if upgrading and isinstance(event, RawData):
            await self.send(Closed())  # hypercorn says 400 and the app 101, at the same time
            return
        await super().handle(event)
        websocket = self._websocket()
        if websocket is not None and websocket.state is WebsocketState.LOCAL_CLOSING:
            await self.send(Closed())  # hypercorn goes on collecting a message it has refused

    def request_is_read(self) -> bool:
        return self.connection.their_state not in {h11.IDLE, h11.SEND_BODY}

    async def refuse(self, status: int) -> None:
        if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            await self._send_error_response(status)
        await self.send(Closed())

    def websocket_close(self) -> bytes | None:
        """The close frame to say if this is a websocket."""
        websocket = self._websocket()
        if websocket is None:
            return None
        if websocket.state is not WebsocketState.OPEN:
            return b""
        return websocket.send(CloseConnection(code=CloseReason.GOING_AWAY))

    def _websocket(self) -> Websocket | None:
        if isinstance(self.stream, WSStream) and self.stream.handshake.accepted:
            return self.stream.connection
        return None

    async def stream_send(self, event: StreamEvent) -> None:
        # The head of an answer of known length goes out with its body, in one packet.
        self._connection.hold_back = isinstance(event, Response) and b"content-length" in dict(
            event.headers
        )
        await super().stream_send(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        """hypercorn changes to HTTP/2 here for any client that asks, on clear text."""

    async def _create_stream(self, request: h11.Request) -> None:
        more, _ = self.connection.trailing_data
        status = refusal(request, self.config.h11_max_incomplete_size, more)
        if status is not None:
            await self.refuse(status)
            return
        await super()._create_stream(_without_extensions(request))
        if self.stream is not None and self.stream.closed:
            await self.send(Closed())  # hypercorn refuses a bad handshake, but keeps the connection

    async def _maybe_recycle(self) -> None:
        # This tells the app that its request is over, upon which Quart-Trio cancels the task we
        # are in: without a shield the connection is neither recycled nor closed. With a limit,
        # because telling waits for room in the app's inbox.
        with trio.move_on_after(TELL_APP_S, shield=True) as scope:
            await super()._maybe_recycle()
        if scope.cancelled_caught:
            await self.send(Closed())


def refusal(request: h11.Request, header_bytes_max: int, more: bytes) -> int | None:
    """The status for a request that must not reach the app, or None. ``more`` came right after."""
    names = {name for name, _ in request.headers}
    size = len(request.method) + len(request.target)
    size += sum(len(name) + len(value) + 4 for name, value in request.headers)
    if size > header_bytes_max:
        return 431  # h11 looks at the size only as long as the headers are incomplete
    if not request.http_version.startswith(b"1."):
        return 505
    if {b"content-length", b"transfer-encoding"} <= names:
        return 400  # a proxy may go by the other one: request smuggling
    if b"upgrade" in names and not all(value.isascii() for _, value in request.headers):
        return 400  # hypercorn decodes the headers of a handshake
    if b"sec-websocket-key" in names and more:
        return 400  # frames before the handshake is answered
    return None if _is_target(request) else 400


def _is_target(request: h11.Request) -> bool:
    """Whether this is a path or a URL. Quart answers 500 to what it cannot split."""
    target = request.target.decode("ascii")
    if target.startswith("/"):
        return True
    if target == "*":
        return request.method == b"OPTIONS"
    try:
        return urlsplit(target).scheme in {"http", "https"}
    except ValueError:
        return False


def _without_extensions(request: h11.Request) -> h11.Request:
    """hypercorn always accepts permessage-deflate. Our messages are small, and bombs are not."""
    kept = [item for item in request.headers if item[0] != b"sec-websocket-extensions"]
    if len(kept) == len(request.headers):
        return request
    return h11.Request(
        method=request.method,
        target=request.target,
        headers=kept,
        http_version=request.http_version,
    )


def _hypercorn_settings(config: ServerConfig) -> Config:
    settings = Config()
    settings.errorlog = logger
    settings.include_server_header = False
    settings.h11_max_incomplete_size = config.header_bytes_max
    settings.websocket_max_message_size = config.websocket_message_bytes_max
    return settings


def _url(listener: trio.SocketListener) -> str:
    sock = listener.socket
    return f"http://{repr_socket_addr(sock.family, sock.getsockname())}"
