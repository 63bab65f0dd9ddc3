"""What a description of a task must hold."""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest

from engine.core.task import RetryPolicy, TaskSpec, evolved
from engine.errors import InvalidTask
from tests.support.builders import a_task, an_event

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NAIVE = datetime(2026, 1, 2)  # noqa: DTZ001
GOOD: dict[str, Any] = {"name": "n", "callback_url": "http://h/"}


class Named(enum.StrEnum):
    ONE = "one"


def problems(**fields: Any) -> list[tuple[tuple[str | int, ...], str]]:
    return TaskSpec(**{**GOOD, **fields}).problems()


def paths(**fields: Any) -> list[tuple[str | int, ...]]:
    return [path for path, _ in problems(**fields)]


def test_the_least_and_the_most_that_can_be_given_are_fine() -> None:
    TaskSpec(**GOOD).check()
    TaskSpec(
        **GOOD, description="", payload={"a": 1}, priority=-100, run_at=NOW, deadline=NOW,
        timeout_s=1800, headers={"X-A": "b"}, metadata={"k": ""}, partition_key="p",
    ).check()  # fmt: skip
    TaskSpec(**GOOD, delay_s=0, priority=100, timeout_s=0.1).check()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 201),
        ("callback_url", "ftp://h/"),
        ("description", "x" * 10_001),
        ("priority", 101),
        ("priority", -101),
        ("delay_s", -1),
        ("delay_s", float("nan")),
        ("timeout_s", 0),
        ("timeout_s", 1801),
        ("headers", {"Host": "x"}),
        ("metadata", {"": "x"}),
        ("partition_key", ""),
        ("run_at", NAIVE),
        ("deadline", NAIVE),
        ("run_at", datetime.max.replace(tzinfo=timezone(-timedelta(hours=14)))),
        ("deadline", datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))),
        ("name", Named.ONE),
        ("partition_key", Named.ONE),
        ("priority", True),
        ("priority", 5.0),
        ("dispatch", "auto"),
        ("method", "PUT"),
    ],
)
def test_a_broken_rule_is_named_by_its_field(field: str, value: Any) -> None:
    assert paths(**{field: value}) == [(field,)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", 101),
        ("initial_interval_s", -1),
        ("max_interval_s", 86_401),
        ("multiplier", 0.5),
        ("multiplier", float("inf")),
    ],
)
def test_a_broken_rule_of_the_retry_policy_is_named_by_its_path(field: str, value: Any) -> None:
    policy = attrs.evolve(RetryPolicy(), **{field: value})
    assert paths(retry_policy=policy) == [("retry_policy", field)]


def test_a_time_and_a_delay_exclude_each_other() -> None:
    assert problems(run_at=NOW, delay_s=1.0) == [
        (("delay_s",), "cannot be given together with runAt")
    ]


def test_every_broken_rule_is_told_at_once() -> None:
    spec = TaskSpec(name="", callback_url="x", priority=500, retry_policy=RetryPolicy(multiplier=0))
    with pytest.raises(InvalidTask) as refused:
        spec.check()
    assert [path for path, _ in refused.value.problems] == [
        ("name",),
        ("callback_url",),
        ("priority",),
        ("retry_policy", "multiplier"),
    ]
    assert "retry_policy.multiplier: must be from 1 to 100, not 0" in str(refused.value)


def test_an_evolved_record_is_a_copy_that_differs_in_what_was_said():
    task = a_task(1, payload={"a": 1})
    changed = evolved(task, version=2, owner="me")
    assert changed == attrs.evolve(task, version=2, owner="me")
    assert task == a_task(1, payload={"a": 1})
    assert changed.spec is task.spec
    event = an_event(task)
    assert evolved(event, seq=7) == attrs.evolve(event, seq=7)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        changed.version = 3  # type: ignore[misc]
