"""What the queue actor and the store tell each other of waiting tasks.

Order. A task's effective priority is its priority plus the levels it has gained by waiting, one
level for every ``ageing_s``. As all waiting tasks gain at the same pace, their order never changes
while they wait, so it is one number fixed when the task becomes due (``rank_of``), and an index
over that number gives the store the same order.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import attrs

from .destination import destination_of
from .suspects import queued_for
from .task import Dispatch, Task, TaskId, TaskSpec


def rank_of(due_at: datetime, priority: int, ageing_s: float) -> int:
    """Order of a waiting task, smallest first: microseconds since 1970, minus what its priority
    is worth. Equal ranks go by id, that is, by age."""
    return int((due_at.timestamp() - priority * ageing_s) * 1_000_000)


@attrs.frozen
class Entry:
    """One waiting task, as the window knows it."""

    task_id: TaskId
    rank: int
    due_at: datetime
    destination: str  # as ``queued_for`` has it


def entry_of(task: Task) -> Entry:
    """A task's entry."""
    return Entry(task.id, task.rank, task.due_at, queued_for(task))


@attrs.frozen
class Arrival:
    """A task that is just being stored, and could run at once."""

    task_id: TaskId
    destination: str


def arrivals(tasks: Iterable[tuple[TaskId, TaskSpec]], default: Dispatch) -> tuple[Arrival, ...]:
    """Those of these new tasks that have to wait for nothing but an executor, as far as their
    descriptions say. ``default`` is the dispatch of those that name none."""
    return tuple(
        Arrival(task_id, destination_of(spec.callback_url))
        for task_id, spec in tasks
        if (spec.dispatch or default) is Dispatch.AUTO
        and spec.run_at is None
        and spec.delay_s is None
        and spec.partition_key is None  # it may be held
    )


@attrs.frozen
class Page:
    """What a lane's waiting tasks begin with in the store. ``complete``: there are no others."""

    ready: tuple[Entry, ...]
    ready_complete: bool
    scheduled: tuple[Entry, ...]
    scheduled_complete: bool


@attrs.frozen
class Side:
    """What the ready tasks of one destination begin with."""

    destination: str
    ready: tuple[Entry, ...]
    complete: bool


@attrs.frozen
class Reading:
    """What was read of a lane. No page: it was not asked for."""

    page: Page | None
    sides: tuple[Side, ...] = ()


@attrs.frozen
class Wanted:
    """What should be read of a lane: its page (``without`` what goes to these destinations), and
    sides."""

    page: bool
    without: tuple[str, ...] = ()
    sides: tuple[str, ...] = ()

    def shows(self, destination: str) -> bool:
        """Whether every task that goes there and was scheduled before will be found in what is
        read, be it still scheduled or ready."""
        return self.page and (destination in self.sides or destination not in self.without)
