"""Bytes to and from one peer: a socket, or TLS over one.

Trio's own ``SocketStream`` is right for everybody; this one knows that each request is followed by
a wait for its answer. So sending does not yield to other tasks unless it must wait, and receiving
waits first instead of trying in vain: one turn of the loop for an exchange, not three.
"""

# ruff: noqa: RUF100, RUF102  # ASYNC910 is flake8-async's
from __future__ import annotations

import os
import socket
import ssl
from abc import abstractmethod
from contextlib import closing
from errno import EADDRNOTAVAIL, EINPROGRESS, ENETUNREACH
from typing import Any, cast

import trio

RECEIVE_BYTES = 16 * 1024
"""Most bytes taken at once: parsing so many one-byte chunks takes under a millisecond."""


class Wire(trio.abc.Stream):
    """A stream that can be closed at once, and asked whether anything waits to be read."""

    @abstractmethod
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What comes in next; ``b""`` at the end. Always a checkpoint."""

    @abstractmethod
    def is_quiet(self) -> bool:
        """Whether nothing has come in that was not read: no byte, no end, no error."""

    @abstractmethod
    def close(self) -> None:
        """Close without waiting for anybody."""

    async def aclose(self) -> None:
        """Close, as a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()


class TcpWire(Wire):
    """A connected, non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def __repr__(self) -> str:
        number = self._socket.fileno()
        return f"<TcpWire {'closed' if number == -1 else number}>"

    async def send_all(  # noqa: ASYNC910 - whoever sends waits for an answer next
        self, data: bytes | bytearray | memoryview
    ) -> None:
        """Hand everything to the kernel. A checkpoint only if it has no room."""
        try:
            sent = self._send_some(data)
            if sent == len(data):  # as a rule
                return  # noqa: ASYNC910 - whoever sends waits for an answer next
            left = memoryview(data)[sent:]
            while left:
                await trio.lowlevel.wait_writable(self._socket)
                left = left[self._send_some(left) :]
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    def _send_some(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait, then take what is there; ``b""`` at the end."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(max_bytes or RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error

    async def wait_send_all_might_not_block(self) -> None:
        """Until the kernel has room."""
        await trio.lowlevel.wait_writable(self._socket)

    def is_quiet(self) -> bool:
        """See ``Wire``. One system call, which does not wait."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """See ``Wire``."""
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


async def connect_tcp(address: str, port: int) -> Wire:
    """Connect to an address (not a name). Raises ``OSError``."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        problem = sock.connect_ex((address, port))
        if problem == EINPROGRESS:
            await trio.lowlevel.wait_writable(sock)
            problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        else:
            await trio.lowlevel.checkpoint()
    except BaseException:
        sock.close()
        raise
    if problem:
        sock.close()
        if problem == EADDRNOTAVAIL and own_address_towards(address) is None:
            problem = ENETUNREACH  # not for want of a port: we have no IPv6, say
        raise OSError(problem, os.strerror(problem))
    return TcpWire(sock)


def own_address_towards(address: str) -> str | None:
    """Which of this machine's addresses would speak to that one; ``None`` if there is no way to it.
    Asks the routing table; no packet is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect((address, 9))  # of UDP: it only chooses a route and our address on it
        except OSError:
            return None
        return str(probe.getsockname()[0])


class TlsWire(Wire):
    """TLS over another wire, its handshake done."""

    def __init__(self, below: Wire, tls: ssl.SSLContext, server_name: str) -> None:
        self._below = below
        self._tap = _Tap(tls)
        self._stream = trio.SSLStream(
            below,
            cast("ssl.SSLContext", self._tap),
            server_hostname=server_name,
            https_compatible=True,
        )

    async def shake_hands(self) -> None:
        """Verify who is there. Raises ``trio.BrokenResourceError``."""
        await self._stream.do_handshake()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send everything."""
        await self._stream.send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What the next record holds; ``b""`` at the end."""
        return bytes(await self._stream.receive_some(max_bytes or RECEIVE_BYTES))

    async def wait_send_all_might_not_block(self) -> None:
        """Until the wire below has room."""
        await self._stream.wait_send_all_might_not_block()

    def is_quiet(self) -> bool:
        """See ``Wire``. A record that is not decrypted yet is a noise, whatever it holds."""
        return not self._tap.incoming.pending and self._below.is_quiet()

    def close(self) -> None:
        """See ``Wire``. No goodbye is said: HTTP says itself where an answer ends."""
        self._below.close()


class _Tap:
    """Stands in for the TLS context at the one call ``SSLStream`` makes of it, and keeps the buffer
    of what has come in. An answer nobody asked for would lie there, and no socket would show it."""

    incoming: ssl.MemoryBIO

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls

    def wrap_bio(self, incoming: ssl.MemoryBIO, *rest: Any, **named: Any) -> ssl.SSLObject:
        self.incoming = incoming
        return self._tls.wrap_bio(incoming, *rest, **named)
