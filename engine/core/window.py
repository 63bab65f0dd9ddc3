"""A bounded window onto an order of waiting tasks that the store holds in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from sortedcontainers import SortedList

from .entries import Entry
from .task import TaskId

Key: TypeAlias = tuple[float, int, TaskId]
"""Where an entry stands in an order."""


def ready_key(entry: Entry) -> Key:
    """Among the ready ones."""
    return (entry.rank, 0, entry.task_id)


def scheduled_key(entry: Entry) -> Key:
    """Among those that wait for their time."""
    return (entry.due_at.timestamp(), entry.rank, entry.task_id)


class Window:
    """The first entries of one order, at most ``size``. While it is not ``complete`` the store
    may hold more, but none that comes before the last entry held here."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._order: SortedList[Key] = SortedList()
        self.complete = False

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._order)

    def first(self) -> Key | None:
        """The first key held."""
        return self._order[0] if self._order else None

    def last(self) -> Key | None:
        """The last key held."""
        return self._order[-1] if self._order else None

    def add(self, key: Key) -> TaskId | None:
        """Take the key in if it belongs here; returns the id that must be forgotten, if any."""
        if not self.complete and (not self._order or key > self._order[-1]):
            return key[2]
        self._order.add(key)
        if len(self._order) <= self._size:
            return None
        self.complete = False
        last: Key = self._order.pop()
        return last[2]

    def discard(self, key: Key) -> None:
        """Hold this key no longer."""
        self._order.discard(key)

    def replace(self, keys: Iterable[Key], *, complete: bool) -> list[TaskId]:
        """Hold these, as far as there is room; returns the ids for which there is none."""
        self._order = SortedList(keys)
        cut = [key[2] for key in self._order[self._size :]]
        del self._order[self._size :]
        self.complete = complete and not cut
        return cut

    @property
    def low(self) -> bool:
        """Whether it should be filled again."""
        return not self.complete and len(self._order) <= self._size // 4

    @property
    def known(self) -> bool:
        """Whether it can tell what comes first: it holds something, or there is nothing."""
        return self.complete or len(self._order) > 0
