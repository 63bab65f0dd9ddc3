"""The network of a run, in memory: names, connections, and the callees at their ends.

The product's own delivery code runs on it, from the look-up of a name to the parsing of an answer.
Each callee logs what it executes, whether or not the answer ever arrives.
"""

from __future__ import annotations

import errno
import math
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Final, Protocol

import attrs
import trio

from engine.adapters.http.failures import CallFailed
from engine.adapters.http.wire import Wire
from engine.core.task import ErrorClass, TaskId

from .disk import Dead
from .faults import Luck

_END: Final = b"\r\n\r\n"
CONDUCTS: Final = (
    "net.reset_before",
    "net.reset_after",
    "net.silent",
    "net.drip",
    "net.endless",
    "net.oversize",
    "net.garbage",
    "net.too_many",
    "net.broken",
    "net.refuses",
)


class Process(Protocol):
    """Whose connections they are."""

    dead: bool

    def crash(self, how: str) -> None:
        """It is killed, now."""
        ...


class Witness(Protocol):
    """Who is told of every call."""

    def sent(self, task_id: TaskId, attempt: int, *, kept: bool) -> None:
        """A request has left the engine, over a connection that was ``kept`` or a new one."""
        ...

    def executed(self, task_id: TaskId, attempt: int) -> None:
        """A callee has done what the request asks for."""
        ...

    def spoilt(self, task_id: TaskId, attempt: int) -> None:
        """The kept connection of a request has ended without a byte: it may be sent again."""
        ...

    def praised(self, task_id: TaskId, attempt: int) -> None:
        """A callee has answered that all is well."""
        ...

    def asked_to_wait(self, task_id: TaskId, attempt: int, seconds: float) -> None:
        """A callee has answered, and asked for a pause."""
        ...

    def connections(self, opened: int) -> None:
        """So many are open now."""
        ...


@attrs.frozen
class Callee:
    """Somebody who is called: how far away, and how troublesome."""

    host: str
    addresses: tuple[str, ...]
    travel_s: float
    work_s: float
    trouble: float  # what chances of faults are multiplied with
    keeps_s: float  # how long it keeps an idle connection


@attrs.frozen
class _Request:
    task_id: TaskId
    attempt: int
    kept: bool  # it came over a connection that was used before


