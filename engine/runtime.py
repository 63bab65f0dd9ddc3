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

from collections.abc import AsyncIterator, Callable
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
from .core.backlog import Entry
from .core.commands import Recover
from .core.tally import Tally
from .core.task import Attempt, Status, Wait
from .messages import Committed, QueueMessage, RepositoryMessage, Request
from .ports.broker import Broker, Hint
from .ports.callback_net import CallbackNet
from .ports.clock import Clock
from .ports.ids import Ids
from .ports.rng import Rng
from .ports.store import StoreOpener
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


def system_ports(config: EngineConfig, database: str) -> Ports:
    """The real ports of this machine, with the store at ``database`` (a URL, see the README)."""
    clock, rng = SystemClock(), system_rng()
    return Ports(
        store=partial(open_store, database),
        net=HttpCallbackNet(
            body_bytes_max=config.answer_bytes_max, connect_timeout_s=config.connect_timeout_s
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
) -> AsyncIterator[Engine]:
    """Run an engine for the length of the block; at its end the engine drains and stops.

    Raises ``StoreLocked``, ``StoreDamaged`` or ``StoreUnavailable`` if the store cannot be opened.
    ``observe_attempt`` is called after every attempt that became durable; it must not block.
    """
    config = config or EngineConfig()
    ports = ports or system_ports(config, database)
    async with AsyncExitStack() as resources:
        store = await resources.enter_async_context(ports.store())
        resources.callback(ports.broker.close)
        repository_inbox = Inbox[RepositoryMessage]("repository", config.inbox)
        queue_inbox = Inbox[QueueMessage]("queue", config.inbox)
        status_inbox = Inbox[Committed]("status hub", config.inbox)
        in_flight, tally = InFlight(), Tally(config.latency_window)
        hub = StatusHub(status_inbox, store, config)
        queue = Queue(queue_inbox, repository_inbox, ports.clock, config)
        announcer = _Announcer(ports.broker, queue, hub, in_flight, tally, observe_attempt)
        repository = Repository(repository_inbox, store, ports.clock, config, announcer)
        kit = ExecutorKit(
            queue=queue_inbox,
            repository=repository_inbox,
            net=ports.net,
            clock=ports.clock,
            rng=ports.rng,
            config=config,
            in_flight=in_flight,
            owner=ports.ids.owner_id(),
            user_agent=f"Ringback/{version('ringback')}",
        )
        executors = trio.CancelScope()

        def drain() -> None:
            executors.deadline = min(executors.deadline, trio.current_time() + config.grace_s)
            queue_inbox.close()
            ports.broker.close()

        engine = Engine(
            EngineParts(
                config=config,
                store=store,
                clock=ports.clock,
                ids=ports.ids,
                repository_inbox=repository_inbox,
                queue_inbox=queue_inbox,
                repository=repository,
                hub=hub,
                in_flight=in_flight,
                tally=tally,
                drain=drain,
                cut=partial(executors.cancel, reason="the engine is told to stop waiting"),
            )
        )
        async with trio.open_nursery() as services:
            scope: trio.CancelScope = await services.start(repository.run)
            try:
                await services.start(hub.run)
                if store.capabilities.exclusive:
                    await _recover(repository_inbox, kit.owner)
                async with trio.open_nursery() as work:
                    await work.start(queue.run)
                    await work.start(intake, ports.broker, queue_inbox)
                    await work.start(pool, kit, config.executors, executors)
                    async with trio.open_nursery() as timers:
                        timers.start_soon(sweeper, repository_inbox, config)
                        timers.start_soon(pruner, repository_inbox, config)
                        try:
                            yield engine
                        finally:
                            engine.stop()
                            timers.cancel_scope.cancel(reason="the engine stops")
            finally:
                scope.deadline = trio.current_time() + _CLOSE_TIMEOUT_S
                repository_inbox.close()
                status_inbox.close()


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

    def lost_track(self) -> None:
        self.queue.lost_track()

    def __call__(self, applied: Applied) -> None:
        hints: list[Hint] = []
        withdrawn: list[str] = []
        for task in applied.tasks:
            if task.lane is not None and task.wait is not None and task.wait is not Wait.BLOCKED:
                hints.append(Hint(task.lane, Entry(task.id, task.rank, task.due_at)))
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
