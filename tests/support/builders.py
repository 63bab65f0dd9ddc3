"""Records with sensible fields, for tests that care about one or two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import attrs

from engine.config import EngineConfig
from engine.core.batch import Batch, Records, WriteSet
from engine.core.changes import Changes
from engine.core.commands import AnyCommand, Create, Finish, IdempotencyKey, Receipt, StoredAnswer
from engine.core.entries import rank_of
from engine.core.outcome import Answer
from engine.core.task import (
    Attempt,
    CallbackResult,
    Dispatch,
    Event,
    Lane,
    Status,
    Task,
    TaskId,
    TaskSpec,
    Wait,
)
from engine.errors import EngineError, StoreError
from engine.ports.store import Store

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
CONFIG = EngineConfig()


def at(seconds: float) -> datetime:
    """So long after ``NOW``."""
    return NOW + timedelta(seconds=seconds)


def an_id(n: int = 1) -> TaskId:
    """The n-th id: a greater number is a younger task."""
    return str(UUID(int=(n << 80) | (7 << 76) | (2 << 62) | n))


def number(task_id: TaskId) -> int:
    """The n of ``an_id(n)``."""
    return UUID(task_id).int >> 80


def a_spec(**fields: Any) -> TaskSpec:
    """A spec that executors run."""
    return TaskSpec(
        **{
            "name": "invoice",
            "callback_url": "http://127.0.0.1:9/hook",
            "dispatch": Dispatch.AUTO,
            **fields,
        }
    )


def a_task(n: int = 1, **fields: Any) -> Task:
    """The n-th task: Queued and ready, or as its fields say. Fields of the spec are taken too."""
    described = {field.name for field in attrs.fields(TaskSpec)} & fields.keys()
    spec = a_spec(**{name: fields.pop(name) for name in described})
    due_at = fields.get("due_at", NOW)
    waits = fields.get("status", Status.QUEUED) in (Status.QUEUED, Status.RETRYING)
    defaults = {
        "id": an_id(n),
        "spec": spec,
        "status": Status.QUEUED,
        "version": 1,
        "created_at": NOW,
        "updated_at": NOW,
        "due_at": due_at,
        "rank": rank_of(due_at, spec.priority, CONFIG.ageing_s),
        "lane": Lane.RUN if waits else None,
        "wait": Wait.READY if waits else None,
    }
    return Task(**{**defaults, **fields})


def an_event(task: Task, **fields: Any) -> Event:
    """The event of a task that has come to its status."""
    defaults = {
        "at": NOW,
        "task_id": task.id,
        "name": task.spec.name,
        "from_status": None,
        "to_status": task.status,
        "attempt": task.attempt,
    }
    return Event(**{**defaults, **fields})


def an_attempt(task_id: TaskId, number: int = 1, **fields: Any) -> Attempt:
    """A successful attempt."""
    defaults = {
        "task_id": task_id,
        "number": number,
        "started_at": NOW,
        "finished_at": at(0.25),
        "duration_s": 0.25,
        "method": "POST",
        "url": "http://127.0.0.1:9/hook",
        "counted": True,
        "result": CallbackResult(status_code=200, body="fine"),
    }
    return Attempt(**{**defaults, **fields})


def an_answer(key: str = "key", created_at: datetime = NOW) -> StoredAnswer:
    """What a client's key was answered."""
    receipts = (Receipt(an_id(1), created_at), Receipt(an_id(2), created_at))
    return StoredAnswer(IdempotencyKey(key, f"print of {key}"), receipts, created_at)


def creating(*numbers: int, key: IdempotencyKey | None = None, **fields: Any) -> Create:
    """The command that accepts these tasks, all with the same spec."""
    return Create(tuple((an_id(n), a_spec(**fields)) for n in numbers), key)


def finishing(task: Task, status_code: int = 200, **fields: Any) -> Finish:
    """The command that ends a task's attempt with this answer."""
    defaults = {
        "task_id": task.id,
        "owner": task.owner,
        "attempt": task.attempt,
        "answer": Answer(status_code=status_code, body=b"said"),
        "started_at": NOW,
        "duration_s": 0.5,
        "jitter": 0.5,
    }
    return Finish(**{**defaults, **fields})


def applying(
    commands: Sequence[AnyCommand], now: datetime = NOW, config: EngineConfig = CONFIG
) -> Callable[[Records], list[Any]]:
    """Work for ``transact``: each command's result, or the error that refuses it."""

    def work(records: Records) -> list[Any]:
        batch = Batch(records)
        changes = Changes(batch, config, now)
        results: list[Any] = []
        for command in commands:
            try:
                results.append(changes.apply(command))
            except StoreError:
                raise
            except EngineError as refused:
                results.append(refused)
        batch.flush()
        return results

    return work


async def commit(
    store: Store, *commands: AnyCommand, now: datetime = NOW, config: EngineConfig = CONFIG
) -> list[Any]:
    """Apply commands in one transaction."""
    return await store.transact(applying(commands, now, config))


async def write(store: Store, **changes: Any) -> int:
    """One ``WriteSet`` in a transaction of its own."""
    return await store.transact(lambda records: records.write(WriteSet(**changes)))
