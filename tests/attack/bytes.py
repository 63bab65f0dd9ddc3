"""Hostile bytes: everything in the corpus, said in ten manners, must leave the server as it was."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Final, Literal, NoReturn

import attrs
import click
import trio

from tests.attack.bytes_corpus import Sequence, sequences
from tests.attack.target import Target, open_target
from tests.attack.verdict import RECORD, Came, conclude, percentile, progress

BAR: Final = "hostile bytes"
HEALTH_MAX_S: Final = 0.2
LIMITS: Final = (
    "--keep-alive", "0.4", "--headers-timeout", "0.4", "--body-timeout", "0.4",
    "--send-timeout", "1", "--subscribe-timeout", "1", "--allowed-hosts", "test",
)  # fmt: skip
ANSWER_S: Final = 5.0  # for what has to be answered before it goes on
SAY_S: Final = 3.0  # a server that does not listen may be left
LISTEN_S: Final = 2.5  # more than any limit; watchers would stay for ever
PAUSE_S: Final = 0.02
AT_ONCE: Final = 150
GROUP: Final = 600  # connections after which all must be as it was
SETTLE_S: Final = 20.0
UPGRADED_MIN: Final = 0.9


@attrs.frozen
class Manner:
    """How a sequence is said: in which pieces, and how its speaker leaves."""

    pieces: Literal["whole", "paused", "cut"]
    end: Literal["listen", "close", "reset", "half-close"]


MANNERS: Final = (
    Manner("whole", "listen"), Manner("whole", "close"), Manner("whole", "reset"),
    Manner("whole", "half-close"), Manner("paused", "listen"), Manner("paused", "reset"),
    Manner("cut", "listen"), Manner("cut", "close"), Manner("cut", "reset"),
    Manner("cut", "half-close"),
)  # fmt: skip


@attrs.define
class Heard:
    """What the server let be seen while it was attacked."""

    health_s: list[float] = attrs.field(factory=list)
    errors: set[str] = attrs.field(factory=set)  # sequences that were answered with 500
    handshakes: int = 0  # good ones, before frames
    upgraded: int = 0  # of these; a busy machine may be too late for a few


@attrs.frozen
class Speaker:
    """Says one sequence in one manner, on one connection."""

    target: Target
    sequence: Sequence
    manner: Manner
    heard: Heard

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Started once all is said; returns when the connection is gone."""
        with trio.socket.socket() as sock:
            try:
                await sock.connect(("127.0.0.1", self.target.port))
            except OSError as error:
                raise self.target.lost(f"it takes no connections: {error}") from error
            with suppress(trio.BrokenResourceError, OSError):  # it may have had enough of us
                await self._speak(sock)
            task_status.started()
            with suppress(OSError):
                await self._end(sock)

    async def _end(self, sock: trio.socket.SocketType) -> None:
        if self.manner.end == "half-close":
            sock.shutdown(socket.SHUT_WR)
        if self.manner.end in ("listen", "half-close"):
            await self._listen(sock)
        if self.manner.end == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _speak(self, sock: trio.socket.SocketType) -> None:
        with trio.move_on_after(ANSWER_S):
            for number, good in enumerate(self.sequence.first):
                await sock.send(good)
                answer = await sock.recv(65_536)
                if number == 0:
                    self.heard.handshakes += 1
                    self.heard.upgraded += answer.startswith(b"HTTP/1.1 101 ")
        with trio.move_on_after(SAY_S):
            for piece in self._pieces():
                await trio.SocketStream(sock).send_all(piece)
                if self.manner.pieces == "paused":
                    await trio.sleep(PAUSE_S)

    def _pieces(self) -> Iterable[bytes]:
        whole = b"".join(self.sequence.parts)
        if self.manner.pieces == "cut":  # the same place at every run
            return [
                whole[: random.Random(f"{self.sequence.name} {self.manner}").randrange(len(whole))]
            ]
        if self.manner.pieces == "paused" and len(self.sequence.parts) == 1:
            middle = len(whole) // 2
            return [whole[:middle], whole[middle:]]
        return self.sequence.parts

    async def _listen(self, sock: trio.socket.SocketType) -> None:
        answered = b""
        with trio.move_on_after(LISTEN_S):
            while data := await sock.recv(65_536):
                answered = answered[-20:] + data
                if b"HTTP/1.1 500" in answered:
                    self.heard.errors.add(self.sequence.name)


async def attack(manners: int = len(MANNERS)) -> Came:
    """Say every sequence in so many manners, each time another one."""
    said = sequences()
    heard = Heard()
    async with open_target(*LIMITS) as target:
        base = await target.base()
        connections = list(turns(said, manners))
        for number in range(0, len(connections), GROUP):
            progress(f"{number:,} of {len(connections):,} connections, {await target.vitals()}")
            await _say(target, connections[number : number + GROUP], heard)
            await target.settle(base, SETTLE_S)
        end = await target.vitals()
        log = target.log()
        misses = [f"answered with 500: {name}" for name in sorted(heard.errors)]
        misses += [f"logged {what!r}" for what in ("ended by an error", "Traceback") if what in log]
    if heard.upgraded < UPGRADED_MIN * heard.handshakes:
        misses.append(f"only {heard.upgraded} of {heard.handshakes} handshakes were answered")
    p95, most = percentile(heard.health_s, 95), max(heard.health_s)
    late = [f"/healthz took {most * 1000:.0f} ms"] if most > HEALTH_MAX_S else []
    return Came(
        tried=f"{len({one.bytes for one in said})} byte sequences, "
        f"{len(said) * manners:,} connections in {manners} manners",
        seen=f"same process, /healthz after each p95 {p95 * 1000:.1f} ms, max {most * 1000:.0f} ms; "
        f"tasks {base.tasks} before, {end.tasks} after, descriptors {base.descriptors} before, "
        f"{end.descriptors} after",
        misses=misses,
        late=late,
    )


def turns(said: Iterable[Sequence], manners: int) -> Iterator[tuple[Sequence, Manner]]:
    """Every sequence in so many manners; with few, its neighbour has others."""
    for number, sequence in enumerate(said):
        for turn in range(manners):
            yield sequence, MANNERS[(number * manners + turn) % len(MANNERS)]


async def _say(target: Target, group: Iterable[tuple[Sequence, Manner]], heard: Heard) -> None:
    """One after the other; those that are still listened to run on beside."""
    room = trio.CapacityLimiter(AT_ONCE)

    async def run(speaker: Speaker, *, task_status: trio.TaskStatus[None]) -> None:
        async with room:
            await speaker.run(task_status=task_status)

    async with trio.open_nursery() as nursery:
        for sequence, manner in group:
            await nursery.start(run, Speaker(target, sequence, manner, heard))
            heard.health_s.append(await target.health_s())


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """Hundreds of hostile byte sequences, ten times each."""
    conclude(BAR, "bytes", partial(attack), record=record)
