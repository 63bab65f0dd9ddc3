"""One client's connection: what it says and is answered, with limits.

Plain requests go by the express lane, which needs no protocol (``plain``, ``express``); all others,
and those only it understands, are for hypercorn's (``protocol``). How connections live is ours,
because with hypercorn 0.18 one bad client ends the process (h2c upgrades, early websocket frames),
and one that does not read blocks the shutdown. Everything a connection may take has a limit:

    waiting for a request   keep_alive_s        then closed; earlier, if others wait for room
    request line, headers   headers_timeout_s   then 408
    request body            body_timeout_s      then 408
    sending to the client   send_timeout_s      then cut
    saying goodbye          LINGER_S            then closed
"""

from __future__ import annotations

import socket
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Final

import attrs
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.utils import parse_socket_addr

from . import protocol
from .plain import Answer, Lane, Plain, read_head
from .protocol import TELL_APP_S, Protocol
from .settings import ServerConfig

RECEIVE_BYTES: Final = 64 * 1024
SEND_BYTES: Final = 64 * 1024  # what one send_timeout_s is for: a slow but steady reader is not cut
LINGER_S: Final = 1.0


@attrs.frozen
class Shared(protocol.Shared):
    """What all connections of a server share."""

    config: ServerConfig
    express: Lane
    connections: set[Connection] = attrs.field(factory=set)  # those that are open


