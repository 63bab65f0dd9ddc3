"""What can be asked of the stored tasks."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime

import attrs

from .task import Status, TaskId


class Kept(enum.Enum):
    """Where a task is kept."""

    LIVE = "live"
    ARCHIVE = "archive"
    ANYWHERE = "anywhere"


@attrs.frozen(kw_only=True)
class TaskQuery:
    """A filter. Tasks come newest first. ``before`` continues after a task already seen."""

    task_ids: frozenset[TaskId] = frozenset()  # empty: any; so with the next two
    statuses: frozenset[Status] = frozenset()
    names: frozenset[str] = frozenset()
    priority: int | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, str] = attrs.field(factory=dict)
    kept: Kept = Kept.ANYWHERE
    before: TaskId | None = None

    @property
    def by_status_only(self) -> bool:
        """Whether the counters alone can tell how many tasks match."""
        plain = attrs.evolve(self, statuses=frozenset(), kept=Kept.ANYWHERE, before=None)
        return plain == TaskQuery()
