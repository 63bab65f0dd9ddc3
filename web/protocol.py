"""HTTP/1.1 and websockets as hypercorn speaks them, less what should be refused.

Nothing of hypercorn is patched: ``Connection`` stands in for its ``TCPServer``, the rest are
subclasses. So hypercorn is pinned exactly, and the tests keep a corpus of hostile bytes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol as Interface, cast
from urllib.parse import urlsplit

import attrs
import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
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
from wsproto.connection import Connection as Websocket, ConnectionState as WebsocketState
from wsproto.events import CloseConnection
from wsproto.frame_protocol import CloseReason

SEND_FRAMES: Final = "ringback.frames"
"""The extension of a websocket's ASGI scope that sends whole frames as they are, from bytes."""

TELL_APP_S: Final = 1.0


@attrs.frozen
class Shared:
    """What the protocols of all connections of a server share."""

    app: AppWrapper
    settings: Config  # hypercorn's
    context: WorkerContext
    state: ConnectionState


class Wire(Interface):
    """What a protocol needs of its connection."""

    sends: int
    hold_back: bool

    async def send(self, event: Event) -> None:
        """Bytes to send, the end, a request begins or is over."""

    async def send_frames(self, data: bytes) -> None:
        """Send whole frames, if the websocket is open."""


class AppTasks(TaskGroup):
    """hypercorn's task group, on our nursery and with a guard around the app's ``send``."""

    def __init__(self, wire: Wire, nursery: trio.Nursery) -> None:
        super().__init__()
        self._wire = wire
        self._nursery = nursery

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        async def guarded(message: ASGISendEvent | None) -> None:
            before = self._wire.sends
            await send(message)
            if message is not None and self._wire.sends == before:
                # Once the client is gone, hypercorn's send does nothing, not even a checkpoint:
                # an app that sends in a loop would freeze the process.
                await trio.lowlevel.checkpoint()

        if scope["type"] == "websocket":
            extensions = cast("dict[str, object]", scope["extensions"])
            extensions[SEND_FRAMES] = self._wire.send_frames
        return await super().spawn_app(app, config, scope, guarded)


class Protocol(H11Protocol):
    """One connection's protocol."""

    def __init__(
        self,
        shared: Shared,
        wire: Wire,
        nursery: trio.Nursery,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
    ) -> None:
        super().__init__(
            shared.app,
            shared.settings,
            shared.context,
            AppTasks(wire, nursery),
            ConnectionState(shared.state.copy()),
            ssl=False,
            client=client,
            server=server,
            send=wire.send,
        )
        self.connection = _Http11(
            h11.SERVER, max_incomplete_event_size=shared.settings.h11_max_incomplete_size
        )
        self._wire = wire

    async def handle(self, event: Event) -> None:
        if isinstance(event, RawData) and self.connection.their_state is h11.MUST_CLOSE:
            await trio.lowlevel.checkpoint()
            return  # nobody will read it, so it must not be collected either
        upgrading = isinstance(self.stream, WSStream) and not self.stream.handshake.accepted
        if upgrading and isinstance(event, RawData):
            await self.send(Closed())  # hypercorn says 400 and the app 101, at the same time
            return
        await super().handle(event)
        websocket = self._websocket()
        if websocket is not None and websocket.state is WebsocketState.LOCAL_CLOSING:
            await self.send(Closed())  # hypercorn goes on collecting a message it has refused

    def request_is_read(self) -> bool:
        """Whether there is nothing more of this request to come."""
        return self.connection.their_state not in {h11.IDLE, h11.SEND_BODY}

    def is_between_requests(self) -> bool:
        """Whether the last request is over and nothing of the next one was read."""
        return self.connection.their_state is h11.IDLE and not self.connection.trailing_data[0]

    async def refuse(self, status: int) -> None:
        """Answer with this status if nothing was answered, and close."""
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

    def is_open_websocket(self) -> bool:
        """Whether messages may be sent."""
        websocket = self._websocket()
        return websocket is not None and websocket.state is WebsocketState.OPEN

    def _websocket(self) -> Websocket | None:
        if isinstance(self.stream, WSStream) and self.stream.handshake.accepted:
            return self.stream.connection
        return None

    async def stream_send(self, event: StreamEvent) -> None:
        # The head of an answer of known length goes out with its body, in one packet.
        self._wire.hold_back = isinstance(event, Response) and b"content-length" in dict(
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


class _Http11(h11.Connection):
    """h11, but what comes behind a request with ``Connection: close`` is no error: that request may
    be done by now, and a 400 would say that it is not (RFC 9112 §9.6)."""

    def next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        if self.their_state is h11.MUST_CLOSE and self.trailing_data[0]:
            return h11.NEED_DATA
        return super().next_event()


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
