"""The world of one seed: a server that lives, dies and comes back, and everything around it."""

from __future__ import annotations

import random
import sqlite3
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol

import attrs
import trio
import trio.testing

from engine.actors.feed import EventFilter
from engine.adapters.brokers.local import LocalBroker
from engine.adapters.http import HttpCallbackNet
from engine.adapters.system import SystemIds
from engine.config import EngineConfig
from engine.core.pace import pool_size
from engine.core.task import Dispatch, TaskSpec
from engine.errors import (
    CursorExpired,
    EngineError,
    EngineStopping,
    Overloaded,
    StoreError,
    WatcherLagged,
)
from engine.runtime import Ports, open_engine
from engine.service import Engine

from .clients import Clients, End, Fail, Info, Ok, Op, is_unknown
from .disk import Dead, Disk
from .faults import Faults, Luck
from .goals import Goals
from .invariants import Books, Breach, Settings
from .network import Network

IDLE_MAX: Final = 2  # connections each executor keeps
_START: Final = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TURNS_MAX: Final = 50_000  # of Trio's loop without any time passing
_COMMITS_MAX: Final = 20_000
_STARTS_WITHIN_S: Final = 600.0  # once nothing goes wrong any more; drains and pauses take a while
_SETTLES_S: Final = 10.0  # what clients asked for before they left may still wait for the store
_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_STEPS_S: Final = (-3600.0, -300.0, -1.0, 1.0, 300.0, 3600.0)
_LONG_S: Final = 600.0  # a run in which the greatest of them make sense


class Trace(Protocol):
    """Where everything that happens is written down."""

    def __call__(self, *what: object) -> None:
        """One more thing."""
        ...


@attrs.frozen(kw_only=True)
class Rest:
    """How all tasks came to their ends after the faults had stopped; in virtual seconds."""

    after_faults_s: float  # until the last end, since they stopped
    after_due_s: float  # ... since a server was up and no task waited for a moment of the clock
    bound_s: float  # what the latter must not exceed
    leases_s: float  # two leases, which are part of the bound


class WallClock:
    """The machine's clock: it follows virtual time, and can be set."""

    def __init__(self) -> None:
        self.offset_s = 0.0
        self.steps = 0
        self._latest_us = 0

    def now(self) -> datetime:
        """The time now."""
        return _START + timedelta(seconds=trio.current_time() + self.offset_s)

    def now_us(self) -> int:
        """The same, as the tables count."""
        return (self.now() - _EPOCH) // timedelta(microseconds=1)

    def latest_us(self) -> int:
        """The latest that it has ever shown."""
        self._latest_us = max(self._latest_us, self.now_us())
        return self._latest_us

    def monotonic(self) -> float:
        """Trio's clock."""
        return trio.current_time()

    def set_to(self, offset_s: float) -> None:
        """Somebody sets it."""
        if offset_s != self.offset_s:
            self.latest_us()
            self.offset_s = offset_s
            self.steps += 1


