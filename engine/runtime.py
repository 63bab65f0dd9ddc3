"""The nursery tree: what starts in which order, and how it stops.

    open_engine()
    └─ resources          store and broker: opened first, closed last
       └─ services        repository (shielded), status hub
          └─ work         queue, intake, pool of executors, timers
             └─ the caller's block, with the Engine in its hand

Stopping goes from the inside out: the queue drains (idle executors leave), running attempts get
``grace_s``, cut ones put their task back, the repository writes what is left, the store closes.
An error in any actor cancels the others and leaves through ``open_engine``: the process should end,
and the next start recovers from the store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version

import attrs
import trio

from .actors.executor import ExecutorKit, InFlight
from .actors.intake import intake
from .actors.mailbox import Inbox
from .actors.pool import pool
from .actors.queue import Queue
from .actors.repository import Applied, Repository
from .actors.status import StatusHub
from .actors.timers import pruner, sweeper
from .adapters.brokers.local import LocalBroker
from .adapters.http import HttpCallbackNet
from .adapters.storage import open_store
from .adapters.system import SystemClock, SystemIds, system_rng
from .config import EngineConfig
from .core.commands import Recover
from .core.egress import EgressPolicy, Listener, Profile
from .core.entries import entry_of
from .core.tally import Tally
from .core.task import Attempt, Status, Wait
from .messages import Committed, QueueMessage, RepositoryMessage, Request
from .ports.broker import Broker, Hint
from .ports.callback_net import CallbackNet
from .ports.clock import Clock
from .ports.ids import Ids
from .ports.rng import Rng
from .ports.store import Store, StoreOpener
from .service import Engine, EngineParts

AttemptObserver = Callable[[Attempt], None]

_CLOSE_TIMEOUT_S = 10.0


@attrs.frozen(kw_only=True)
class Ports:
    """Everything the engine needs from outside. What is not given is the real thing."""

    store: StoreOpener
    net: CallbackNet
    clock: Clock
    rng: Rng
    ids: Ids
    broker: Broker


def egress_policy(
    config: EngineConfig, own_listeners: Sequence[tuple[str, int]] = ()
) -> EgressPolicy:
    """Where callbacks may go. ``own_listeners`` are addresses and ports we listen on ourselves."""
    return EgressPolicy(
        profile=Profile(config.egress),
        allowed=config.allow_network,
        listeners=tuple(Listener(address, port) for address, port in own_listeners),
    )


def system_ports(
    config: EngineConfig, database: str, own_listeners: Sequence[tuple[str, int]] = ()
) -> Ports:
    """The real ports of this machine, with the store at ``database`` (a URL, see the README)."""
    clock, rng = SystemClock(), system_rng()
    return Ports(
        store=partial(open_store, database),
        net=HttpCallbackNet(
            body_bytes_max=config.answer_bytes_max,
            connect_timeout_s=config.connect_timeout_s,
            egress=egress_policy(config, own_listeners),
        ),
        clock=clock,
        rng=rng,
        ids=SystemIds(clock, rng),
        broker=LocalBroker(config.inbox),
    )


@asynccontextmanager
async def open_engine(
    config: EngineConfig | None = None,
    *,
    database: str = "memory:",
    ports: Ports | None = None,
    observe_attempt: AttemptObserver | None = None,
    own_listeners: Sequence[tuple[str, int]] = (),
) -> AsyncIterator[Engine]:
    """Run an engine for the length of the block; at its end the engine drains and stops.

    Raises ``StoreLocked``, ``StoreDamaged`` or ``StoreUnavailable`` if the store cannot be opened.
    ``observe_attempt`` is called after every attempt that became durable; it must not block.
    ``own_listeners``: addresses and ports where this program takes tasks, which no callback may
    call.
    """
    config = config or EngineConfig()
    ports = ports or system_ports(config, database, own_listeners)
    async with AsyncExitStack() as resources:
        store = await resources.enter_async_context(ports.store())
        resources.callback(ports.broker.close)
        egress = egress_policy(config, own_listeners)
        async with _Runtime(config, ports, store, egress, observe_attempt).running() as engine:
            yield engine


class _Runtime:
    """The actors of one engine, put together. ``running`` is the tree of nurseries."""

    def __init__(
        self,
        config: EngineConfig,
        ports: Ports,
        store: Store,
        egress: EgressPolicy,
        observe_attempt: AttemptObserver | None,
    ) -> None:
        self._config = config
        self._broker = ports.broker
        self._recovers = store.capabilities.exclusive
        self._repository_inbox = Inbox[RepositoryMessage]("repository", config.inbox)
        self._queue_inbox = Inbox[QueueMessage]("queue", config.inbox)
        self._status_inbox = Inbox[Committed]("status hub", config.inbox)
        self._executors = trio.CancelScope()
        in_flight, tally = InFlight(), Tally(config.latency_window)
        self._in_flight = in_flight
        self._hub = StatusHub(self._status_inbox, store, config)
        self._queue = Queue(self._queue_inbox, self._repository_inbox, ports.clock, config)
        announcer = _Announcer(
            ports.broker, self._queue, self._hub, in_flight, tally, observe_attempt
        )
        self._repository = Repository(self._repository_inbox, store, ports.clock, config, announcer)
        self._kit = ExecutorKit(
            queue=self._queue_inbox,
            repository=self._repository_inbox,
            net=ports.net,
            clock=ports.clock,
            rng=ports.rng,
            config=config,
            in_flight=in_flight,
            owner=ports.ids.owner_id(),
            user_agent=f"Ringback/{version('ringback')}",
        )
        self._engine = Engine(
            EngineParts(
                config=config,
                store=store,
                clock=ports.clock,
                ids=ports.ids,
                egress=egress,
                repository_inbox=self._repository_inbox,
                queue_inbox=self._queue_inbox,
                queue=self._queue,
                repository=self._repository,
                hub=self._hub,
                in_flight=in_flight,
                slots=self._kit.slots,
                tally=tally,
                drain=self._drain,
                cut=partial(self._executors.cancel, reason="told to stop waiting"),
            )
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        """Everything runs during the block; its end is a graceful stop."""
        async with trio.open_nursery() as services:
            scope: trio.CancelScope = await services.start(self._repository.run)
            try:
                await services.start(self._hub.run)
                if self._recovers:
                    await _recover(self._repository_inbox, self._kit.owner)
                async with trio.open_nursery() as work:
                    await work.start(self._queue.run)
                    await work.start(intake, self._broker, self._queue_inbox)
                    await work.start(pool, self._kit, self._config.executors, self._executors)
                    async with trio.open_nursery() as timers:
                        timers.start_soon(
                            sweeper, self._repository_inbox, self._in_flight, self._config
                        )
                        timers.start_soon(pruner, self._repository_inbox, self._config)
                        try:
                            yield self._engine
                        finally:
                            self._engine.stop()
                            timers.cancel_scope.cancel(reason="the engine stops")
            finally:
                scope.deadline = trio.current_time() + _CLOSE_TIMEOUT_S
                services.cancel_scope.deadline = scope.deadline  # the hub may wait for the store
                self._repository_inbox.close()
                self._status_inbox.close()

    def _drain(self) -> None:
        """Hand out nothing more. Idle executors leave now, busy ones when their attempt ends."""
        grace_ends = trio.current_time() + self._config.grace_s
        self._executors.deadline = min(self._executors.deadline, grace_ends)
        self._queue_inbox.close()
        self._broker.close()


async def _recover(repository: Inbox[RepositoryMessage], owner: str) -> None:
    """What an earlier process left running is given back before anything else happens."""
    limit = 500
    while await repository.ask(partial(Request, Recover(owner, limit))) == limit:
        pass


@attrs.define
class _Announcer:
    """Tells everybody concerned what has become durable. Never blocks."""

    broker: Broker
    queue: Queue
    hub: StatusHub
    in_flight: InFlight
    tally: Tally
    observe_attempt: AttemptObserver | None

    def lost_track(self, rest_s: float) -> None:
        self.queue.lost_track(rest_s)
        self.hub.lost_track()

    def __call__(self, applied: Applied) -> None:
        hints: list[Hint] = []
        withdrawn: list[str] = []
        for task in applied.tasks:
            if task.lane is not None and task.wait is not None and task.wait is not Wait.BLOCKED:
                hints.append(Hint(task.lane, entry_of(task)))
            else:
                withdrawn.append(task.id)
            if task.status is not Status.PROCESSING and task.attempt:
                self.in_flight.moved_on(task, task.attempt)
        if withdrawn:
            self.queue.withdraw(tuple(withdrawn))
        if hints:
            self.broker.announce(hints)
        if applied.events:
            self.hub.publish(applied.events)
        for attempt in applied.attempts:
            self.tally.add(attempt)
            if self.observe_attempt is not None:
                self.observe_attempt(attempt)