class Connection:
    """One client: a reader, and the app's tasks beside it.

    The reader lives under one deadline that moves. hypercorn starts and cancels a task for every
    keep-alive wait, which costs a third of the requests per second.
    """

    __slots__ = (
        "_goodbye", "_held", "_nursery", "_protocol", "_reading", "_send_lock", "_sock", "_unread",
        "_waiting", "config", "hold_back", "sends", "shared",
    )  # fmt: skip

    def __init__(self, shared: Shared, stream: trio.SocketStream) -> None:
        self.shared = shared
        self.config = shared.config
        self.sends = 0
        self.hold_back = False  # what is sent now waits for what is sent next
        # Trio's own sockets pass through its scheduler with each byte they have at once.
        self._sock = socket.socket(fileno=stream.socket.detach())
        self._sock.setblocking(False)
        self._nursery: trio.Nursery
        self._protocol: Protocol | None = None  # as long as only plain requests came
        self._waiting = True  # nothing of the next request has come
        self._goodbye = False  # we have said all we wanted to say
        self._unread = b""  # of plain requests
        self._held = b""
        self._send_lock = trio.Lock()  # a websocket's app and our pongs
        self._reading = trio.CancelScope()
        self._allow(self.config.keep_alive_s)

    async def run(self) -> None:
        """Serve the client until either has enough of the other."""
        async with trio.open_nursery() as self._nursery:
            self.shared.connections.add(self)
            try:
                while not self._goodbye:
                    with (
                        self._reading,
                        suppress(trio.BrokenResourceError, trio.ClosedResourceError),
                    ):
                        await self._read()
                    if not (self._reading.cancelled_caught and self._waiting and self._has_come()):
                        break
                    self._reading = trio.CancelScope()  # time was up, but just then came a request
                if self._reading.cancelled_caught and not (self._waiting or self._goodbye):
                    await self._speak().refuse(408)
                if self._protocol is not None:
                    with trio.move_on_after(TELL_APP_S):  # its inbox may be full
                        await self._protocol.handle(Closed())
            finally:
                self.shared.connections.discard(self)
                self._close()  # also ends a shielded send when we are cancelled
            # The app should end now. Quart-Trio does; others must not stay for ever.
            self._nursery.cancel_scope.deadline = trio.current_time() + self.config.grace_s
        self._protocol = None  # the two know each other: a cycle, which would stay for a while

    async def drain(self) -> None:
        """Close what does nothing, and websockets, which would go on for ever."""
        close = None if self._protocol is None else self._protocol.websocket_close()
        if close is not None:
            await self._send(close)
        if close is not None or self._waiting:
            self._say_goodbye()
        await trio.lowlevel.checkpoint()

    def idle_s(self) -> float:
        """How long it has waited for a request; 0 if it does not."""
        if not self._waiting or self._goodbye:
            return 0.0
        return self.config.keep_alive_s - (self._reading.deadline - trio.current_time())

    def give_up(self) -> None:
        """Close, as others need the room; unless the client has said something this moment."""
        if not self._has_come():
            self._cut()

    def _has_come(self) -> bool:
        """Whether there is something to read, from a client that is still there."""
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:  # nothing, or it is gone
            return False

    # -- reading -----------------------------------------------------------------------------

    async def _read(self) -> None:
        while data := await self._receive():
            if self._goodbye:
                continue
            if self._waiting:
                self._waiting = False
                data = await self._answer_plain(data)
                if not data:
                    continue
                self._allow(self.config.headers_timeout_s)  # in all: more bytes do not restart it
            speaker = self._speak()
            await speaker.handle(RawData(data))
            if speaker.request_is_read():
                self._allow(float("inf"))

    async def _receive(self) -> bytes:
        """What comes next; nothing at the end, however it comes."""
        while self._sock.fileno() >= 0:
            await trio.lowlevel.wait_readable(self._sock)
            if self._reading.cancel_called:
                # Time is up as well. Trio would tell at the next checkpoint: in the midst of a request
                # that is carried out already, and whose client would be told 408.
                await trio.lowlevel.checkpoint()
            try:
                return self._sock.recv(RECEIVE_BYTES)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError:
                break
        return b""

    def _speak(self) -> Protocol:
        """The protocol for what is not plain."""
        if self._protocol is None:
            sock = self._sock
            self._protocol = Protocol(
                self.shared,
                self,
                self._nursery,
                client=parse_socket_addr(sock.family, sock.getpeername()),
                server=parse_socket_addr(sock.family, sock.getsockname()),
            )
        return self._protocol

    def _allow(self, seconds: float) -> None:
        if not self._goodbye:
            self._reading.deadline = trio.current_time() + seconds

    # -- plain requests ----------------------------------------------------------------------

    async def _answer_plain(self, data: bytes) -> bytes:
        """Answer the plain requests that come first; what is left is for the protocol."""
        if self._protocol is not None and not self._protocol.is_between_requests():
            return data
        self._unread = data
        while plain := read_head(self._unread, self.config.header_bytes_max):
            self._allow(float("inf"))
            answer = await self.shared.express.answer(plain, partial(self._read_body, plain))
            if answer is None:
                break
            await self._answer(plain, answer)
            if self._goodbye:
                return b""
            self._unread = self._unread[plain.size + plain.length :]
            if not self._unread:
                self._waiting = True
                self._allow(self.config.keep_alive_s)
                return b""
            await trio.lowlevel.checkpoint()
        left, self._unread = self._unread, b""
        return left

    async def _answer(self, plain: Plain, answer: Answer) -> None:
        # A body that was not read spoils the connection for what may follow.
        is_read = len(self._unread) >= plain.size + plain.length
        if plain.kept and is_read and not self.shared.context.terminated.is_set():
            await self._send(answer.text(_date_line()))
        else:
            await self._send(answer.text(_date_line() + "connection: close\r\n"))
            self._say_goodbye()

    async def _read_body(self, plain: Plain) -> bytes:
        """The body of a plain request. Raises ``trio.BrokenResourceError`` if it does not come."""
        end = plain.size + plain.length
        if len(self._unread) < end:
            self._allow(self.config.body_timeout_s)
            came = bytearray(self._unread)
            while len(came) < end:
                data = await self._receive()
                if not data:
                    raise trio.BrokenResourceError("the client left before its request was whole")
                came += data
            self._unread = bytes(came)
            self._allow(float("inf"))
        return self._unread[plain.size : end]

    # -- sending -----------------------------------------------------------------------------

    async def send(self, event: Event) -> None:  # noqa: ASYNC910  # often sync
        """Called by the protocol: bytes to send, the end, a request begins or is over."""
        if isinstance(event, RawData):
            self._held += event.data
            if self.hold_back:
                self.sends += 1
            elif self._held:
                data, self._held = self._held, b""
                await self._send(data)
                await trio.lowlevel.cancel_shielded_checkpoint()  # an app may send in a loop
        elif isinstance(event, Closed):
            self._say_goodbye()
        elif isinstance(event, Updated):
            # The next request may have come in part with the last one.
            self._waiting = event.idle and self._speak().is_between_requests()
            if self._waiting:
                self._allow(self.config.keep_alive_s)
            elif event.idle:
                self._allow(self.config.headers_timeout_s)
            else:
                self._allow(self.config.body_timeout_s)

    async def send_frames(self, data: bytes) -> None:
        """Send whole websocket frames as they are; nothing unless the websocket is open."""
        async with self._send_lock:
            if self._protocol is not None and self._protocol.is_open_websocket():
                await self._send_alone(data)

    async def _send(self, data: bytes) -> None:
        try:
            sent = 0 if self._send_lock.locked() else self._send_now(data)
        except OSError:
            self._cut()
            return
        if sent == len(data):
            return
        # Of a message that has to wait for another nothing is out: it may be given up.
        with trio.CancelScope(shield=not self._send_lock.locked()):
            async with self._send_lock:  # to the end: a pong must not get into a message
                await self._send_alone(data[sent:])

    async def _send_alone(self, data: bytes) -> None:
        """Shielded, as half a message spoils the connection; with a limit, as some never read."""
        with suppress(OSError, trio.ClosedResourceError), trio.CancelScope(shield=True) as scope:
            sent = self._send_now(data)
            while sent < len(data):
                scope.deadline = trio.current_time() + self.config.send_timeout_s
                end = min(sent + SEND_BYTES, len(data))
                while sent < end:
                    await trio.lowlevel.wait_writable(self._sock)
                    sent += self._send_now(data[sent:end])
            return
        self._cut()
        await trio.lowlevel.checkpoint()

    def _send_now(self, data: bytes) -> int:
        """Send what the kernel takes at once; how much that was. Raises ``OSError`` if the client
        is gone."""
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        self.sends += 1
        return sent

    # -- the end -----------------------------------------------------------------------------

    def _say_goodbye(self) -> None:
        """Close our direction and listen on for a moment. To close with input unread resets the
        connection, and the reset may overtake the answer.
        """
        if not self._goodbye:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
            self._allow(LINGER_S)
            self._goodbye = True

    def _cut(self) -> None:
        self._goodbye = True
        self._close()
        self._reading.cancel(reason="the client is gone, does not read, or is given up")

    def _close(self) -> None:
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


def _date_line() -> str:
    return _dated(int(trio.current_time()))


@lru_cache(maxsize=1)
def _dated(_second: int) -> str:
    return f"date: {formatdate(usegmt=True)}\r\n"
