"""The table of the life of a task, against the table of the specification."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pytest

from engine.core.lifecycle import ENDED, FINAL, TRANSITIONS, WAITING, Trigger, advance, diagram
from engine.core.task import Status, Task, TaskSpec
from engine.errors import IllegalTransition

NOW = datetime(2026, 1, 2, tzinfo=UTC)

# SPEC section 1, "leaves by": status, what happens, status that follows.
SPEC = {
    ("Queued", "dequeue", "Pending"),
    ("Queued", "cancel", "Cancelled"),
    ("Queued", "pass its deadline", "Failed"),
    ("Pending", "execute", "Processing"),
    ("Pending", "release", "Queued"),
    ("Pending", "expire its lease", "Queued"),
    ("Pending", "cancel", "Cancelled"),
    ("Processing", "succeed", "Completed"),
    ("Processing", "fail for now", "Retrying"),
    ("Processing", "give up", "Failed"),
    ("Processing", "lose its node", "Retrying"),
    ("Processing", "cancel", "Cancelled"),
    ("Retrying", "execute", "Processing"),
    ("Retrying", "cancel", "Cancelled"),
    ("Retrying", "pass its deadline", "Failed"),
    ("Failed", "retry", "Retrying"),
}
PAIRS = [(status, trigger) for status in Status for trigger in Trigger]


def task_in(status: Status) -> Task:
    spec = TaskSpec(name="n", callback_url="http://h/")
    return Task(
        id="t", spec=spec, status=status, version=1, created_at=NOW, updated_at=NOW, due_at=NOW,
        rank=0,
    )  # fmt: skip


def test_the_table_is_the_one_of_the_specification() -> None:
    edges = {
        (status.value, trigger.value, target.value)
        for status, row in TRANSITIONS.items()
        for trigger, target in row.items()
    }
    assert edges == SPEC


def test_every_status_has_a_row_and_every_trigger_is_used() -> None:
    assert set(TRANSITIONS) == set(Status)
    assert {trigger for row in TRANSITIONS.values() for trigger in row} == set(Trigger)


@pytest.mark.parametrize(("status", "trigger"), PAIRS, ids=lambda value: value.name)
def test_a_pair_is_in_the_table_or_refused(status: Status, trigger: Trigger) -> None:
    task = task_in(status)
    before = attrs.asdict(task)
    followers = [target for name, what, target in SPEC if (name, what) == (status, trigger)]
    if followers:
        assert [advance(task, trigger)] == followers
    else:
        with pytest.raises(IllegalTransition) as refused:
            advance(task, trigger)
        assert refused.value.task_id == "t"
        assert refused.value.status == status
        assert refused.value.event == trigger
        assert set(refused.value.allowed) == {what for name, what, _ in SPEC if name == status}
    assert attrs.asdict(task) == before


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[Status.QUEUED] = {}  # type: ignore[index]


def test_groups_of_statuses() -> None:
    assert {Status.COMPLETED, Status.CANCELLED} == FINAL
    assert {Status.COMPLETED, Status.CANCELLED, Status.FAILED} == ENDED
    assert {Status.QUEUED, Status.RETRYING} == WAITING


def test_every_status_can_end() -> None:
    reached, before = set(FINAL), -1
    while len(reached) != before:
        before = len(reached)
        reached |= {status for status, row in TRANSITIONS.items() if reached & set(row.values())}
    assert reached == set(Status)


def test_every_status_can_be_reached() -> None:
    reached, before = {Status.QUEUED}, -1
    while len(reached) != before:
        before = len(reached)
        reached |= {target for status in list(reached) for target in TRANSITIONS[status].values()}
    assert reached == set(Status)


def test_the_diagram_shows_every_edge_and_no_other() -> None:
    first, *lines = diagram().split("\n")
    assert first == "stateDiagram-v2"
    drawn: set[tuple[str, str, str]] = set()
    for line in lines:
        ends, _, names = line.strip().partition(": ")
        source, target = ends.split(" --> ")
        drawn |= {(source, name, target) for name in names.split(", ")}
    ends_of_life = {(status.value, "", "[*]") for status in FINAL}
    assert drawn == SPEC | ends_of_life | {("[*]", "create", "Queued")}
