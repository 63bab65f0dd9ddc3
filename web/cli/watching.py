"""The status stream as a client sees it: one stream over as many connections as it takes.

Every event has a ``seq``. Whatever ends a connection (the server stops or is killed, we lagged,
the network), the next one asks for what comes after the last ``seq`` seen: no gap, no repetition.
"""

from __future__ import annotations

import json
import signal
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import attrs
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from web.stream import CLOSE_BAD_MESSAGE, CLOSE_EXPIRED, CLOSE_LAGGED

from .client import CONNECT_TIMEOUT_S, V1, Refused, Unreachable, authorization

MESSAGE_BYTES_MAX: Final = 256 * 1024 * 1024  # a snapshot holds whole tasks
MESSAGES_BUFFERED: Final = 100
SILENCE_S: Final = 40.0  # then we ask whether anybody is there
PONG_S: Final = 10.0
CLOSE_S: Final = 2.0
PAUSE_S: Final = 0.1
PAUSE_MAX_S: Final = 2.0
_STREAM_ERRORS: Final = (trio.TooSlowError, trio.BrokenResourceError)
CUT_OFF: Final = 1006  # RFC 6455 §7.4.1: no close frame came

Message = dict[str, Any]
Handle = Callable[[Message], bool]


@attrs.frozen(kw_only=True)
class Subscription:
    """What to hear of; nothing named means everything."""

    task_ids: Sequence[str] = ()
    statuses: Sequence[str] = ()
    names: Sequence[str] = ()
    after: int | None = None
    snapshot: bool = False

    def message(self) -> str:
        """As the server wants it."""
        wanted: dict[str, Any] = {
            "taskIds": list(self.task_ids),
            "statuses": list(self.statuses),
            "names": list(self.names),
            "snapshot": self.snapshot,
        }
        if self.after is not None:
            wanted["after"] = self.after
        return json.dumps({"subscribe": wanted})


class Lost(Exception):
    """A connection ended, or none could be had; the next one may do better."""


async def follow(
    url: str,
    wanted: Subscription,
    handle: Handle,
    *,
    note: Callable[[str], None],
    reconnect_s: float,
    api_key: str | None = None,
) -> None:
    """Hand every message to ``handle`` until it answers True.

    ``note`` hears of every interruption. Raises ``Unreachable`` if no server is there at the
    start, or none comes back within ``reconnect_s``; ``Refused`` if it will not serve this.
    """
    subscriber = _Subscriber(url, api_key, wanted, handle)
    lost_at, pause_s = -float("inf"), PAUSE_S
    while True:
        try:
            await subscriber.connect_and_follow()
        except Lost as error:
            now = trio.current_time()
            if subscriber.took_messages():
                lost_at, pause_s = now, PAUSE_S
                note(f"{error}; resuming after event {subscriber.wanted.after}")
            if now - lost_at >= reconnect_s:
                raise Unreachable(url, str(error)) from None
        else:
            return
        await trio.sleep(pause_s)
        pause_s = min(pause_s * 2, PAUSE_MAX_S)


