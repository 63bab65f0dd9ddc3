"""What is known of the database's contents without asking: what was last written and read."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from engine.core.task import Status, Task, TaskId, TaskSpec

TASKS_MAX = 5_000
BYTES_MAX = 4 * 2**20  # of the specs' texts and of what callbacks answered
"""How much is remembered of live tasks; the oldest knowledge goes first. A payload that has been
read may take many times what its text does, so there are not many of these bytes."""


class Known:
    """Belongs to the writer alone. Whoever writes keeps it true while the transaction runs; if that
    is undone, or nobody knows whether it is, ``clear`` makes it true again.

    A store that others write to as well has a new one for every transaction.
    """

    def __init__(self, tasks_max: int = TASKS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self.counts: dict[Status, int] | None = None
        self.last_seq: int | None = None
        self._tasks: dict[TaskId, tuple[Task, str, int]] = {}  # the last is their size
        self._tasks_max = tasks_max
        self._bytes_max = bytes_max
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Known {len(self._tasks)} tasks, {self._bytes} bytes>"

    def clear(self) -> None:
        """Nothing is known any more."""
        self.counts = self.last_seq = None
        self._tasks.clear()
        self._bytes = 0

    def task(self, task_id: TaskId) -> Task | None:
        """A live task, if it is known."""
        found = self._tasks.get(task_id)
        return None if found is None else found[0]

    def text(self, task_id: TaskId, spec: TaskSpec) -> str | None:
        """This spec's text, if it is the one the database has. Records are copied when they change,
        so a spec that did not change is the same object."""
        found = self._tasks.get(task_id)
        return None if found is None or found[0].spec is not spec else found[1]

    def note(self, task: Task, text: str) -> None:
        """This is how a live task is stored."""
        self.forget(task.id)
        size = sys.getsizeof(text)
        if task.result is not None:
            size += sys.getsizeof(task.result.body)
        self._tasks[task.id] = (task, text, size)
        self._bytes += size
        while len(self._tasks) > self._tasks_max or self._bytes > self._bytes_max:
            self.forget(next(iter(self._tasks)))

    def forget(self, task_id: TaskId) -> None:
        """The task is no longer what was known, or no longer live."""
        gone = self._tasks.pop(task_id, None)
        if gone is not None:
            self._bytes -= gone[2]

    def add_to_counts(self, deltas: Mapping[Status, int]) -> None:
        """The counters have been changed."""
        if self.counts is not None:
            for status, more in deltas.items():
                self.counts[status] = self.counts.get(status, 0) + more