class Network:
    """What lies between the engine and its callees."""

    def __init__(self, seed: int, luck: Luck, witness: Witness) -> None:
        self._rng = random.Random(f"{seed}:net")
        self._luck = luck
        self._witness = witness
        self.callees = {callee.host: callee for callee in _callees(self._rng)}
        self._at = {address: c for c in self.callees.values() for address in c.addresses}
        self.nursery: trio.Nursery | None = None
        self.poison: set[TaskId] = set()  # tasks whose callbacks kill the process that makes them
        self.running: Counter[str] = Counter()  # callbacks that callees work on now

    def __repr__(self) -> str:
        return f"<Network of {len(self.callees)} callees>"

    def add(self, host: str, work_s: float) -> None:
        """One more callee, without any trouble."""
        callee = Callee(host, (f"10.2.0.{len(self.callees)}",), 0.001, work_s, 0.0, math.inf)
        self.callees[host] = callee
        self._at[callee.addresses[0]] = callee

    def calm(self) -> None:
        """Nobody is slow any more."""
        for callee in list(self.callees.values()):
            for address in callee.addresses:
                self._at[address] = attrs.evolve(callee, work_s=min(callee.work_s, 0.3))

    def uplink(self, process: Process) -> Uplink:
        """One process's way to it."""
        return Uplink(self, process)

    async def look_up(self, host: str) -> Sequence[str]:
        """The addresses of a host."""
        callee = self.callees[host]
        await trio.sleep(callee.travel_s)
        if self._luck.strikes("net.dns_hangs", callee.trouble):
            await trio.sleep(60.0)
        if self._luck.strikes("net.dns", callee.trouble):
            raise CallFailed(ErrorClass.DNS, "the host name could not be resolved: no such name")
        return callee.addresses

    async def connect(self, address: str, process: Process) -> SimWire:
        """A connection."""
        callee = self._at[address]
        await trio.sleep(callee.travel_s)
        if self._luck.strikes("net.syn_lost", callee.trouble):
            await trio.sleep_forever()
        for kind, code in (("net.refused", errno.ECONNREFUSED), ("net.shortage", errno.EMFILE)):
            if self._luck.strikes(kind, callee.trouble):
                raise OSError(code, os.strerror(code))
        return SimWire(self, callee, process)

    def request(self, wire: SimWire, request: _Request) -> None:
        """A whole request has left the engine."""
        assert self.nursery is not None
        self._witness.sent(request.task_id, request.attempt, kept=request.kept)
        if request.task_id in self.poison:
            self._luck.struck("crash.poison")
            wire.process.crash("by a poisonous task")
            return
        if self._luck.strikes("crash.calling"):
            wire.process.crash("while calling")
        self.nursery.start_soon(self._serve, wire, request)

    async def _serve(self, wire: SimWire, request: _Request) -> None:
        callee, rng, luck, witness = wire.callee, self._rng, self._luck, self._witness
        await trio.sleep(callee.travel_s)
        if request.kept and luck.strikes("net.reset_kept", callee.trouble):
            if rng.random() < 0.5:
                witness.executed(request.task_id, request.attempt)
            witness.spoilt(request.task_id, request.attempt)
            wire.reset()
            return
        kind = next((kind for kind in CONDUCTS if luck.strikes(kind, callee.trouble)), None)
        if kind == "net.reset_before":
            if request.kept:
                witness.spoilt(request.task_id, request.attempt)
            wire.reset()
            return
        self.running[callee.host] += 1
        slowly = rng.uniform(0.2, 2.0) if callee.trouble and not luck.calm else 1.0
        await trio.sleep(callee.work_s * slowly)
        self.running[callee.host] -= 1
        witness.executed(request.task_id, request.attempt)
        if kind in ("net.reset_after", "net.silent"):
            if kind == "net.silent":
                return
            if request.kept:
                witness.spoilt(request.task_id, request.attempt)
            wire.reset()
            return
        for pause_s, part in self._answer(kind, request):
            if wire.gone:
                return
            await trio.sleep(pause_s)
            wire.arrive(part)
        wire.idle_since = trio.current_time()
        wire.served = True

    def _answer(self, kind: str | None, request: _Request) -> Iterator[tuple[float, bytes]]:
        """The parts of an answer, and how long each takes."""
        rng = self._rng
        if kind == "net.garbage":
            yield (
                0.0,
                rng.choice([b"\x00\x01\x02", b"HTTP/9.9 what\r\n\r\n", b"hello", b"HTTP/1.1"]),
            )
            yield 1.0, b"\r\n\r\n"
        elif kind == "net.endless":
            self._witness.praised(request.task_id, request.attempt)  # it may end as truncated
            yield 0.0, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            while True:  # until the engine has had enough
                yield rng.uniform(0.5, 3.0), b"3\r\nand\r\n"
        elif kind == "net.too_many":
            seconds = rng.choice([1, 5, 30, 120])
            self._witness.asked_to_wait(request.task_id, request.attempt, seconds)
            yield 0.0, _response(429, b"later", f"Retry-After: {seconds}\r\n")
        elif kind == "net.broken":
            yield 0.0, _response(rng.choice([500, 502, 503]), b"oh")
        elif kind == "net.refuses":
            more = rng.choice([(400, ""), (410, ""), (422, ""), (503, "X-Task-No-Retry: true\r\n")])
            yield 0.0, _response(more[0], b"no", more[1])
        else:
            self._witness.praised(request.task_id, request.attempt)
            body = b"x" * 200_000 if kind == "net.oversize" else b'{"ok":true}'
            whole = _response(200, body, rng.choice(["", "", "Connection: close\r\n"]))
            if kind == "net.drip":
                pause_s = rng.choice([0.01, 0.3, 3.0])
                for start in range(0, len(whole), 7):
                    yield pause_s, whole[start : start + 7]
            else:
                yield 0.0, whole


