"""What the repository actor can be asked to do. Each command is one indivisible change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar

import attrs

from .entries import Reading
from .outcome import Answer
from .task import ErrorClass, Lane, Task, TaskId, TaskSpec

R = TypeVar("R")


class Command(Generic[R]):
    """A change with a result of type ``R``; refused ones raise an ``EngineError``."""

    __slots__ = ()


@attrs.frozen
class IdempotencyKey:
    """A client's key (hashed with its scope) and the fingerprint of what it was sent with."""

    hash: str
    fingerprint: str


@attrs.frozen
class Receipt:
    """Proof that a task was accepted."""

    task_id: TaskId
    created_at: datetime


@attrs.frozen
class StoredAnswer:
    """The answer a key was given, for replay."""

    key: IdempotencyKey
    receipts: tuple[Receipt, ...]
    created_at: datetime


@attrs.frozen
class Created:
    """Accepted tasks, in the order given. ``replayed``: by an earlier request with this key."""

    receipts: tuple[Receipt, ...]
    replayed: bool = False


@attrs.frozen
class Create(Command[Created]):
    """Accept tasks: all or none."""

    tasks: tuple[tuple[TaskId, TaskSpec], ...]
    key: IdempotencyKey | None = None


@attrs.frozen
class Take(Command[Task]):
    """Lease a waiting task to a client: Queued → Pending."""

    task_id: TaskId
    lease_s: float


@attrs.frozen
class Execute(Command[Task]):
    """Have a Pending task run by the next free executor."""

    task_id: TaskId


@attrs.frozen
class Claim(Command[Task]):
    """Lease a waiting task to an executor: → Processing, with the next attempt number."""

    task_id: TaskId
    owner: str


@attrs.frozen(kw_only=True)
class Finish(Command[Task]):
    """Record an attempt and what follows from it. A late or foreign result changes nothing."""

    task_id: TaskId
    owner: str
    attempt: int
    answer: Answer
    started_at: datetime
    duration_s: float
    jitter: float


def never_began(task: Task, owner: str) -> Finish:
    """Gives a claimed task back that nobody will run."""
    return Finish(
        task_id=task.id,
        owner=owner,
        attempt=task.attempt,
        answer=Answer(error_class=ErrorClass.INTERRUPTED, error="it never began"),
        started_at=task.updated_at,
        duration_s=0.0,
        jitter=0.0,
    )


@attrs.frozen
class Release(Command[Task]):
    """Give a Pending task back: → Queued."""

    task_id: TaskId


@attrs.frozen
class Cancel(Command[Task]):
    """Stop a task. A running one only if ``in_flight`` says so."""

    task_id: TaskId
    in_flight: bool = False
    if_version: int | None = None


@attrs.frozen
class Retry(Command[Task]):
    """Give a Failed task another round of attempts."""

    task_id: TaskId


@attrs.frozen
class Update(Command[Task]):
    """Change fields of a task that has not begun. ``changes`` maps names of ``TaskSpec``."""

    task_id: TaskId
    changes: Mapping[str, Any]
    if_version: int | None = None


@attrs.frozen
class Sweep(Command[int]):
    """End leases and deadlines that have passed, at most ``limit``; tells how many. The leases of
    attempts that are ``in_flight`` here are renewed instead: they end, or their result is about
    to be stored."""

    limit: int
    in_flight: frozenset[TaskId] = frozenset()


@attrs.frozen
class Recover(Command[int]):
    """Give back what other owners left Processing, at most ``limit``; tells how many. Only for
    a store that this process owns alone."""

    owner: str
    limit: int


@attrs.frozen
class Refill(Command[Reading]):
    """Read the head of a lane: ``limit`` ready and ``limit`` scheduled tasks, unless ``page`` says
    no. Ready ones ``without`` what goes to these destinations; and in any case the first
    ``side_limit`` ready ones of each of the destinations ``sides``."""

    lane: Lane
    limit: int
    page: bool = True
    without: tuple[str, ...] = ()
    sides: tuple[str, ...] = ()
    side_limit: int = 0


@attrs.frozen
class Prune(Command[int]):
    """Remove records older than what is kept, at most ``limit`` of each kind; tells how many."""

    limit: int


AnyCommand: TypeAlias = (
    Create
    | Take
    | Execute
    | Claim
    | Finish
    | Release
    | Cancel
    | Retry
    | Update
    | Sweep
    | Recover
    | Refill
    | Prune
)
