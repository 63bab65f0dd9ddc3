"""An engine in virtual time: memory store, a clock that follows Trio's, seeded chance, and a
scripted network that answers by URL and attempt. Nothing here sleeps for real."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import attrs
import trio

from engine.adapters.brokers.local import LocalBroker
from engine.adapters.storage.memory import MemoryStore
from engine.adapters.system import SystemIds, TrioClock
from engine.config import EngineConfig
from engine.core.batch import Records
from engine.core.callback import CallbackRequest
from engine.core.lifecycle import ENDED, TRANSITIONS
from engine.core.outcome import Answer
from engine.core.queries import TaskQuery
from engine.core.task import Attempt, ErrorClass, Event, Lane, Status, Task, TaskId, TaskSpec
from engine.errors import StoreUnavailable
from engine.ports.callback_net import Caller
from engine.ports.store import Store, StoreCapabilities
from engine.runtime import AttemptObserver, Ports, open_engine
from engine.service import Engine

from .builders import NOW, a_spec

R = TypeVar("R")

GOOD, BAD, HANGS, STUCK, CRASHES = (
    f"http://callee.example/{path}" for path in ("good", "bad", "hangs", "stuck", "crashes")
)


# -- the network -----------------------------------------------------------------------------


@attrs.frozen
class After:
    """An answer that takes its time. ``obeys``: cut at the request's own timeout, as the port
    demands; else only a cancellation ends it."""

    seconds: float
    then: int = 200
    obeys: bool = True


Reply: TypeAlias = int | Answer | Exception | After


@attrs.define
class Call:
    """One call as the other side saw it; times are virtual seconds."""

    task_id: TaskId
    attempt: int
    url: str
    began: float
    headers: Mapping[str, str]
    body: Any
    ended: float = math.nan
    how: str = "running"  # then: answered, raised, timed out, cut


class FakeNet:
    """Answers the n-th attempt at a URL with the n-th reply of its script, the last one for ever."""

    def __init__(self, **scripts: Sequence[Reply]) -> None:
        self._scripts: dict[str, Sequence[Reply]] = {
            GOOD: [200],
            BAD: [500],
            HANGS: [After(math.inf)],
            STUCK: [After(math.inf, obeys=False)],
            CRASHES: [ValueError("the net has a bug")],
        }
        for path, script in scripts.items():
            self._scripts[f"http://callee.example/{path}"] = script
        self.calls: list[Call] = []
        self.in_flight = self.peak_in_flight = self.open_callers = 0

    def __repr__(self) -> str:
        return f"<FakeNet {len(self.calls)} calls, {self.in_flight} in flight>"

    def script(self, url: str, *replies: Reply) -> str:
        """What attempts at any URL are answered from now on; gives the URL back."""
        self._scripts[url] = replies
        return url

    @asynccontextmanager
    async def open_caller(self) -> AsyncIterator[Caller]:
        """A caller; they all write into the same book."""
        self.open_callers += 1
        try:
            yield self
        finally:
            self.open_callers -= 1

    async def call(self, request: CallbackRequest) -> Answer:
        """The scripted answer."""
        attempt = int(request.headers["X-Task-Attempt"])
        call = Call(
            task_id=request.headers["webhook-id"],
            attempt=attempt,
            url=request.url,
            began=trio.current_time(),
            headers=request.headers,
            body=json.loads(request.body or b"null"),
        )
        self.calls.append(call)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        script = self._scripts[request.url]
        call.how = "cut"
        try:
            answer = await self._react(script[min(attempt, len(script)) - 1], request.timeout_s)
            timed_out = answer.error_class is ErrorClass.TIMEOUT
            call.how = "timed out" if timed_out else "answered"
        except Exception:
            call.how = "raised"
            raise
        finally:
            self.in_flight -= 1
            call.ended = trio.current_time()
        return answer

    def of(self, task_id: TaskId) -> list[Call]:
        """The calls of one task."""
        return [call for call in self.calls if call.task_id == task_id]

    def order(self) -> list[TaskId]:
        """Whose calls began, in order."""
        return [call.task_id for call in self.calls]

    def repeated(self) -> list[tuple[TaskId, int]]:
        """Attempts whose number was used for two calls: there must be none, ever."""
        counts = Counter((call.task_id, call.attempt) for call in self.calls)
        return [key for key, times in counts.items() if times > 1]

    async def _react(self, reply: Reply, timeout_s: float) -> Answer:
        if isinstance(reply, After):
            with trio.move_on_after(timeout_s if reply.obeys else math.inf):
                await trio.sleep(reply.seconds)
                return Answer(status_code=reply.then, body=b"said late")
            return Answer(error_class=ErrorClass.TIMEOUT, error=f"no answer in {timeout_s:g} s")
        await trio.lowlevel.checkpoint()
        if isinstance(reply, Exception):
            raise reply
        return Answer(status_code=reply, body=b"said") if isinstance(reply, int) else reply


# -- the store -------------------------------------------------------------------------------


class TroubledStore:
    """A memory store that is kept when the engine closes it, and can be given trouble."""

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.capabilities = StoreCapabilities(durable=False, exclusive=True)
        self.transactions = 0
        self.fail_at: Collection[int] = ()  # these transactions fail, counted from 1
        self.unknown_at: Collection[int] = ()  # these take effect, and are said to have failed
        self.error: Exception = StoreUnavailable("the disk is gone")
        self.down = False  # everything fails
        self.reads_down = False
        self.delay_s = 0.0  # what a transaction takes
        self.gate: trio.Event | None = None  # transactions wait for it

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Store]:
        """Open it, again and again."""
        await trio.lowlevel.checkpoint()
        yield self

    async def transact(self, work: Callable[[Records], R]) -> R:
        """As its inner store, if nothing is wrong."""
        self.transactions += 1
        fails = self.down or self.transactions in self.fail_at
        with trio.CancelScope(shield=True):  # one that has begun is waited for
            if self.gate is not None:
                await self.gate.wait()
            if self.delay_s:
                await trio.sleep(self.delay_s)
        await trio.lowlevel.checkpoint()
        if fails or self.down:
            raise self.error
        result = await self.inner.transact(work)
        if self.transactions in self.unknown_at:
            raise self.error
        return result

    async def get(self, task_id: TaskId) -> Task | None:
        await self._read()
        return await self.inner.get(task_id)

    async def tasks(self, query: TaskQuery, limit: int, offset: int = 0) -> list[Task]:
        await self._read()
        return await self.inner.tasks(query, limit, offset)

    async def snapshot(self, query: TaskQuery, limit: int) -> tuple[int, list[Task]]:
        await self._read()
        tasks = await self.inner.tasks(query, limit)
        return (await self.inner.event_range())[1], tasks

    async def count(self, query: TaskQuery) -> int:
        await self._read()
        return await self.inner.count(query)

    async def counts(self) -> Mapping[Status, int]:
        await self._read()
        return await self.inner.counts()

    async def oldest_waiting(self) -> Task | None:
        await self._read()
        return await self.inner.oldest_waiting()

    async def partition_holder(self, partition_key: str) -> TaskId | None:
        await self._read()
        return await self.inner.partition_holder(partition_key)

    async def attempts(self, task_id: TaskId) -> list[Attempt]:
        await self._read()
        return await self.inner.attempts(task_id)

    async def task_events(self, task_id: TaskId) -> list[Event]:
        await self._read()
        return await self.inner.task_events(task_id)

    async def events(self, after: int, limit: int) -> Sequence[Event]:
        await self._read()
        return await self.inner.events(after, limit)

    async def event_range(self) -> tuple[int, int]:
        await self._read()
        return await self.inner.event_range()

    async def _read(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.down or self.reads_down:
            raise StoreUnavailable("the disk is gone")


# -- the engine ------------------------------------------------------------------------------


class World:
    """What outlives an engine: store, network, clock and chance. Engines can be opened on it one
    after the other, as a server is stopped and started. Make one inside an async test."""

    def __init__(self, *, seed: int = 1, **scripts: Sequence[Reply]) -> None:
        self.net = FakeNet(**scripts)
        self.store = TroubledStore()
        self.clock = TrioClock(NOW)
        self.rng = random.Random(seed)
        self.ids = SystemIds(self.clock, self.rng)

    def open(
        self, *, observe_attempt: AttemptObserver | None = None, **settings: Any
    ) -> AbstractAsyncContextManager[Engine]:
        """An engine with few executors, and these settings."""
        config = EngineConfig(**{"executors": 4, "sweep_interval_s": 1.0, **settings})
        ports = Ports(
            store=self.store,
            net=self.net,
            clock=self.clock,
            rng=self.rng,
            ids=self.ids,
            broker=LocalBroker(config.inbox),
        )
        return open_engine(config, ports=ports, observe_attempt=observe_attempt)

    async def task(self, task_id: TaskId) -> Task:
        """The task as the store has it, whatever the engine thinks."""
        task = await self.store.inner.get(task_id)
        assert task is not None, f"task {task_id} is lost"
        return task

    async def tasks(self) -> list[Task]:
        """Every task, oldest first."""
        return (await self.store.inner.tasks(TaskQuery(), 1_000_000))[::-1]

    async def events(self) -> list[Event]:
        """Every event."""
        return list(await self.store.inner.events(0, 1_000_000))

    async def path(self, task_id: TaskId) -> list[str]:
        """The statuses a task went through."""
        return [event.to_status.value for event in await self.store.inner.task_events(task_id)]

    async def check_books(self, accepted: Iterable[TaskId] = ()) -> None:
        """What must hold at any moment: nothing lost, nothing twice, nothing stuck, no gap."""
        tasks = {task.id: task for task in await self.tasks()}
        assert set(accepted) <= tasks.keys(), "an accepted task is lost"
        events = await self.events()
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        status: dict[TaskId, Status] = {}
        for event in events:
            assert status.get(event.task_id) == event.from_status, event
            if event.from_status is not None:
                assert event.to_status in TRANSITIONS[event.from_status].values(), event
            status[event.task_id] = event.to_status
        assert status == {task.id: task.status for task in tasks.values()}
        assert +Counter(await self.store.inner.counts()) == Counter(status.values())
        assert self.net.repeated() == []
        for task in tasks.values():
            await self._check_task(task)

    async def _check_task(self, task: Task) -> None:
        numbers = [attempt.number for attempt in await self.store.inner.attempts(task.id)]
        running = task.status is Status.PROCESSING
        assert numbers == list(range(1, task.attempt + (not running))), task
        if running:
            assert task.owner is not None, task
            assert task.expires_at is not None, task
        elif task.status is Status.PENDING:
            assert task.lane is Lane.RUN or task.expires_at is not None, task
        elif task.status not in ENDED:
            assert task.lane is not None, task
            assert task.wait is not None, task
        else:
            assert task.completed_at is not None, task
            assert task.lane is None, task


async def submit(engine: Engine, *urls: str, **fields: Any) -> list[TaskId]:
    """Accept one automatic task for each URL."""
    specs: list[TaskSpec] = [a_spec(callback_url=url, **fields) for url in urls]
    return [receipt.task_id for receipt in (await engine.submit(specs)).receipts]


async def submit_one(engine: Engine, url: str = GOOD, **fields: Any) -> TaskId:
    """Accept one automatic task."""
    (task_id,) = await submit(engine, url, **fields)
    return task_id


async def until(
    engine: Engine,
    task_ids: Iterable[TaskId],
    *statuses: Status,
    within_s: float = 3600.0,
    every_s: float = 0.25,
) -> None:
    """Wait until each task has one of the statuses: by default, until it has ended."""
    wanted = frozenset(statuses) or ENDED
    left = list(task_ids)
    with trio.fail_after(within_s):
        while True:
            left = [i for i in left if (await engine.get(i)).status not in wanted]
            if not left:
                return
            await trio.sleep(every_s)
