"""Serves one ASGI app to clients, also to those that mean harm: no exception leaves a connection,
there is a limit to their number, and stopping means draining.

``connection.py`` says how one connection lives. No TLS and no HTTP/2: a proxy in front does these.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from hypercorn.utils import repr_socket_addr, wrap_app

from .connection import Connection, Shared
from .plain import Lane, NoLane
from .settings import ServerConfig

ACCEPTED_TOGETHER: Final = 64
logger = logging.getLogger("ringback.server")

RETRY_S: Final = 0.1  # pause before one more look whether a connection can be accepted
SPARED_S: Final = 0.5  # a connection that has waited for less may be about to say something
ROOM_SHARE: Final = 0.05  # of all connections, closed at once: each look at them costs
TELL_AGAIN_S: Final = 60.0  # while there are no descriptors, the log says so this often
SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


@asynccontextmanager
async def open_listeners(config: ServerConfig) -> AsyncIterator[list[trio.SocketListener]]:
    """Listen, so that our own addresses are known before anything is served: who connects already
    now waits. Raises ``OSError`` if the port cannot be had."""
    listeners = await trio.open_tcp_listeners(config.port, host=config.host, backlog=config.backlog)
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.socket.close()


def addresses_of(listeners: Iterable[trio.SocketListener]) -> list[tuple[str, int]]:
    """The address and port of each."""
    names = [listener.socket.getsockname() for listener in listeners]
    return [(str(name[0]), int(name[1])) for name in names]


async def serve(
    app: ASGIFramework,
    config: ServerConfig,
    *,
    express: Lane | None = None,
    listeners: Sequence[trio.SocketListener] = (),
    shutdown_trigger: Callable[[], Awaitable[object]],
    cut_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` and report its URLs. When ``shutdown_trigger`` returns, drain: listeners close
    first, idle connections and websockets (1001) next, and requests in progress get ``grace_s``.
    When ``cut_trigger`` returns, nothing is waited for any more. ``express`` may answer what is
    simple without the app. Without ``listeners`` it opens its own.
    """
    server = _Server(app, config, express or NoLane())
    shared = server.shared
    async with AsyncExitStack() as opened:
        # Outside of the nursery, so that "address already in use" arrives unwrapped.
        listeners = listeners or await opened.enter_async_context(open_listeners(config))
        lifespan = Lifespan(shared.app, shared.settings, shared.state)
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            task_status.started([_url(listener) for listener in listeners])
            await server.run(listeners, shutdown_trigger, cut_trigger)
            await lifespan.wait_for_shutdown()
            nursery.cancel_scope.cancel(reason="the server has stopped")


class _Server:
    """The open connections, and what they share."""

    def __init__(self, app: ASGIFramework, config: ServerConfig, express: Lane) -> None:
        settings = _hypercorn_settings(config)
        self.shared = Shared(
            app=wrap_app(app, settings.wsgi_max_body_size, "asgi"),
            config=config,
            express=express,
            settings=settings,
            context=WorkerContext(max_requests=None),
            state=ConnectionState({}),
        )
        # When full we stop accepting, and close who has long been idle, so who waits in the backlog
        # is served soon; closing what is new would turn a flood into errors for everyone.
        self.room = trio.Semaphore(config.connections_max)

    async def run(
        self,
        listeners: Sequence[trio.SocketListener],
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
        listeners: Sequence[trio.SocketListener],
        scope: trio.CancelScope,
    ) -> None:
        capped = [_CappedListener(listener, self.room, self._close_idle) for listener in listeners]
        async with trio.open_nursery() as connections:
            accept = partial(trio.serve_listeners, handler_nursery=connections)
            async with trio.open_nursery() as accepting:
                accepting.start_soon(accept, self._handle, capped)
                await shutdown_trigger()
                accepting.cancel_scope.cancel(reason="the server stops")
            scope.deadline = trio.current_time() + self.shared.config.grace_s
            self.shared.settings.keep_alive_max_requests = 0  # answers now say "connection: close"
            await self.shared.context.terminated.set()  # and hypercorn closes after them
            for connection in self.shared.connections:
                connections.start_soon(connection.drain)

    def _close_idle(self) -> None:
        """Close some of the connections that wait for a request, those that have waited longest."""
        connections = self.shared.connections
        idle = [one for one in connections if one.idle_s() >= SPARED_S]
        idle.sort(key=Connection.idle_s, reverse=True)
        for one in idle[: 1 + int(ROOM_SHARE * len(connections))]:
            one.give_up()

    async def _handle(self, stream: trio.SocketStream) -> None:  # noqa: ASYNC910  # after an error
        """The guard: whatever goes wrong in a connection ends this connection only."""
        try:
            await Connection(self.shared, stream).run()
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
    """Accepts only while there is room, and has room made while somebody waits. Who serves the
    connection gives the room back."""

    def __init__(
        self,
        listener: trio.SocketListener,
        room: trio.Semaphore,
        make_room: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._room = room
        self._make_room = make_room
        self._told_at = -TELL_AGAIN_S
        self._more = 0  # how many may still be accepted in this turn

    async def accept(self) -> trio.SocketStream:
        """The next connection. Those that came together are accepted in one turn of Trio's loop:
        with one in each turn, a busy server, whose turns take long, would leave clients waiting in
        the backlog for many seconds."""
        self._more -= 1
        if self._more >= 0 and (accepted := self._accept_now()) is not None:
            return accepted
        await self._take_room()
        try:
            accepted = await self._accept()
        except BaseException:
            self._room.release()
            raise
        self._more = ACCEPTED_TOGETHER - 1
        return accepted

    def _accept_now(self) -> trio.SocketStream | None:
        try:
            self._room.acquire_nowait()
        except trio.WouldBlock:
            return None
        ours = self._listener.socket  # non-blocking; Trio's own accept() ends the turn
        listening = socket.socket(ours.family, ours.type, ours.proto, ours.fileno())
        try:
            accepted, _ = listening.accept()
        except OSError:  # nobody waits; what else it may be, is found out at the next turn
            self._room.release()
            return None
        finally:
            listening.detach()
        return trio.SocketStream(trio.socket.from_stdlib_socket(accepted))

    async def _take_room(self) -> None:
        while self._room.value == 0:
            await trio.lowlevel.wait_readable(self._listener.socket)
            self._make_room()
            with trio.move_on_after(RETRY_S):
                await self._room.acquire()
                return
        await self._room.acquire()

    async def _accept(self) -> trio.SocketStream:
        """Trio would log a traceback ten times a second while there are no descriptors."""
        while True:
            try:
                return await self._listener.accept()
            except OSError as error:
                if error.errno not in SHORTAGES:
                    raise
                self._tell(error)
            self._make_room()
            await trio.sleep(RETRY_S)

    def _tell(self, error: OSError) -> None:
        now = trio.current_time()
        if now - self._told_at >= TELL_AGAIN_S:
            self._told_at = now
            logger.warning("no connection can be accepted: %s", error.strerror)

    async def aclose(self) -> None:
        await self._listener.aclose()


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
