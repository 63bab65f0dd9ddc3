"""Every error the engine raises on purpose.

EngineError
├── InvalidTask            the description of a task breaks a rule; names every field
├── TaskNotFound           no live or archived task has this id
├── IllegalTransition      the task's status does not allow this; names what it allows
├── NotTakeable            it waits, but not for a client: scheduled, blocked or automatic
├── VersionMismatch        the task has changed since the caller read it
├── QueueEmpty             nothing is waiting that a client may take
├── ClaimLost              somebody else took or changed the task first
├── IdempotencyConflict    the key was used before with another body
├── CursorExpired          no resuming from there: the events are gone, or never were
├── WatcherLagged          a watcher did not keep up and was dropped
├── Overloaded             no room now: nothing was accepted, try again later
│   └── EngineStopping     the engine takes no new work
└── StoreError             trouble below the engine
    ├── StoreUnavailable   the store cannot answer now; may pass
    │   └── StoreFull      no space left on the store's device
    ├── StoreConflict      a row changed underneath; the transaction was undone
    ├── StoreRejected      the store refuses these values for ever
    ├── StoreLocked        another process owns this database
    └── StoreDamaged       the file is not a database, or a damaged one
        ├── StoreIncomplete  it holds less than it is known to have held
        └── TaskDamaged      what is stored of one task is not what was written
"""

from __future__ import annotations

from collections.abc import Sequence


class EngineError(Exception):
    """Root of all errors the engine raises on purpose."""


class InvalidTask(EngineError):
    """A task's description breaks a rule.

    ``problems`` holds one ``(path, detail)`` pair for every broken rule; a path is a tuple of
    attribute names, keys and indexes, empty for the whole.
    """

    def __init__(self, problems: Sequence[tuple[tuple[str | int, ...], str]]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "; ".join(
                f"{'.'.join(map(str, path)) or 'task'}: {detail}" for path, detail in problems
            )
        )


class TaskNotFound(EngineError):
    """No live or archived task has this id."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        super().__init__(f"no task has the id {task_id}")


class IllegalTransition(EngineError):
    """The task's status does not allow what was asked; nothing has changed."""

    def __init__(self, task_id: str, status: str, event: str, allowed: Sequence[str]) -> None:
        self.task_id = task_id
        self.status = status
        self.event = event
        self.allowed = tuple(allowed)
        may = ", ".join(allowed) if allowed else "nothing, it has ended"
        super().__init__(f"task {task_id} is {status}: cannot {event}; allowed now: {may}")


class NotTakeable(EngineError):
    """The task waits, but not for a client to dequeue it; ``why`` says for what."""

    def __init__(self, task_id: str, why: str) -> None:
        self.task_id = task_id
        self.why = why
        super().__init__(f"task {task_id} cannot be dequeued: {why}")


class VersionMismatch(EngineError):
    """The task has changed since the caller read it; nothing has changed now."""

    def __init__(self, task_id: str, expected: int, actual: int) -> None:
        self.task_id = task_id
        self.expected = expected
        self.actual = actual
        super().__init__(f"task {task_id} has version {actual}, not {expected}: read it again")


class QueueEmpty(EngineError):
    """Nothing is waiting that a client may take."""

    def __init__(self) -> None:
        super().__init__("no task is waiting to be dequeued")


class ClaimLost(EngineError):
    """Somebody else took, changed or cancelled the task first."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        super().__init__(f"task {task_id} was taken or changed by somebody else")


class IdempotencyConflict(EngineError):
    """The idempotency key was used before with another body."""

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used with a different request body")


class CursorExpired(EngineError):
    """Nothing can be resumed from there: what followed is gone, or was never written."""

    def __init__(self, after: int, oldest: int, newest: int) -> None:
        self.after = after
        self.oldest = oldest
        self.newest = newest
        lost = f"events after {after} are gone; the oldest kept is {oldest}"
        unknown = f"there is no event {after} yet; the newest is {newest}"
        super().__init__(unknown if after > newest else lost)


class WatcherLagged(EngineError):
    """The watcher did not keep up; resume after ``last_seq``."""

    def __init__(self, last_seq: int) -> None:
        self.last_seq = last_seq
        super().__init__(f"too slow: resume after event {last_seq}")


class Overloaded(EngineError):
    """There is no room now. Nothing was accepted; try again after ``retry_after_s``."""

    def __init__(self, what: str, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"{what}: try again in {retry_after_s:g} s")


class EngineStopping(Overloaded):
    """The engine is stopping and takes no new work."""

    def __init__(self) -> None:
        super().__init__("the engine is stopping", 5.0)


class StoreError(EngineError):
    """Trouble below the engine."""


class StoreUnavailable(StoreError):
    """The store cannot answer now; nothing of the transaction is kept."""


class StoreFull(StoreUnavailable):
    """No space is left on the store's device."""


class StoreConflict(StoreError):
    """A row changed underneath; the transaction was undone and may be repeated."""


class StoreRejected(StoreError):
    """The store will never take these values."""


class StoreLocked(StoreError):
    """Another process owns this database."""


class StoreDamaged(StoreError):
    """The file is not a database, or a damaged one."""


class StoreIncomplete(StoreDamaged):
    """The file holds less than it is known to have held, or is another one."""


class TaskDamaged(StoreDamaged):
    """What is stored of this task is not what was written. It does not run; others do."""

    def __init__(self, task_id: str, why: str) -> None:
        self.task_id = task_id
        super().__init__(why)
