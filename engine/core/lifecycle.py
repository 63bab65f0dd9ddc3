"""The life of a task, as a table.

Every status has a row; a final one has an empty row. Enforcement, error texts, the diagram in the
README and the tests all read this table, so a rule cannot be changed in one place only.

Why the rows are what they are:

* ``Pending`` is a lease, not a removal: a client that took a task and vanished loses it by time,
  so nothing is lost between "taken from the queue" and "stored for execution".
* ``Processing`` never goes back to ``Queued``. A callback may already have happened, so what
  follows is a *next attempt* (``Retrying``), with a higher attempt number.
* ``Failed`` means given up. It is not final: a person may ask for another round (``retry``).
* ``Completed`` and ``Cancelled`` are final, and move to the archive in the same transaction.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from engine.errors import IllegalTransition

from .task import Status, Task


class Trigger(enum.StrEnum):
    """What makes a task change its status."""

    DEQUEUE = "dequeue"
    EXECUTE = "execute"
    RELEASE = "release"
    LEASE_EXPIRED = "expire its lease"
    SUCCEED = "succeed"
    FAIL_FOR_NOW = "fail for now"
    GIVE_UP = "give up"
    LOSE = "lose its node"
    CANCEL = "cancel"
    EXPIRE = "pass its deadline"
    RETRY = "retry"


TRANSITIONS: Mapping[Status, Mapping[Trigger, Status]] = MappingProxyType(
    {
        Status.QUEUED: {
            Trigger.DEQUEUE: Status.PENDING,
            Trigger.CANCEL: Status.CANCELLED,
            Trigger.EXPIRE: Status.FAILED,
        },
        Status.PENDING: {
            Trigger.EXECUTE: Status.PROCESSING,
            Trigger.RELEASE: Status.QUEUED,
            Trigger.LEASE_EXPIRED: Status.QUEUED,
            Trigger.CANCEL: Status.CANCELLED,
        },
        Status.PROCESSING: {
            Trigger.SUCCEED: Status.COMPLETED,
            Trigger.FAIL_FOR_NOW: Status.RETRYING,
            Trigger.GIVE_UP: Status.FAILED,
            Trigger.LOSE: Status.RETRYING,
            Trigger.CANCEL: Status.CANCELLED,
        },
        Status.RETRYING: {
            Trigger.EXECUTE: Status.PROCESSING,
            Trigger.CANCEL: Status.CANCELLED,
            Trigger.EXPIRE: Status.FAILED,
        },
        Status.COMPLETED: {},
        Status.FAILED: {Trigger.RETRY: Status.RETRYING},
        Status.CANCELLED: {},
    }
)

FINAL = frozenset(status for status, row in TRANSITIONS.items() if not row)
"""Statuses without a way out; such tasks live in the archive."""

ENDED = FINAL | {Status.FAILED}
"""Statuses in which nothing more happens by itself."""

WAITING = frozenset({Status.QUEUED, Status.RETRYING})
"""Statuses in which the clock alone makes a task due, or late."""


def advance(task: Task, trigger: Trigger) -> Status:
    """The status that follows; raises ``IllegalTransition`` if the table has none."""
    row = TRANSITIONS[task.status]
    if trigger not in row:
        raise IllegalTransition(task.id, task.status, trigger, list(row))
    return row[trigger]


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    edges: dict[tuple[Status, Status], list[str]] = {}
    for status, row in TRANSITIONS.items():
        for trigger, target in row.items():
            edges.setdefault((status, target), []).append(trigger)
    lines = ["stateDiagram-v2", "    [*] --> Queued: create"]
    lines += [f"    {a} --> {b}: {', '.join(names)}" for (a, b), names in edges.items()]
    lines += [f"    {status} --> [*]" for status in TRANSITIONS if status in FINAL]
    return "\n".join(lines)
