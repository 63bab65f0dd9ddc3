"""The queue actor's memory: which waiting task is next.

The store holds every waiting task; a ``Backlog`` holds a bounded *window* of one lane: the first
few thousand that are ready, and the first few thousand that become ready by time. It never grows
with the queue, and it may forget: what it does not hold is read again from the store.

Order. A task's effective priority is its priority plus the levels it has gained by waiting, one
level for every ``ageing_s``. As all waiting tasks gain at the same pace, their order never changes
while they wait, so it is one number fixed when the task becomes due (``rank_of``), and an index
over that number gives the store the same order.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import attrs
from sortedcontainers import SortedList

from .task import TaskId


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


@attrs.frozen
class Page:
    """What a lane's waiting tasks begin with in the store. ``complete``: there are no others."""

    ready: tuple[Entry, ...]
    ready_complete: bool
    scheduled: tuple[Entry, ...]
    scheduled_complete: bool


class _Window:
    """The first entries of one order, at most ``size``. While it is not ``complete`` the store
    may hold more, but none that comes before the last entry held here."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._order: SortedList[tuple[float, int, TaskId]] = SortedList()
        self.complete = False

    def __len__(self) -> int:
        return len(self._order)

    def first(self) -> tuple[float, int, TaskId] | None:
        return self._order[0] if self._order else None

    def add(self, key: tuple[float, int, TaskId]) -> TaskId | None:
        """Take the key in if it belongs here; returns the id that must be forgotten, if any."""
        if not self.complete and (not self._order or key > self._order[-1]):
            return key[2]
        self._order.add(key)
        if len(self._order) <= self._size:
            return None
        self.complete = False
        last: tuple[float, int, TaskId] = self._order.pop()
        return last[2]

    def discard(self, key: tuple[float, int, TaskId]) -> None:
        self._order.discard(key)

    def replace(self, keys: Iterable[tuple[float, int, TaskId]], *, complete: bool) -> None:
        self._order = SortedList(keys)
        self.complete = complete

    @property
    def low(self) -> bool:
        return not self.complete and len(self._order) <= self._size // 4


class Backlog:
    """The window of one lane. Pure: the time is an argument."""

    def __init__(self, size: int) -> None:
        self._ready = _Window(size)
        self._scheduled = _Window(size)
        self._entries: dict[TaskId, Entry] = {}
        self._gone: set[TaskId] | None = None  # ids that left while a refill is under way
        self._late: dict[TaskId, Entry] = {}  # offers that came while a refill is under way
        self._missed = False  # whether the store has changed in ways nobody has told of

    def __repr__(self) -> str:
        known = self._ready.complete and self._scheduled.complete and not self._missed
        more = "" if known else ", more in store"
        return f"<Backlog ready {len(self._ready)}, scheduled {len(self._scheduled)}{more}>"

    def __len__(self) -> int:
        return len(self._entries)

    def offer(self, entry: Entry, now: datetime) -> None:
        """A task waits, or waits differently than before."""
        self._drop(entry.task_id)
        if self._gone is not None:
            self._gone.discard(entry.task_id)
            self._late[entry.task_id] = entry
        self._add(entry, now)

    def remove(self, task_id: TaskId) -> None:
        """A task waits no longer."""
        self._drop(task_id)
        if self._gone is not None:
            self._gone.add(task_id)
            self._late.pop(task_id, None)

    def pick(self, now: datetime) -> TaskId | None:
        """The next ready task, which leaves the window; ``None`` if none is known."""
        self._promote(now)
        first = self._ready.first()
        if first is None:
            return None
        self.remove(first[2])
        return first[2]

    def next_due(self) -> datetime | None:
        """When the next scheduled task becomes ready, as far as the window knows."""
        first = self._scheduled.first()
        return self._entries[first[2]].due_at if first else None

    def forget(self) -> None:
        """Announcements were missed: the store may hold what comes before all the window knows.
        A refill that is under way may have been read too early to make up for it."""
        self._missed = True

    @property
    def refilling(self) -> bool:
        """Whether a refill is under way."""
        return self._gone is not None

    @property
    def wants_refill(self) -> bool:
        """Whether the store should be read again now."""
        return self._gone is None and (self._missed or self._ready.low or self._scheduled.low)

    @property
    def drained(self) -> bool:
        """Whether it is sure that no ready task waits, here or in the store."""
        if self._missed or self._gone is not None:
            return False
        # Behind an incomplete window of scheduled tasks none is due before the last one held.
        none_due = self._scheduled.complete or len(self._scheduled) > 0
        return len(self._ready) == 0 and self._ready.complete and none_due

    def refill_started(self) -> None:
        """The store is being read; note who leaves meanwhile."""
        self._gone, self._missed = set(), False

    def refill_failed(self) -> None:
        """The store could not be read; it still has to be."""
        self._gone, self._late, self._missed = None, {}, True

    def refill(self, page: Page, now: datetime) -> None:
        """Take over what the store holds, except what left while it was read."""
        gone, self._gone = self._gone or set(), None
        late, self._late = self._late, {}
        self._entries = {}
        for window, entries, complete, key in (
            (self._ready, page.ready, page.ready_complete, _ready_key),
            (self._scheduled, page.scheduled, page.scheduled_complete, _scheduled_key),
        ):
            kept = [entry for entry in entries if entry.task_id not in gone]
            window.replace(map(key, kept), complete=complete)
            self._entries.update((entry.task_id, entry) for entry in kept)
        for entry in late.values():
            self._drop(entry.task_id)
            self._add(entry, now)

    def _add(self, entry: Entry, now: datetime) -> None:
        due = entry.due_at <= now
        forgotten = (
            self._ready.add(_ready_key(entry))
            if due
            else self._scheduled.add(_scheduled_key(entry))
        )
        if forgotten != entry.task_id:
            self._entries[entry.task_id] = entry
            if forgotten is not None:
                del self._entries[forgotten]

    def _drop(self, task_id: TaskId) -> None:
        entry = self._entries.pop(task_id, None)
        if entry is not None:
            self._ready.discard(_ready_key(entry))
            self._scheduled.discard(_scheduled_key(entry))

    def _promote(self, now: datetime) -> None:
        while (first := self._scheduled.first()) and self._entries[first[2]].due_at <= now:
            entry = self._entries[first[2]]
            self._drop(entry.task_id)
            self._add(entry, now)


def _ready_key(entry: Entry) -> tuple[float, int, TaskId]:
    return (entry.rank, 0, entry.task_id)


def _scheduled_key(entry: Entry) -> tuple[float, int, TaskId]:
    return (entry.due_at.timestamp(), entry.rank, entry.task_id)
