"""Virtual clients: they create tasks and drive them, go away in the middle, and note every call.

As in Jepsen's histories each call has one end: *ok* (it was done), *fail* (it certainly was not) or
*info* (nobody can know: the connection broke, or the store could not tell).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import attrs
import trio

from engine.core.commands import Created, IdempotencyKey
from engine.core.queries import TaskQuery
from engine.core.task import Dispatch, Method, RetryPolicy, Status, TaskId, TaskSpec
from engine.errors import (
    EngineError,
    IdempotencyConflict,
    IllegalTransition,
    InvalidTask,
    QueueEmpty,
    StoreError,
    TaskNotFound,
)
from engine.service import Engine

from .goals import Goals
from .invariants import Books, Breach, Life
from .network import Network

R = TypeVar("R")
Op = Callable[[Engine], Awaitable[R]]

KEYS: Final = ("blue", "green")
_DOWN_S: Final = 0.5  # before a server that is down is called again


@attrs.frozen
class Ok:
    """It was done."""

    value: Any


@attrs.frozen
class Fail:
    """It was not done."""

    error: Exception | None


@attrs.frozen
class Info:
    """Nobody can know."""


End = Ok | Fail | Info


class Surroundings(Protocol):
    """What clients need of the world."""

    books: Books
    goals: Goals
    network: Network
    length_s: float

    async def call(self, who: str, what: str, op: Op[Any]) -> End:
        """Make a call as a client does, perhaps going away in the middle of it."""
        ...

    def note_spec(self, spec: TaskSpec) -> None:
        """A task that a client is about to create."""
        ...

    def breach(self, text: str) -> None:
        """Something was seen that must never be."""
        ...

    def now(self) -> Any:
        """The wall clock's time."""
        ...

    @property
    def over(self) -> bool:
        """Whether clients are to stop."""
        ...


