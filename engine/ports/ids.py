"""New ids, as a port."""

from __future__ import annotations

from typing import Protocol

from engine.core.task import TaskId


class Ids(Protocol):
    """Makes ids."""

    def task_id(self) -> TaskId:
        """A new UUIDv7, greater than every one this object made before."""
        ...

    def owner_id(self) -> str:
        """A new id for one start of a process; never one that was used before."""
        ...
