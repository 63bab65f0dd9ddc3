"""One client's connection: HTTP/1.1 and websockets as hypercorn speaks them, with limits.

hypercorn brings the protocols (h11, wsproto, ASGI). How connections live is ours, because with
hypercorn 0.18 one bad client ends the process (h2c upgrades, early websocket frames), and one that
does not read blocks the shutdown. Everything a connection may take has a limit:

    waiting for a request   keep_alive_s        then closed
    request line, headers   headers_timeout_s   then 408
    request body            body_timeout_s      then 408
    sending to the client   send_timeout_s      then cut
    saying goodbye          LINGER_S            then closed

Nothing of hypercorn is patched: ``Connection`` stands in for its ``TCPServer``, the rest are
subclasses. So hypercorn is pinned exactly, and the tests keep a corpus of hostile bytes.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import attrs
import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Event as StreamEvent, Response
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    AppWrapper,
    ASGIReceiveEvent,
    ASGISendEvent,
    ConnectionState,
    Scope,
)
from hypercorn.utils import parse_socket_addr
from wsproto.connection import Connection as Websocket, ConnectionState as WebsocketState
from wsproto.events import CloseConnection
from wsproto.frame_protocol import CloseReason

from .settings import ServerConfig

RECEIVE_BYTES: Final = 64 * 1024
SEND_BYTES: Final = 64 * 1024  # what one send_timeout_s is for: a slow but steady reader is not cut
LINGER_S: Final = 1.0
TELL_APP_S: Final = 1.0


@attrs.frozen
class Shared:
    """What all connections of a server share."""

    app: AppWrapper
    config: ServerConfig
    settings: Config  # hypercorn's
    context: WorkerContext
    state: ConnectionState
    connections: set[Connection] = attrs.field(factory=set)  # those that are open


class Connection:
    """One client: a reader, and the app's tasks beside it.

    The reader lives under one deadline that moves. hypercorn starts and cancels a task for every
    keep-alive wait, which costs a third of the requests per second.
    """

    def __init__(self, shared: Shared, stream: trio.SocketStream) -> None:
        self.shared = shared
        self.config = shared.config
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
            self.shared.connections.add(self)
            try:
                with self._reading, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._read()
                if self._reading.cancelled_caught and not (self._waiting or self._goodbye):
                    await self._protocol.refuse(408)
                with trio.move_on_after(TELL_APP_S):  # its inbox may be full
                    await self._protocol.handle(Closed())
            finally:
                self.shared.connections.discard(self)
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

    def __init__(self, connection: Connection, nursery: trio.Nursery) -> None:
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

    def __init__(self, connection: Connection, tasks: _AppTasks) -> None:
        shared, sock = connection.shared, connection.stream.socket
        super().__init__(
            shared.app,
            shared.settings,
            shared.context,
            tasks,
            ConnectionState(shared.state.copy()),
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