class _StandsStill(trio.abc.Instrument):
    """Finds out if the loop turns and turns while no time passes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._turns, self._at = 0, 0.0

    def before_io_wait(self, timeout: float) -> None:
        now = trio.current_time()
        self._turns = self._turns + 1 if now == self._at else 0
        self._at = now
        if self._turns == _TURNS_MAX:
            self._world.breach("the loop turns without end, and no time passes")


class Server:
    """One process, from its start to its end."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self.number = number
        self.dead = False
        self.draining = False
        self.engine: Engine | None = None
        self.uplink = world.network.uplink(self)
        self._scope = trio.CancelScope()
        self._stop = trio.Event()
        self.closed = False  # nobody is let in any more
        self._requests: dict[trio.CancelScope, None] = {}  # of clients
        self._waits: dict[trio.CancelScope, None] = {}  # of its own, that cannot be cut short

    def __repr__(self) -> str:
        state = "dead" if self.dead else "draining" if self.draining else "up"
        return f"<Server {self.number} {state}>"

    async def run(self) -> None:
        """Serve until it is stopped or killed."""
        world = self._world
        world.trace("start", self.number)
        try:
            with self._scope:
                async with open_engine(world.config, ports=self._ports()) as engine:
                    self.engine = engine
                    world.trace("up", self.number)
                    await self._stop.wait()
                    began = trio.current_time()
                    busy = len(engine._parts.in_flight)
                    await self._end_requests(engine)
                self._check_stopped(engine, busy, trio.current_time() - began)
        except BaseException as error:  # a dying process may raise anything
            if not self.dead:
                self._explain(error)
        finally:
            self.dead = True
            self._end_scopes()
            self.uplink.cut()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _end_requests(self, engine: Engine) -> None:
        """As the web server does: nobody new is let in, and who is in gets some time."""
        engine.stop()
        with trio.move_on_after(self._world.config.grace_s):
            while self._requests:  # noqa: ASYNC110 - it costs no time
                await trio.sleep(0.05)
        self.closed = True
        for scope in list(self._requests):
            scope.cancel(reason="the server closes")
        while self._requests:  # noqa: ASYNC110 - it costs no time
            await trio.sleep(0.05)

    def _ports(self) -> Ports:
        world, config = self._world, self._world.config
        return Ports(
            store=partial(world.disk.open, self),
            net=HttpCallbackNet(
                body_bytes_max=config.answer_bytes_max,
                connect_timeout_s=config.connect_timeout_s,
                resolver=self.uplink,
                connect=self.uplink.connect,
                own_address=lambda _: False,
                tls=_TLS,
                idle_max=IDLE_MAX,
                idle_s=world.idle_s,
            ),
            clock=world.clock,
            rng=world.chance,
            ids=SystemIds(world.clock, world.chance),
            broker=LocalBroker(config.inbox),
        )

    def _explain(self, error: BaseException) -> None:
        leaves = list(_leaves(error))
        if any(isinstance(leaf, trio.Cancelled) for leaf in leaves):
            raise error
        if self.engine is None and all(isinstance(leaf, StoreError) for leaf in leaves):
            self._world.trace("cannot start", self.number)
            self._world.goals.reach("the server cannot start")
            return
        raise error

    def _check_stopped(self, engine: Engine, busy: int, took_s: float) -> None:
        world, config = self._world, self._world.config
        world.trace("stopped", self.number)
        if self.uplink.wires:
            raise Breach(f"{len(self.uplink.wires)} connections are open after the end")
        if len(engine._parts.in_flight):
            raise Breach("attempts are in flight after the end")
        if busy and took_s < config.grace_s:
            world.goals.reach("the drain ends before its deadline")
        if busy and took_s >= config.grace_s:
            world.goals.reach("the drain's deadline cuts attempts off")

    def stop(self) -> None:
        """It is told to end, and may finish what it does."""
        self.draining = True
        self._stop.set()

    def crash(self, how: str) -> None:
        """It is killed: from now on nothing it does has any effect."""
        if self.dead:
            return
        world = self._world
        world.trace("crash", self.number, how)
        world.counts["crashes"] += 1
        world.goals.struck("a crash", world.books.statuses())
        if self.draining:
            world.goals.reach("the server dies while it drains")
        self.dead = True
        world.disk.keep()
        self.uplink.cut()
        self._end_scopes()
        self._scope.cancel(reason="killed")

    def _end_scopes(self) -> None:
        for scope in [*self._requests, *self._waits]:
            scope.cancel(reason="the process is gone")

    @contextmanager
    def attended(self) -> Iterator[trio.CancelScope]:
        """A scope that ends with the process: for a client's connection."""
        with trio.CancelScope() as scope:
            self._requests[scope] = None
            try:
                yield scope
            finally:
                del self._requests[scope]

    @contextmanager
    def waiting(self) -> Iterator[trio.CancelScope]:
        """The same, for a wait of its own that nothing else may end."""
        with trio.CancelScope(shield=True) as scope:
            self._waits[scope] = None
            try:
                yield scope
            finally:
                del self._waits[scope]


