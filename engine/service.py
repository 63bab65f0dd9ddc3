"""The engine's handle: what the web part and embedding programs call.

Each call that changes something sends one message to one actor and waits for the answer. If the
caller is cancelled meanwhile, the change happens or does not, but never by half.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, TypeVar, cast

import attrs
import trio

from .actors.executor import InFlight
from .actors.feed import EventFilter
from .actors.mailbox import Inbox, Reply
from .actors.queue import Queue
from .actors.repository import Repository
from .actors.slots import CallSlots
from .actors.status import StatusHub
from .actors.watch import Watch, check_cursor
from .config import EngineConfig
from .core.commands import (
    AnyCommand,
    Cancel,
    Command,
    Create,
    Created,
    Execute,
    IdempotencyKey,
    Release,
    Retry,
    Take,
    Update,
)
from .core.destinations import AllFigures
from .core.egress import EgressPolicy
from .core.entries import arrivals
from .core.explain import Explanation, Situation, explain
from .core.lifecycle import ENDED, FINAL
from .core.queries import Kept, TaskQuery
from .core.rules import Path
from .core.suspects import queued_for
from .core.tally import AttemptFigures, Tally
from .core.task import Attempt, Dispatch, Event, Lane, Status, Task, TaskId, TaskSpec
from .errors import (
    ClaimLost,
    EngineStopping,
    IllegalTransition,
    InvalidTask,
    NotTakeable,
    Overloaded,
    QueueEmpty,
    StoreUnavailable,
    TaskDamaged,
    TaskNotFound,
    WatcherLagged,
)
from .messages import Arriving, Next, QueueMessage, RepositoryMessage, Request
from .ports.clock import Clock
from .ports.ids import Ids
from .ports.store import Store

R = TypeVar("R")

_FIXED = frozenset({"dispatch", "partition_key", "deadline", "delay_s", "hops"})  # of a stored task
_SAMPLE = TaskSpec(name="sample", callback_url="http://localhost/")


@attrs.frozen(kw_only=True)
class Stats:
    """How the engine does. Counts are exact; attempts and latency speak of this process."""

    at: datetime
    counts: Mapping[Status, int]
    queue_depth: int
    oldest_waiting_s: float | None
    executors: int
    executors_busy: int
    attempts: AttemptFigures
    destinations: AllFigures
    late_results: int
    commits: int
    watchers: int
    newest_event: int


@attrs.frozen(kw_only=True)
class EngineParts:
    """What the handle holds on to; put together by ``runtime``."""

    config: EngineConfig
    store: Store
    clock: Clock
    ids: Ids
    egress: EgressPolicy
    repository_inbox: Inbox[RepositoryMessage]
    queue_inbox: Inbox[QueueMessage]
    queue: Queue
    repository: Repository
    hub: StatusHub
    in_flight: InFlight
    slots: CallSlots
    tally: Tally
    drain: Callable[[], None]
    cut: Callable[[], None]


def _own(spec: TaskSpec) -> TaskSpec:
    """The spec, holding nothing that its maker may go on to change: what is called must be what
    was stored."""
    return attrs.evolve(
        spec,
        payload=copy.deepcopy(spec.payload),
        headers=dict(spec.headers),
        metadata=dict(spec.metadata),
    )


class Engine:
    """The handle of a running engine. Tasks that it gives out are records: nobody may change what
    they hold. Get one from ``open_engine``."""

    def __init__(self, parts: EngineParts) -> None:
        self._parts = parts
        self._stopping = False

    def __repr__(self) -> str:
        state = "stopping" if self._stopping else "running"
        return f"<Engine {state}, {len(self._parts.in_flight)} attempts in flight>"

    @property
    def config(self) -> EngineConfig:
        """The settings it runs with."""
        return self._parts.config

    @property
    def stopping(self) -> bool:
        """Whether it takes no new work."""
        return self._stopping

    def stop(self) -> None:
        """Take and hand out no new work from now on. Running attempts get ``grace_s``. Everything
        ends with the block of ``open_engine``."""
        self._stopping = True
        self._parts.drain()
        self._parts.hub.stop()

    def cut(self) -> None:
        """Wait for nothing: cut running attempts off; they are put back to be repeated."""
        self.stop()
        self._parts.cut()

    # -- tasks in ----------------------------------------------------------------------------

    async def submit(
        self, specs: Sequence[TaskSpec], *, key: IdempotencyKey | None = None, owned: bool = False
    ) -> Created:
        """Accept tasks, all or none; when it returns they are durable. What they hold is copied,
        unless it is ``owned``: nobody else will ever change it.

        Raises ``InvalidTask`` (paths begin with the index of the task), ``Overloaded``,
        ``IdempotencyConflict``, ``StoreUnavailable``.
        """
        problems = [
            ((index, *path), detail)
            for index, spec in enumerate(specs)
            for path, detail in self._problems(spec)
        ]
        if problems:
            raise InvalidTask(problems)
        if self._stopping:
            raise EngineStopping
        tasks = tuple((self._parts.ids.task_id(), spec if owned else _own(spec)) for spec in specs)
        created: Reply[Created] = Reply()
        self._parts.repository_inbox.tell(Request(Create(tasks, key), created))
        if arriving := arrivals(tasks, Dispatch(self.config.dispatch)):
            with contextlib.suppress(EngineStopping, Overloaded):  # it hears of them later
                self._parts.queue_inbox.tell(Arriving(arriving))
        return await created.wait()

    # -- driving tasks by hand ---------------------------------------------------------------

    async def dequeue(self, *, wait_s: float = 0.0, lease_s: float | None = None) -> Task:
        """Lease the next manual task; wait for one up to ``wait_s``. Raises ``QueueEmpty``."""
        with trio.move_on_after(wait_s if wait_s > 0 else math.inf):
            while True:
                question = partial(
                    Next, Lane.TAKE, lease_s=self._lease_s(lease_s), patient=wait_s > 0
                )
                try:
                    return await self._parts.queue_inbox.ask(question)
                except (ClaimLost, IllegalTransition, NotTakeable, TaskDamaged, TaskNotFound):
                    continue  # somebody changed the task just before we got it
        raise QueueEmpty

    async def dequeue_task(self, task_id: TaskId, *, lease_s: float | None = None) -> Task:
        """Lease this task. Raises ``TaskNotFound``, ``IllegalTransition``, ``NotTakeable``."""
        return await self._do(Take(task_id, self._lease_s(lease_s)))

    async def execute(self, task_id: TaskId) -> Task:
        """Have a Pending task run by the next free executor; returns at once.
        Raises ``TaskNotFound``, ``IllegalTransition``."""
        return await self._do(Execute(task_id))

    async def execute_and_wait(self, task_id: TaskId, wait_s: float) -> Task:
        """``execute``, then wait for the end, at most ``wait_s``; the task as it then is."""
        wanted = EventFilter(task_ids=frozenset({task_id}))
        async with self.watch(wanted, lasting=True) as watch:
            task = await self.execute(task_id)
            # That is durable: whatever happens now, the caller is told where the task is.
            with (
                trio.move_on_after(wait_s),
                contextlib.suppress(EngineStopping, StoreUnavailable, WatcherLagged),
            ):
                while (task := await self.get(task_id)).status not in ENDED:
                    await watch.receive()  # perhaps of what happened before
        with contextlib.suppress(StoreUnavailable):
            task = await self.get(task_id)
        return task

    async def release(self, task_id: TaskId) -> Task:
        """Give a Pending task back to the queue."""
        return await self._do(Release(task_id))

    async def cancel(
        self, task_id: TaskId, *, in_flight: bool = False, if_version: int | None = None
    ) -> Task:
        """Stop a task; a running one only with ``in_flight``, which cuts its call off.
        Raises ``TaskNotFound``, ``IllegalTransition``, ``VersionMismatch``."""
        return await self._do(Cancel(task_id, in_flight, if_version))

    async def retry(self, task_id: TaskId) -> Task:
        """Give a Failed task another round of attempts."""
        return await self._do(Retry(task_id))

    async def update(
        self, task_id: TaskId, changes: Mapping[str, Any], *, if_version: int | None = None
    ) -> Task:
        """Change fields (names of ``TaskSpec``) of a task that has not begun; those that decide
        where it waits cannot be changed. Raises ``InvalidTask``, ``TaskNotFound``,
        ``IllegalTransition``, ``VersionMismatch``."""
        # Here and not by the repository alone: nonsense must harm its caller, not an actor.
        changed = attrs.evolve(_SAMPLE, **changes)
        if problems := self._problems(changed):
            raise InvalidTask(problems)
        if fixed := [name for name in changes if name in _FIXED]:
            raise InvalidTask([((name,), "cannot be changed") for name in fixed])
        return await self._do(Update(task_id, copy.deepcopy(dict(changes)), if_version))

    async def redrive(self, query: TaskQuery, limit: int) -> list[TaskId]:
        """``retry`` for Failed tasks that match, newest first, at most ``limit``; tells which."""
        query = attrs.evolve(query, statuses=frozenset({Status.FAILED}), kept=Kept.LIVE)
        redriven = []
        for task in await self._parts.store.tasks(query, limit):
            try:
                redriven.append((await self.retry(task.id)).id)
            except (IllegalTransition, TaskDamaged, TaskNotFound):
                continue  # somebody else was faster
            except (Overloaded, StoreUnavailable):
                if not redriven:
                    raise
                break  # some were: that must be told
        return redriven

    # -- looking -----------------------------------------------------------------------------

    async def get(self, task_id: TaskId) -> Task:
        """The task, live or archived. Raises ``TaskNotFound``."""
        task = await self._parts.store.get(task_id)
        if task is None:
            raise TaskNotFound(task_id)
        return task

    async def list_tasks(self, query: TaskQuery, limit: int, offset: int = 0) -> list[Task]:
        """Matching tasks, newest first."""
        return await self._parts.store.tasks(query, limit, offset)

    async def count(self, query: TaskQuery) -> int:
        """How many tasks match."""
        if not query.by_status_only:
            return await self._parts.store.count(query)
        counts = await self._parts.store.counts()
        return sum(
            n
            for status, n in counts.items()
            if (not query.statuses or status in query.statuses)
            and (query.kept is Kept.ANYWHERE or (status in FINAL) == (query.kept is Kept.ARCHIVE))
        )

    async def attempts(self, task_id: TaskId) -> list[Attempt]:
        """The task's attempts. Raises ``TaskNotFound``."""
        found = await self._parts.store.attempts(task_id)
        if not found:
            await self.get(task_id)
        return found

    async def task_events(self, task_id: TaskId) -> list[Event]:
        """The task's history, as far as it is kept. Raises ``TaskNotFound``."""
        found = await self._parts.store.task_events(task_id)
        if not found:
            await self.get(task_id)
        return found

    async def explain(self, task_id: TaskId) -> Explanation:
        """Why the task is not running. Raises ``TaskNotFound``."""
        task = await self.get(task_id)
        key = task.spec.partition_key
        error = self._parts.repository.store_error
        around = Situation(
            now=self.now(),
            executors=self._parts.config.executors,
            executors_busy=self._parts.slots.busy,
            holder=await self._parts.store.partition_holder(key) if key is not None else None,
            hold=self._parts.queue.hold(queued_for(task)),
            stopping=self._stopping,
            store_error=None if error is None else str(error),
        )
        return explain(task, around)

    async def stats(self) -> Stats:
        """How the engine does."""
        parts = self._parts
        counts = await parts.store.counts()
        oldest = await parts.store.oldest_waiting()
        now = self.now()
        age: float | None = None
        if oldest is not None:
            age = max(0.0, (now - oldest.created_at).total_seconds())
        return Stats(
            at=now,
            counts=counts,
            queue_depth=counts.get(Status.QUEUED, 0),
            oldest_waiting_s=age,
            executors=parts.config.executors,
            executors_busy=parts.slots.busy,
            attempts=parts.tally.figures(),
            destinations=parts.queue.destinations(),
            late_results=parts.in_flight.late_results,
            commits=parts.repository.commits,
            watchers=len(parts.hub),
            newest_event=parts.hub.last_seq,
        )

    async def check_ready(self) -> None:
        """Return if the engine can work; raises ``EngineStopping`` or ``StoreUnavailable``."""
        await self._parts.store.event_range()
        if self._stopping:
            raise EngineStopping
        if self._parts.repository.store_error is not None:
            raise self._parts.repository.store_error

    async def check_cursor(self, after: int) -> None:
        """Return if a watch can resume after this event; raises ``CursorExpired``."""
        await check_cursor(self._parts.store, after)

    @asynccontextmanager
    async def watch(
        self,
        wanted: EventFilter | None = None,
        *,
        after: int | None = None,
        lasting: bool = False,
    ) -> AsyncIterator[Watch]:
        """A stream of events: everything after ``after``, or what happens from now on. It ends
        when the engine begins to stop; a ``lasting`` one goes on while running attempts end."""
        parts = self._parts
        watch = Watch(
            parts.hub,
            parts.store,
            wanted or EventFilter(),
            after,
            page_size=parts.config.event_page,
            lasting=lasting,
        )
        try:
            yield watch
        finally:
            watch.close()

    async def snapshot(self, query: TaskQuery, limit: int) -> tuple[int, list[Task]]:
        """Matching tasks and the event they are as of; ``watch(after=…)`` goes on from there."""
        return await self._parts.store.snapshot(query, limit)

    def now(self) -> datetime:
        """The engine's wall-clock time."""
        return self._parts.clock.now()

    # -- asking ------------------------------------------------------------------------------

    async def _do(self, command: Command[R]) -> R:
        question: Callable[[Reply[R]], RepositoryMessage]
        question = partial(Request, cast("AnyCommand", command))
        return await self._parts.repository_inbox.ask(question)

    def _problems(self, spec: TaskSpec) -> list[tuple[Path, str]]:
        found = spec.problems()
        if not found and (refusal := self._parts.egress.url_refusal(spec.callback_url)):
            found.append((("callback_url",), f"leads where callbacks may not go: {refusal}"))
        return found

    def _lease_s(self, lease_s: float | None) -> float:
        return self._parts.config.dequeue_lease_s if lease_s is None else lease_s