class _Subscriber:
    """Knows what is still wanted; connects as often as it is told to."""

    def __init__(self, url: str, api_key: str | None, wanted: Subscription, handle: Handle) -> None:
        self.url, self.wanted, self._handle = url, wanted, handle
        self._headers = [
            (name.encode(), value.encode()) for name, value in authorization(api_key).items()
        ]
        self._taken = 0

    def took_messages(self) -> bool:
        """Whether anything came since this was last asked."""
        taken, self._taken = self._taken, 0
        return taken > 0

    async def connect_and_follow(self) -> None:
        """One connection, until ``handle`` has had enough. Raises ``Lost`` if it ends before."""
        ending: Exception | None = None  # raised outside of the nursery, which would wrap it
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await self._converse(nursery)
                except (ConnectionClosed, HandshakeError, OSError, *_STREAM_ERRORS, Lost) as error:
                    ending = _meaning(self.url, error)
                # trio-websocket waits here for the server to hang up, however long that takes.
                nursery.cancel_scope.cancel(reason="the connection is over")
        except BaseExceptionGroup as group:  # trio-websocket's reader may also find it rejected
            rejected, rest = group.split(ConnectionRejected)
            if rejected is None or rest is not None:
                raise
            ending = _meaning(self.url, leaf_of(rejected))
        await trio.lowlevel.checkpoint()
        if ending is not None:
            raise ending

    async def _converse(self, nursery: trio.Nursery) -> None:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            stream = await _connect(urlsplit(self.url))
        async with stream:  # after the server's goodbye trio-websocket would leave it open
            with trio.fail_after(CONNECT_TIMEOUT_S):
                connection = await wrap_client_stream(
                    nursery,
                    stream,
                    urlsplit(self.url).netloc,
                    urlsplit(self.url).path + V1 + "/tasks/stream",
                    extra_headers=self._headers,
                    message_queue_size=MESSAGES_BUFFERED,
                    max_message_size=MESSAGE_BYTES_MAX,
                    receive_buffer_size=64 * 1024,
                )
            await connection.send_message(self.wanted.message())
            while not self._take(await _next_message(connection)):
                pass
            with trio.move_on_after(CLOSE_S):
                await connection.aclose()

    def _take(self, text: str | bytes) -> bool:
        message: Message = json.loads(text)
        self._taken += 1
        # First handled, then passed: an error in between repeats rather than skips.
        enough = self._handle(message)
        if "seq" in message:
            self.wanted = attrs.evolve(self.wanted, after=message["seq"], snapshot=False)
        return enough


async def _connect(url: SplitResult) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    secure = url.scheme == "https"
    host = url.hostname or ""
    stream = await trio.open_tcp_stream(host, url.port or (443 if secure else 80))
    if not secure:
        return stream
    context = ssl.create_default_context()
    return trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)


async def _next_message(connection: WebSocketConnection) -> str | bytes:
    """The next message, however long it takes, as long as the server answers pings meanwhile."""
    while True:
        with trio.move_on_after(SILENCE_S):
            return await connection.get_message()
        with trio.move_on_after(PONG_S) as waiting:
            await connection.ping()
        if waiting.cancelled_caught:
            raise Lost("the server has gone silent")


def _meaning(url: str, error: BaseException) -> Exception:
    """What the end of a connection means: ``Lost`` may be tried again, ``Refused`` not."""
    match error:
        case ConnectionClosed():
            return _goodbye(error)
        case ConnectionRejected() if error.status_code < 500 and error.status_code != 429:
            return _refusal(url, error)
        case ConnectionRejected():
            return Lost(f"the server answered {error.status_code}")
        case Lost():
            return error
        case trio.TooSlowError():
            return Lost(f"no answer within {CONNECT_TIMEOUT_S:g} s")
        case _:
            return Lost(str(error) or "the handshake failed")


def _refusal(url: str, rejected: ConnectionRejected) -> Refused:
    """What the server says to a handshake that it does not take."""
    try:
        problem = json.loads(rejected.body or b"")
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "detail" not in problem:
        detail = f"{url} answered {rejected.status_code} and has no status stream: check --url"
        problem = {"detail": detail}
    return Refused(rejected.status_code, problem)


def _goodbye(closed: ConnectionClosed) -> Exception:
    reason = closed.reason
    code, text = (reason.code, reason.reason or "") if reason is not None else (CUT_OFF, "")
    if code == CLOSE_EXPIRED:
        detail = f"{text or 'these events are gone'}; leave out --after, or start with --snapshot"
        return Refused(code, {"detail": detail})
    if code == CLOSE_BAD_MESSAGE:
        return Refused(code, {"detail": text or "the server does not take this subscription"})
    if code == CLOSE_LAGGED:
        return Lost("we did not keep up with the stream")
    return Lost("the connection was cut" if code == CUT_OFF else text or f"closed with {code}")


def leaf_of(group: BaseException) -> BaseException:
    """The first error in a group that is not a group."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


@contextmanager
def cancelled_by_signals() -> Iterator[trio.CancelScope]:
    """A scope that Ctrl-C or SIGTERM cancels, so that what is open is closed in order."""
    token = trio.lowlevel.current_trio_token()
    with trio.CancelScope() as scope:

        def cancel(_signal: int, _frame: FrameType | None) -> None:
            token.run_sync_soon(scope.cancel)

        before = {
            number: signal.signal(number, cancel) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield scope
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