class World:
    """Everything of one seed."""

    def __init__(
        self, seed: int, trace: Trace, *, faults: Faults | None, liveness: bool | None
    ) -> None:
        self.trace = trace
        self.failure: str | None = None
        self.goals = Goals()
        self.clock = WallClock()
        self.counts: Counter[str] = Counter()
        self.virtual_s = 0.0
        self._rng = rng = random.Random(f"{seed}:world")
        self.length_s = rng.choice([30.0, 120.0, 600.0, 1800.0, 7200.0])
        self.liveness = rng.random() < 0.8 if liveness is None else liveness
        self.rest: Rest | None = None
        self.config = _settings(rng, self.length_s)
        self.idle_s = rng.choice([2.0, 60.0])
        self.luck = Luck(seed, faults or Faults.chosen(seed), self.goals, self.counts)
        self.chance = random.Random(f"{seed}:engine")
        self.network = Network(seed, self.luck, self)
        self.disk = Disk(self.luck, self)
        self._specs: dict[str, TaskSpec] = {}
        self.books = Books(
            Settings(
                config=self.config,
                now_us=self.clock.now_us,
                latest_us=self.clock.latest_us,
                steps=lambda: self.clock.steps,
                max_attempts=lambda name: self._specs[name].retry_policy.max_attempts,
                deadline=lambda name: self._specs[name].deadline is not None,
            ),
            self.goals,
            self.breach,
        )
        self._clients = Clients(seed, self)
        self._watcher = random.Random(f"{seed}:watcher")
        self._server: Server | None = None
        self._servers = 0
        self.over = False
        self._closing = False
        self._scope = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<World {self.books!r}>"

    # -- from beginning to end ---------------------------------------------------------------

    async def run(self) -> None:
        """Live it."""
        trio.lowlevel.add_instrument(_StandsStill(self))
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self.network.nursery = nursery
                    nursery.start_soon(self._serve)
                    nursery.start_soon(self._watch)
                    self._start_faults(nursery)
                    await self._act()
                    if self.liveness:
                        await self._come_to_rest(nursery)
                    await self._close()
                    nursery.cancel_scope.cancel(reason="the run is over")
                self._check_end()
        except Exception as error:
            self.breach(_described(error))
        self.virtual_s = trio.current_time()
        self.trace("end", self.failure)

    def breach(self, text: str) -> None:
        """Something was seen that must never be: nothing after that matters."""
        if self.failure is None:
            self.failure = text
            self.trace("BREACH", text)
            self._scope.cancel(reason="an invariant is broken")

    async def _act(self) -> None:
        """Clients work while faults strike."""
        clients = self._clients
        with trio.move_on_after(self.length_s):
            async with trio.open_nursery() as nursery:
                for number in range(clients.workers):
                    nursery.start_soon(clients.work, number)
                for number in range(clients.meddlers):
                    nursery.start_soon(clients.meddle, number)
                for number in range(clients.creators):
                    nursery.start_soon(clients.create, number)

    async def _come_to_rest(self, nursery: trio.Nursery) -> None:
        """Nothing goes wrong any more: then everything must end, and soon."""
        self.trace("calm")
        calm_at = trio.current_time()
        self.luck.calmed.set()
        self.network.poison.clear()
        self.network.calm()
        self._set_clock(0.0)
        nursery.start_soon(self._clients.drive)
        until = trio.current_time() + _STARTS_WITHIN_S
        while self.serving is None or self.serving.draining:
            if trio.current_time() > until:
                raise Breach(f"no server is up within {_STARTS_WITHIN_S:g} s")
            await trio.sleep(0.5)
        await trio.sleep(_SETTLES_S)
        lease_s = 10.0 + self.config.lease_margin_s  # the longest timeout of a task
        # Clock steps, schedules and leases may have put it off; from then on, two leases.
        while (left := self._fallen_due_in_s()) > 0:  # noqa: ASYNC110 - it costs no time
            await trio.sleep(min(left, 600.0))
        due_at = trio.current_time()
        bound_s = 2 * lease_s + 4 * self.config.sweep_interval_s + 60.0
        until = due_at + bound_s
        while open_tasks := self.books.open_tasks():
            if trio.current_time() > until:
                life = open_tasks[0]
                raise Breach(f"{len(open_tasks)} tasks do not end; the first is {life.row}")
            await trio.sleep(1.0)
        self.rest = Rest(
            after_faults_s=trio.current_time() - calm_at,
            after_due_s=trio.current_time() - due_at,
            bound_s=bound_s,
            leases_s=2 * lease_s,
        )
        await self._until_idle(until)
        await self._roll_call()

    async def _until_idle(self, until: float) -> None:
        """A call whose attempt was lost may still last, until its timeout."""
        server = self._server
        assert server is not None
        assert server.engine is not None
        while len(server.engine._parts.in_flight):
            if trio.current_time() > until:
                raise Breach("executors are busy, and there is nothing to do")
            await trio.sleep(1.0)

    def _fallen_due_in_s(self) -> float:
        """When the last of what waits for a moment of the clock will have come to it."""
        moments = [
            max(life.row.due_at, life.row.expires_at or 0)
            for life in self.books.open_tasks()
            if life.row.due_at or life.row.expires_at
        ]
        return (max(moments, default=0) - self.clock.now_us()) / 1e6

    async def _roll_call(self) -> None:
        """Every executor must be there and free: give each something to do, all at once."""
        size = self.config.executors
        server = self._server
        assert server is not None
        assert server.engine is not None
        specs = []
        for number in range(size):
            self.network.add(f"roll-{number}.example", 5.0)
            specs.append(
                TaskSpec(
                    name=f"roll call {number}",
                    callback_url=f"http://roll-{number}.example/",
                    dispatch=Dispatch.AUTO,
                )
            )
            self.note_spec(specs[-1])
        end = await self.call("roll call", "create", lambda e: e.submit(specs))
        if not isinstance(end, Ok):
            raise Breach(f"nothing is wrong any more, and a create ends with {end}")
        await trio.sleep(4.0)
        at_work = sum(self.network.running[f"roll-{number}.example"] for number in range(size))
        if at_work != size:
            raise Breach(f"{at_work} of {size} executors work")
        await trio.sleep(4.0)
        if self.books.open_tasks():
            raise Breach("the roll call does not end")

    async def _close(self) -> None:
        """The last server ends: well if nothing is wrong, else it is killed."""
        self.over = self._closing = True
        while self._server is not None:
            if self.liveness:
                self._server.stop()
            else:
                self._server.crash("at the end")
            await trio.sleep(0.5)

    def _check_end(self) -> None:
        with closing(self.disk.look()) as db:
            self.books.finish(db)

    # -- the server --------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Keep a server running, as a supervisor does."""
        while not self._closing:
            self._servers += 1
            self._server = Server(self, self._servers)
            await self._server.run()
            self._server = None
            await trio.sleep(self._rng.choice([0.1, 1.0, 20.0]))

    @property
    def serving(self) -> Server | None:
        """The server that clients reach now."""
        server = self._server
        if server is None or server.engine is None or server.closed or server.dead:
            return None
        return server

    async def call(self, who: str, what: str, op: Op[Any]) -> End:
        """See ``Surroundings``."""
        server = self.serving
        if server is None:
            await trio.sleep(0.5)
            return Fail(None)
        self.trace("invoke", who, what)
        end = await self._ended(server, op)
        shown = type(end.error).__name__ if isinstance(end, Fail) else ""
        self.trace(type(end).__name__.lower(), who, what, shown)
        self.counts[f"call {type(end).__name__.lower()}"] += 1
        return end

    async def _ended(self, server: Server, op: Op[Any]) -> End:
        assert server.engine is not None
        end: End = Info()
        with server.attended() as scope:
            if self.luck.strikes("client.leaves"):
                stream = self.luck.stream("client.leaves")
                scope.deadline = trio.current_time() + stream.choice([0, 0, 0.001, 0.05, 1.0])
            try:
                end = Ok(await op(server.engine))
            except Dead:
                pass
            except EngineError as error:
                if not server.dead and not is_unknown(error):
                    end = Fail(error)
                if type(error) is Overloaded:
                    full = "queue" if "queue holds" in str(error) else "inbox"
                    self.goals.reach(f"{'the queue' if full == 'queue' else 'an inbox'} is full")
        return end

    def note_spec(self, spec: TaskSpec) -> None:
        """See ``Surroundings``."""
        self._specs[spec.name] = spec

    def now(self) -> datetime:
        """The wall clock's time."""
        return self.clock.now()

    async def _watch(self) -> None:
        """Somebody who watches everything that happens, from one server to the next."""
        seq = 0
        servers: set[int] = set()
        while True:
            server = self.serving
            if server is None or server.engine is None:
                await trio.sleep(0.5)
                continue
            if seq and servers and server.number not in servers:
                self.goals.reach("a watcher resumes after a restart")
            servers.add(server.number)
            try:
                with server.attended():
                    async with server.engine.watch(EventFilter(), after=seq) as watch:
                        while True:
                            for event in await watch.receive():
                                self.books.was_streamed(event, seq)
                                seq = event.seq
                            if self._watcher.random() < 0.1:
                                await trio.sleep(self._watcher.choice([0.1, 10.0, 60.0]))
            except WatcherLagged as lagged:
                self.goals.reach("a watcher falls behind")
                if lagged.last_seq != seq:
                    raise Breach(f"a watcher who saw {seq} is told {lagged.last_seq}") from None
            except CursorExpired as expired:
                if expired.oldest <= seq + 1 <= expired.newest + 1:
                    raise Breach(f"a watcher at {seq} is sent away: {expired}") from None
                seq = expired.oldest - 1
            except (EngineStopping, Dead):
                await trio.sleep(0.1)
            except (StoreError, Overloaded):
                await trio.sleep(0.5)

    # -- what goes wrong ---------------------------------------------------------------------

    def _start_faults(self, nursery: trio.Nursery) -> None:
        for kind, strike in (
            ("process.crash", self._crash),
            ("process.stop", self._stop),
            ("process.pause", self._pause),
            ("store.outage", self._outage),
            ("clock.step", self._step),
        ):
            nursery.start_soon(self._now_and_then, kind, strike)

    async def _now_and_then(self, kind: str, strike: Callable[[], float]) -> None:
        while (pause_s := self.luck.pause_s(kind, self.length_s)) is not None:
            await trio.sleep(pause_s)
            if self.luck.calm or self._closing:
                return
            self.luck.struck(kind)
            lasts_s = strike()
            await trio.sleep(lasts_s)

    def _crash(self) -> float:
        if self._server is not None:
            self._server.crash("at any time")
        return 0.0

    def _stop(self) -> float:
        if self._server is not None:
            self.trace("stop")
            self.goals.struck("a graceful stop", self.books.statuses())
            self._server.stop()
        return 0.0

    def _pause(self) -> float:
        """The process and all around it are held; when it goes on, much is due at once."""
        seconds = self.luck.stream("process.pause").uniform(0.5, 3.0) * (
            10.0 + self.config.lease_margin_s
        )
        self.trace("pause", seconds)
        self.goals.struck("a pause", self.books.statuses())
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(seconds)
        return 0.0

    def _outage(self) -> float:
        lasts_s = self.luck.stream("store.outage").choice([1.0, 10.0, 60.0])
        self.trace("outage", lasts_s)
        self.disk.out_until = trio.current_time() + lasts_s
        return lasts_s

    def _step(self) -> float:
        self.goals.struck("a step of the clock", self.books.statuses())
        steps = _STEPS_S if self.length_s > _LONG_S else _STEPS_S[1:-1]
        self._set_clock(self.clock.offset_s + self.luck.stream("clock.step").choice(steps))
        return 0.0

    def _set_clock(self, offset_s: float) -> None:
        self.trace("clock", offset_s)
        self.clock.set_to(offset_s)
        self.books.forget_pauses()

    # -- who sees it all ---------------------------------------------------------------------

    def committed(self, connection: sqlite3.Connection, *, unknown: bool) -> None:
        """See ``disk.Witness``."""
        self.counts["commits"] += 1
        if self.counts["commits"] > _COMMITS_MAX:
            self.breach("there is no end of commits")
        with self._judged():
            events = self.books.committed(connection)
            if unknown:
                self.goals.struck("an unknown commit", self.books.statuses())
                self.goals.reach("an unknown commit took effect")
            self.trace("commit", unknown, *events)
            for task_id, frm, _, _ in events:
                name = self.books.lives[task_id].row.name
                if frm is None and name.startswith("poison"):
                    self.network.poison.add(task_id)
        self._check_sizes()

    def failed(self, kind: str) -> None:
        """See ``disk.Witness``."""
        self.trace("transaction fails", kind)
        self.goals.struck("a failed transaction", self.books.statuses())
        if kind == "store.io_before":
            self.goals.reach("an unknown commit left nothing")

    def _check_sizes(self) -> None:
        server = self._server
        if server is None or server.engine is None:
            return
        parts = server.engine._parts
        for inbox in (parts.repository_inbox, parts.queue_inbox):
            if len(inbox) > self.config.inbox:
                self.breach(f"{inbox!r} holds more than {self.config.inbox}")
        if len(parts.in_flight) > _seats(self.config):
            self.breach(f"{len(parts.in_flight)} attempts are in flight")
        if len(parts.in_flight) >= self.config.executors:
            self.goals.reach("all executors are busy")
        if parts.in_flight.late_results:
            self.goals.reach("a late result is dropped")
        if self.counts["commits"] % 10 == 0:
            figures = parts.queue.destinations()
            if figures.open or figures.half_open:
                self.goals.reach("a breaker is open")
            if figures.held:
                self.goals.reach("a destination is held")

    def sent(self, task_id: str, attempt: int, *, kept: bool) -> None:
        """See ``network.Witness``."""
        self.trace("send", task_id, attempt, kept)
        if kept:
            self.goals.reach("a kept connection is used again")
        self.counts["calls"] += 1
        with self._judged():
            self.books.sent(task_id, attempt)

    def executed(self, task_id: str, attempt: int) -> None:
        """See ``network.Witness``."""
        self.trace("execute", task_id, attempt)
        with self._judged():
            self.books.executed(task_id, attempt)

    def spoilt(self, task_id: str, attempt: int) -> None:
        """See ``network.Witness``."""
        self.books.lives[task_id].spoilt[attempt] += 1

    def praised(self, task_id: str, attempt: int) -> None:
        """See ``network.Witness``."""
        self.books.lives[task_id].praised.add(attempt)

    def asked_to_wait(self, task_id: str, attempt: int, seconds: float) -> None:
        """See ``network.Witness``."""
        self.books.asked_to_wait(task_id, attempt, seconds)

    def connections(self, opened: int) -> None:
        """See ``network.Witness``."""
        if opened > self.config.executors + _seats(self.config) * IDLE_MAX:
            self.breach(f"{opened} connections are open")

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """Here the product calls us, and might catch what we raise."""
        try:
            yield
        except Exception as error:
            self.breach(_described(error))


