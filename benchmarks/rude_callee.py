"""A callee that answers at once, late, never, by drips or by a reset: `python -m benchmarks.rude_callee`.

It counts its open connections itself, in a process of its own: what a caller forgot to close shows
here, whatever the caller believes. `GET /_open` tells.
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from web.receiver.reactions import Reaction
from web.receiver.wire import BadRequest, Peer

SLOW_S: Final = 0.1  # at most
DRIP_S: Final = 0.02
_FINE: Final = Reaction().wire()
_LINGER_NOT: Final = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")


class Callee:
    """Serves connections and counts them."""

    def __init__(self) -> None:
        self._open = 0
        self._chance = random.Random(7)
        self._waiting = 0
        self._all_there = trio.Event()
        self._ways: Mapping[str, Callable[[Peer], Awaitable[None]]] = {
            "/fast": self._fast,
            "/slow": self._slow,
            "/never": self._never,
            "/drip": self._drip,
            "/reset": self._reset,
            "/_open": self._tell,
        }

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, until it ends."""
        self._open += 1
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, BadRequest):
                peer = Peer(stream)
                while (request := await peer.request()) is not None:
                    way, _, number = request.path.partition("/together/")
                    if number:
                        await self._together(peer, int(number))
                    else:
                        await self._ways[way](peer)
        finally:
            self._open -= 1
            await trio.aclose_forcefully(stream)

    async def _fast(self, peer: Peer) -> None:
        await peer.stream.send_all(_FINE)

    async def _slow(self, peer: Peer) -> None:
        if await peer.stays(self._chance.uniform(0, SLOW_S)):
            await peer.stream.send_all(_FINE)

    async def _never(self, peer: Peer) -> None:
        await peer.stays(float("inf"))

    async def _drip(self, peer: Peer) -> None:
        await peer.stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while await peer.stays(DRIP_S):
            await peer.stream.send_all(b"x")

    async def _reset(self, peer: Peer) -> None:
        peer.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, _LINGER_NOT)
        await peer.stream.aclose()

    async def _together(self, peer: Peer, number: int) -> None:
        """Answer as soon as so many such calls are there at once."""
        self._waiting += 1
        if self._waiting == number:
            self._waiting = 0
            self._all_there.set()
            self._all_there = trio.Event()
            await self._fast(peer)
            return
        there = self._all_there
        await there.wait()
        await self._fast(peer)

    async def _tell(self, peer: Peer) -> None:
        """How many connections are open, but for the one that asks."""
        body = json.dumps({"open": self._open - 1}).encode()
        await peer.stream.send_all(Reaction(body=body).wire())


async def run() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.serve_listeners, Callee().serve, listeners))
            print(f"http://127.0.0.1:{port}", flush=True)
            async for _ in signals:
                nursery.cancel_scope.cancel(reason="told to stop")


if __name__ == "__main__":
    trio.run(run)
