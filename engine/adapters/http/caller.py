"""The port ``CallbackNet``: a call's deadline, its connection, and its outcome."""

# ruff: noqa: RUF100, RUF102  # ASYNC910 is flake8-async's
from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from engine.core.callback import CallbackRequest
from engine.core.egress import EgressPolicy
from engine.core.outcome import Answer
from engine.core.task import ErrorClass
from engine.ports.callback_net import Caller

from .connect import Connector, ConnectTcp, Egress, is_own_address
from .connection import Connection
from .failures import CallFailed, failure
from .idle import IdleConnections
from .names import Names, SystemNames
from .request import Origin, message_of
from .wire import connect_tcp

_IDLE_MAX = 2  # connections each caller keeps: a hundred callers must fit into 1,024 descriptors
_IDLE_S = 2.0  # shorter than what servers grant, so that we are the one who closes


class HttpCallbackNet:
    """The real network. One TLS context serves all callers: making one takes milliseconds.

    ``egress`` is asked about every address before it is connected to. ``resolver``, ``connect``,
    ``own_address`` and ``tls`` stand in for the system's.
    """

    def __init__(
        self,
        *,
        body_bytes_max: int,
        connect_timeout_s: float,
        egress: Egress | None = None,
        resolver: Names | None = None,
        connect: ConnectTcp | None = None,
        own_address: Callable[[str], bool] = is_own_address,
        tls: ssl.SSLContext | None = None,
        idle_max: int = _IDLE_MAX,
        idle_s: float = _IDLE_S,
    ) -> None:
        self._body_bytes_max = body_bytes_max
        self._idle = IdleConnections(each_max=idle_max, expiry_s=idle_s)
        self._connector = Connector(
            names=resolver or SystemNames(),
            egress=egress or EgressPolicy(),
            connect=connect or connect_tcp,
            tls=tls or _tls_of_the_system(),
            timeout_s=connect_timeout_s,
            is_own_address=own_address,
        )

    @asynccontextmanager
    async def open_caller(self) -> AsyncIterator[Caller]:
        """A caller with connections of its own, closed at the end of the block."""
        caller = _HttpCaller(self._connector, self._idle, self._body_bytes_max)
        await trio.lowlevel.checkpoint()
        try:
            yield caller
        finally:
            self._idle.close(caller)
        await trio.lowlevel.checkpoint()


def _tls_of_the_system() -> ssl.SSLContext:
    tls = ssl.create_default_context()
    tls.set_alpn_protocols(["http/1.1"])
    return tls


class _HttpCaller:
    """One executor's way to the network."""

    def __init__(self, connector: Connector, idle: IdleConnections, body_bytes_max: int) -> None:
        self._connector = connector
        self._idle = idle
        self._body_bytes_max = body_bytes_max

    async def call(self, request: CallbackRequest) -> Answer:
        """See the port."""
        try:
            origin, message = message_of(request)
        except CallFailed as error:
            await trio.lowlevel.checkpoint()
            return failure(error)
        try:
            with trio.move_on_after(request.timeout_s):
                return await self._attempt(origin, message)
        except Exception as error:  # noqa: BLE001 - whatever a callee can provoke is its outcome
            return failure(error)  # noqa: ASYNC910 - raised by the network, which was waited for
        return Answer(
            error_class=ErrorClass.TIMEOUT,
            error=f"no complete answer within {request.timeout_s:g} s",
        )

    async def _attempt(self, origin: Origin, message: bytes) -> Answer:
        """A kept connection may have been closed by the server just as we used it; only then, when
        no byte of an answer came, is the request sent again, on a fresh one."""
        kept = self._idle.take(self, origin)
        if kept is not None:
            try:
                return await self._exchange(kept, origin, message)
            except (CallFailed, trio.BrokenResourceError):
                if kept.heard:
                    raise
        fresh = Connection(await self._connector.open(origin))
        return await self._exchange(fresh, origin, message)

    async def _exchange(self, connection: Connection, origin: Origin, message: bytes) -> Answer:
        try:
            answer = await connection.exchange(message, self._body_bytes_max)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            self._idle.keep(self, origin, connection)
        else:
            connection.close()
        return answer