class Uplink:
    """One process's names and connections."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process
        self.wires: dict[SimWire, None] = {}

    def __repr__(self) -> str:
        return f"<Uplink with {len(self.wires)} connections>"

    async def addresses(self, host: str) -> Sequence[str]:
        """See ``Names``."""
        await trio.lowlevel.checkpoint()
        self._check()
        try:
            ip_address(host)
        except ValueError:
            return await self._network.look_up(host)
        return (host,)

    def forget(self, host: str) -> None:
        """See ``Names``: nothing is remembered."""

    async def connect(self, address: str, port: int) -> Wire:
        """See ``ConnectTcp``."""
        assert port == 80
        self._check()
        wire = await self._network.connect(address, self._process)
        self._check()
        wire.uplink = self
        self.wires[wire] = None
        self._network._witness.connections(len(self.wires))
        return wire

    def cut(self) -> None:
        """The process is gone; the system ends its connections."""
        for wire in list(self.wires):
            wire.close()

    def _check(self) -> None:
        if self._process.dead:
            raise Dead


class SimWire(Wire):
    """A connection, as the engine has it. Sending is no checkpoint, as it is none with a socket."""

    def __init__(self, network: Network, callee: Callee, process: Process) -> None:
        self._network = network
        self.callee = callee
        self.process = process
        self.uplink: Uplink | None = None
        self._sent = b""
        self._came = bytearray()
        self._waits = trio.lowlevel.ParkingLot()
        self._closed = self._reset = False
        self._requests = 0
        self.served = False  # and nothing has been asked since
        self.idle_since = math.inf

    @property
    def gone(self) -> bool:
        """Whether nobody is at the engine's end any more, or nobody can hear the callee."""
        return self._closed or self._reset or self.process.dead

    # -- the engine's end --------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See ``Wire``."""
        if self.process.dead:
            raise Dead
        if self._closed:
            raise trio.ClosedResourceError
        if self._reset:
            raise trio.BrokenResourceError("reset by peer")
        self._sent += bytes(data)
        head, end, body = self._sent.partition(_END)
        if not end:
            return
        lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
        headers = {name.lower(): value.strip() for name, _, value in lines}
        if len(body) < int(headers.get("content-length", "0")):
            return
        self._sent = b""
        self._requests += 1
        self.served = False
        request = _Request(
            headers["webhook-id"], int(headers["x-task-attempt"]), kept=self._requests > 1
        )
        self._network.request(self, request)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See ``Wire``."""
        await trio.lowlevel.checkpoint()
        while not self._came and not self._reset and not self._hung_up:
            if self.process.dead:
                raise Dead
            await self._waits.park()
        if self.process.dead:
            raise Dead
        if self._reset:
            raise trio.BrokenResourceError("reset by peer")
        size = max_bytes or len(self._came)
        data = bytes(self._came[:size])
        del self._came[:size]
        return data

    async def wait_send_all_might_not_block(self) -> None:
        """See ``Wire``."""
        await trio.lowlevel.checkpoint()

    def is_quiet(self) -> bool:
        """See ``Wire``."""
        return not self._came and not self._reset and not self._hung_up

    def close(self) -> None:
        """See ``Wire``."""
        self._closed = True
        if self.uplink is not None:
            self.uplink.wires.pop(self, None)
        self._waits.unpark_all()

    @property
    def _hung_up(self) -> bool:
        """Whether the callee has closed a connection it thought idle."""
        idle_s = trio.current_time() - self.idle_since
        return self._closed or (self.served and idle_s > self.callee.keeps_s)

    # -- the callee's end --------------------------------------------------------------------

    def arrive(self, data: bytes) -> None:
        """Bytes come in."""
        if not self.gone:
            self._came += data
            self._waits.unpark_all()

    def reset(self) -> None:
        """The connection breaks."""
        self._reset = True
        self._waits.unpark_all()


def _response(status: int, body: bytes, more: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def _callees(rng: random.Random) -> Iterator[Callee]:
    for number in range(rng.randint(2, 5)):
        yield Callee(
            host=f"callee-{number}.example",
            addresses=tuple(f"10.1.{number}.{one}" for one in range(rng.choice([1, 1, 2]))),
            travel_s=rng.choice([0.0005, 0.02, 0.2]),
            work_s=rng.choice([0.001, 0.05, 0.5, 3.0, 8.0]),
            trouble=rng.choice([0.0, 0.5, 1.0, 3.0]) if number else 1.0,
            keeps_s=rng.choice([0.5, 1.5, 10.0]),
        )
