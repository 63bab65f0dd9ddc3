"""Which questions the counters alone can answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from engine.core.queries import Kept, TaskQuery
from engine.core.task import Status

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "query",
    [
        TaskQuery(),
        TaskQuery(statuses=frozenset({Status.QUEUED})),
        TaskQuery(kept=Kept.ARCHIVE),
        TaskQuery(before="x", statuses=frozenset(Status)),
    ],
    ids=repr,
)
def test_status_and_place_can_be_counted(query: TaskQuery) -> None:
    assert query.by_status_only


VALUES: dict[str, Any] = {
    "task_ids": frozenset({"t"}),
    "names": frozenset({"n"}),
    "name": "n",
    "priority": 0,
    "created_after": NOW,
    "created_before": NOW,
    "metadata": {"a": "b"},
}
OTHERS = [
    field.name
    for field in attrs.fields(TaskQuery)
    if field.name not in {"statuses", "kept", "before"}
]


@pytest.mark.parametrize("name", OTHERS)
def test_everything_else_needs_the_tasks(name: str) -> None:
    assert not attrs.evolve(TaskQuery(), **{name: VALUES[name]}).by_status_only