class Clients:
    """All clients of a run."""

    def __init__(self, seed: int, world: Surroundings) -> None:
        self._world = world
        self._rng = random.Random(f"{seed}:clients")
        self._created = 0
        rng = self._rng
        self.tasks = rng.choice([3, 5, 8, 15, 30])
        self._auto = rng.choice([0.3, 0.7, 1.0])
        self._keyed = rng.choice([0.0, 0.2, 0.8])
        self._later = rng.choice([0.0, 0.3])
        self._poisonous = rng.random() < 0.3
        self.creators, self.workers, self.meddlers = (rng.randint(1, 2) for _ in range(3))
        self._meddling_s = world.length_s / rng.choice([3, 8, 20])

    def __repr__(self) -> str:
        return f"<Clients who want {self.tasks} tasks>"

    # -- creating ----------------------------------------------------------------------------

    async def create(self, number: int) -> None:
        """Create a share of the tasks, over most of the run."""
        rng = random.Random(self._rng.random())
        share = self.tasks // self.creators
        burst = rng.random() < 0.4
        while share > 0 and not self._world.over:
            if not burst or rng.random() < 0.2:
                await trio.sleep(rng.expovariate(self.tasks / self._world.length_s / 0.7))
            size = min(share, rng.choice([1, 1, 1, 2, 5]))
            share -= size
            await self._create_some(rng, f"creator {number}", size)

    async def _create_some(self, rng: random.Random, who: str, size: int) -> None:
        world = self._world
        specs = [self._a_spec(rng) for _ in range(size)]
        for spec in specs:
            world.note_spec(spec)
        key = None
        if rng.random() < 0.5:
            key = IdempotencyKey(f"key of {specs[0].name}", "this body")
        heard = False
        for _ in range(6):
            end = await world.call(who, f"create {size}", lambda e: e.submit(specs, key=key))
            if isinstance(end, Ok):
                self._accepted(end.value, specs, repeated=heard)
                if key is not None and rng.random() < 0.3:
                    await self._use_again(who, specs, key, end.value)
                return
            if isinstance(end, Info):
                if key is None:
                    return
                heard = True
            elif isinstance(end.error, InvalidTask | IdempotencyConflict):
                world.breach(f"a good create was refused: {end.error}")
                return
            await trio.sleep(rng.uniform(0.1, 5.0))

    def _accepted(self, created: Created, specs: list[TaskSpec], *, repeated: bool) -> None:
        world = self._world
        ids = [receipt.task_id for receipt in created.receipts]
        world.books.was_accepted(ids)
        names = [world.books.lives[task_id].row.name for task_id in ids]
        if names != [spec.name for spec in specs]:
            raise Breach(f"a create of {[spec.name for spec in specs]} was answered with {names}")
        if len(ids) > 1:
            world.goals.reach("two tasks of a batch are accepted")
        if created.replayed and repeated:
            world.goals.reach("a client's lost create is repeated with its key")

    async def _use_again(
        self, who: str, specs: list[TaskSpec], key: IdempotencyKey, first: Created
    ) -> None:
        """The same key with the same body gives the same answer, with another it is refused."""
        world = self._world
        end = await world.call(who, "create again", lambda e: e.submit(specs, key=key))
        if isinstance(end, Ok) and end.value != attrs.evolve(first, replayed=True):
            raise Breach(f"a key gave {first}, then {end.value}")
        other = attrs.evolve(key, fingerprint="another body")
        end = await world.call(who, "create other", lambda e: e.submit(specs, key=other))
        if isinstance(end, Ok):
            raise Breach("a key was taken with another body")
        if isinstance(end, Fail) and isinstance(end.error, IdempotencyConflict):
            world.goals.reach("a key is refused for another body")

    def _a_spec(self, rng: random.Random) -> TaskSpec:
        world = self._world
        self._created += 1
        name = f"task {self._created}"
        if self._poisonous and self._created == 3:
            name = f"poison {self._created}"
        callee = rng.choice(list(world.network.callees.values()))
        host = callee.host if rng.random() < 0.9 else callee.addresses[0]
        length_s = world.length_s
        later = rng.choice(["at", "in"]) if rng.random() < self._later else None
        moment = world.now() + timedelta(seconds=rng.uniform(0, length_s / 2))
        return TaskSpec(
            name=name,
            callback_url=f"http://{host}/hook",
            payload={"text": "x" * rng.choice([1, 1, 1, 20_000])},
            priority=rng.choice([0, 0, 0, 5, -5]),
            dispatch=Dispatch.AUTO if rng.random() < self._auto else Dispatch.MANUAL,
            run_at=moment if later == "at" else None,
            delay_s=rng.uniform(0, length_s / 2) if later == "in" else None,
            deadline=moment if rng.random() < 0.1 else None,
            timeout_s=rng.choice([1.0, 5.0, 10.0]),
            retry_policy=RetryPolicy(
                max_attempts=rng.randint(1, 5),
                initial_interval_s=rng.choice([0.0, 0.3, 2.0, 10.0]),
                max_interval_s=rng.choice([0.3, 5.0, 30.0]),
                multiplier=rng.choice([1.0, 2.0]),
                jitter=rng.random() < 0.5,
            ),
            method=rng.choice([Method.POST, Method.POST, Method.GET]),
            partition_key=rng.choice(KEYS) if rng.random() < self._keyed else None,
        )

    # -- driving by hand ---------------------------------------------------------------------

    async def work(self, number: int) -> None:
        """Take tasks and have them run; now and then do something else with them, or nothing."""
        rng = random.Random(self._rng.random())
        who = f"worker {number}"
        while not self._world.over:
            await trio.sleep(rng.expovariate(12 / self._world.length_s))
            wait_s, lease_s = rng.choice([0.0, 5.0, 30.0]), rng.choice([None, 1.0, 20.0])
            dequeue = partial(Engine.dequeue, wait_s=wait_s, lease_s=lease_s)
            end = await self._world.call(who, "dequeue", dequeue)
            if isinstance(end, Ok):
                self._world.books.was_leased(end.value)
                await self._deal_with(rng, who, end.value.id)

    async def _deal_with(self, rng: random.Random, who: str, task_id: TaskId) -> None:
        world = self._world
        await trio.sleep(rng.choice([0.0, 0.0, 0.5, 10.0]))
        choice = rng.random()
        if choice < 0.6:
            await world.call(who, "execute", lambda e: e.execute(task_id))
        elif choice < 0.8:
            wait_s = rng.choice([1.0, 30.0])
            await world.call(who, "execute and wait", lambda e: e.execute_and_wait(task_id, wait_s))
        elif choice < 0.9:
            await world.call(who, "release", lambda e: e.release(task_id))

    async def drive(self) -> None:
        """Take and execute everything that waits for a client, without any whims."""
        while not self._world.over:
            end = await self._world.call("driver", "dequeue", lambda e: e.dequeue(wait_s=120.0))
            if isinstance(end, Ok):
                self._world.books.was_leased(end.value)
                task_id = end.value.id
                execute = partial(Engine.execute, task_id=task_id)
                await self._world.call("driver", "execute", execute)
            elif not (isinstance(end, Fail) and isinstance(end.error, QueueEmpty)):
                await trio.sleep(_DOWN_S)

    # -- meddling ----------------------------------------------------------------------------

    async def meddle(self, number: int) -> None:
        """Cancel, retry, change, look at and redrive whatever there is."""
        rng = random.Random(self._rng.random())
        who = f"meddler {number}"
        while not self._world.over:
            await trio.sleep(rng.expovariate(1 / self._meddling_s))
            for _ in range(rng.choice([1, 1, 3])):
                await self._meddle_once(rng, who)

    async def _meddle_once(self, rng: random.Random, who: str) -> None:
        world = self._world
        lives = [life for life in world.books.lives.values() if not life.gone]
        if not lives:
            return
        running = [life for life in lives if life.status == "Processing"]
        life = rng.choice(running if running and rng.random() < 0.5 else lives)
        task_id, version = life.row.id, life.row.version
        choice = rng.random()
        if choice < 0.3:
            await self._cancel(rng, who, task_id)
        elif choice < 0.5:
            await self._retry(who, task_id)
        elif choice < 0.6:
            await world.call(who, "redrive", lambda e: e.redrive(TaskQuery(), 10))
        elif choice < 0.7:
            changes = {"priority": rng.randint(-9, 9)}
            await world.call(who, "update", lambda e: e.update(task_id, changes))
        elif choice < 0.75:
            end = await world.call(who, "dequeue task", lambda e: e.dequeue_task(task_id))
            if isinstance(end, Ok):
                world.books.was_leased(end.value)
        elif choice < 0.8:
            await world.call(who, "execute", lambda e: e.execute(task_id))
        else:
            end = await world.call(who, "get", lambda e: e.get(task_id))
            if isinstance(end, Ok):
                world.books.was_shown(end.value, version)
            elif isinstance(end, Fail) and isinstance(end.error, TaskNotFound):
                self._check_gone(life, end.error)

    def _check_gone(self, life: Life, error: EngineError) -> None:
        if not life.gone:
            raise Breach(f"task {life.row.id} cannot be found: {error!r}")

    async def _cancel(self, rng: random.Random, who: str, task_id: TaskId) -> None:
        world = self._world
        in_flight = rng.random() < 0.7
        for _ in range(rng.choice([1, 3])):
            end = await world.call(
                who, f"cancel {task_id}", lambda e: e.cancel(task_id, in_flight=in_flight)
            )
            if isinstance(end, Ok):
                world.books.was_cancelled(task_id)
                return
            if isinstance(end, Fail) and isinstance(end.error, IllegalTransition):
                if end.error.status == Status.COMPLETED and in_flight:
                    world.goals.reach("a cancel loses against the result")
                return
            await trio.sleep(0.1)

    async def _retry(self, who: str, task_id: TaskId) -> None:
        world = self._world
        failed = [life for life in world.books.lives.values() if life.status == "Failed"]
        if failed:
            task_id = failed[-1].row.id
        await world.call(who, f"retry {task_id}", lambda e: e.retry(task_id))


def is_unknown(error: EngineError) -> bool:
    """Whether a call that ended like this may have been done: the store could not tell."""
    return isinstance(error, StoreError)