def _seats(config: EngineConfig) -> int:
    """How many executors there may be: a quarter more than calls, whose claims run ahead."""
    return pool_size(config.executors)


def _settings(rng: random.Random, length_s: float) -> EngineConfig:
    """Settings of a seed: small enough for limits to be met, and now and then the usual ones."""
    return EngineConfig(
        executors=rng.randint(3, 8),
        grace_s=rng.choice([1.0, 5.0, 30.0]),
        ageing_s=rng.choice([30.0, 600.0]),
        queue_max=rng.choice([10, 5_000_000, 5_000_000]),
        window=rng.choice([2, 5, 2_000]),
        inbox=rng.choice([10, 50, 2_000]),
        takers_max=rng.choice([1, 1_000]),
        commit_batch=rng.choice([1, 3, 500]),
        dequeue_lease_s=rng.choice([5.0, 60.0, 300.0]),
        lease_margin_s=rng.choice([5.0, 30.0]),
        recoveries_max=rng.choice([2, 3, 4]),
        sweep_interval_s=max(rng.choice([1.0, 3.0]), length_s / 30),
        prune_interval_s=max(60.0, length_s / 20),
        answer_bytes_max=rng.choice([100, 64 * 1024]),
        breaker_attempts_min=rng.choice([3, 10]),
        breaker_open_s=rng.choice([5.0, 30.0]),
        unhealthy_limit=rng.choice([1, 2, 20]),
        retry_after_max_s=rng.choice([20.0, 600.0]),
        watcher_buffer=rng.choice([4, 1_000]),
        event_page=rng.choice([3, 500]),
        event_retention_s=rng.choice([length_s / 4, 7 * 86_400.0, 7 * 86_400.0]),
        archive_retention_s=rng.choice([length_s / 4, 30 * 86_400.0, 30 * 86_400.0]),
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _described(error: BaseException) -> str:
    """What went wrong, and where; without addresses, so that a run is described alike each time."""
    said = []
    for leaf in _leaves(error):
        last = leaf.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        where = f"{last.tb_frame.f_code.co_name}:{last.tb_lineno}" if last is not None else "?"
        said.append(
            str(leaf) if isinstance(leaf, Breach) else f"{type(leaf).__name__}: {leaf} ({where})"
        )
    return "; ".join(said)
