"""The demo's plan and its verdict: a demo that cannot fail would prove nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import pytest

from engine import Status
from web.demo.plan import BATCH_MAX, BY_HAND, CANCELLED, GOOD, KINDS, Kind, Plan, make_plan
from web.demo.progress import Progress
from web.demo.verdict import Outcome, Verdict, judge, percentile
from web.receiver import Call

RECEIVER = "http://receiver"


@pytest.mark.parametrize("total", [40, 60, 400, 5000])
def test_the_plan_has_every_kind_and_every_task_once(total: int) -> None:
    plan = make_plan(total, RECEIVER)
    assert len(plan.tasks) == total
    assert len({task.key for task in plan.tasks}) == total
    counts = Counter(task.kind.name for task in plan.tasks)
    assert set(counts) == {kind.name for kind in KINDS}
    assert counts[CANCELLED.name] == counts[BY_HAND.name] == 1


@pytest.mark.parametrize("total", [40, 400, 5000])
def test_tasks_of_a_partition_key_are_created_in_one_place_and_in_order(total: int) -> None:
    plan = make_plan(total, RECEIVER)
    places: dict[str, set[int]] = {}
    for place, group in enumerate([*plan.lines, *plan.batches]):
        keyed = [task for task in group if task.partition_key is not None]
        assert [task.number for task in keyed] == sorted(task.number for task in keyed)
        for task in keyed:
            places.setdefault(str(task.partition_key), set()).add(place)
    assert sorted(len(found) for found in places.values()) == [1, 1]


def test_the_plan_keeps_to_the_longest_batch_the_api_takes() -> None:
    assert max(len(batch) for batch in make_plan(5000, RECEIVER).batches) == BATCH_MAX


# -- the verdict -----------------------------------------------------------------------------


def call(task_id: str, attempt: int, started: float) -> Call:
    return Call(
        task_id=task_id,
        attempt=attempt,
        path="/",
        started=started,
        ended=started + 0.5,
        status=200,
        body_bytes=0,
        headers={},
        body=b"",
    )


def perfect(plan: Plan) -> list[Outcome]:
    """What is seen if all goes well: the tasks are called one after the other."""
    return [
        Outcome(
            planned=task,
            task_id=task.key,
            status=task.kind.end,
            sent_at=0.0,
            ended_at=10.0 * task.number + 9,
            calls=[
                call(task.key, n, 10.0 * task.number + n + 3) for n in range(task.kind.attempts)
            ],
            attempts=task.kind.attempts,
        )
        for task in plan.tasks
    ]


def verdict(outcomes: list[Outcome], *, gaps: int = 0, more: int = 0) -> Verdict:
    return judge(outcomes, known_to_api=len(outcomes) + more, gaps=gaps)


def spoiled(kind: Kind, **changes: Any) -> Verdict:
    """The verdict when one task of this kind is not as planned."""
    outcomes = perfect(make_plan(60, RECEIVER))
    place = next(place for place, outcome in enumerate(outcomes) if outcome.kind is kind)
    outcomes[place] = attrs.evolve(outcomes[place], **changes)
    return verdict(outcomes)


def test_when_all_goes_well_there_is_no_problem() -> None:
    found = verdict(perfect(make_plan(60, RECEIVER)))
    assert (list(found.problems), found.lost, found.repeats, found.in_order) == ([], 0, 0, True)
    assert sum(row.ended_so for row in found.rows) == 60


@pytest.mark.parametrize(
    ("changes", "complaint", "lost"),
    [
        ({"status": Status.FAILED}, "is Failed, not Completed", 0),
        ({"status": Status.PROCESSING}, "is Processing, not Completed", 1),
        ({"status": None}, "is unknown to the API", 1),
        ({"status": None, "task_id": None}, "is unknown to the API", 0),
        ({"calls": []}, "was called only 0 times", 0),
        ({"calls": [call("x", 1, 5), call("x", 1, 6)]}, "was called 2 times, not 1", 0),
    ],
)
def test_a_task_that_is_not_as_planned_is_named(
    changes: dict[str, Any], complaint: str, lost: int
) -> None:
    found = spoiled(GOOD, **changes)
    assert len(found.problems) == 1
    assert complaint in found.problems[0]
    assert found.lost == lost


def test_a_repeat_is_allowed_for_an_attempt_that_was_lost_and_is_counted() -> None:
    twice = [call("x", 1, 5), call("x", 2, 6)]
    found = spoiled(GOOD, calls=twice, lost_attempts=1)
    assert (list(found.problems), found.repeats) == ([], 1)
    found = spoiled(GOOD, calls=[*twice, call("x", 3, 7)], lost_attempts=1)
    assert len(found.problems) == 1


def test_a_scheduled_task_must_not_be_early() -> None:
    scheduled = next(kind for kind in KINDS if kind.waits_s)
    assert not spoiled(scheduled, calls=[call("x", 1, 2.0)]).problems
    found = spoiled(scheduled, calls=[call("x", 1, 1.8)])
    assert "before its 2 s were over" in found.problems[0]


def test_tasks_of_a_key_must_not_overlap_or_overtake() -> None:
    keyed = next(kind for kind in KINDS if kind.keyed)
    for started in (12.0, 1e6):  # beside the first of another key it may be; behind its next not
        found = spoiled(keyed, calls=[call("x", 1, started)])
        assert found.in_order == (started < 1e6)
    assert len(spoiled(keyed, calls=[call("x", 1, 1e6)]).problems) == 1


def test_tasks_that_nobody_planned_and_gaps_in_the_stream_are_problems() -> None:
    outcomes = perfect(make_plan(60, RECEIVER))
    assert "knows 61 tasks, not 60" in verdict(outcomes, more=1).problems[0]
    assert "in 2 places" in verdict(outcomes, gaps=2).problems[0]


def test_percentiles_are_by_nearest_rank() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, p) for p in (1, 50, 95, 100)] == [1, 50, 95, 100]
    assert percentile([3.0], 95) == 3
    assert percentile([1.0, 2.0], 50) == 1
    assert percentile([], 50) is None


# -- progress --------------------------------------------------------------------------------


def event(seq: int, task_id: str, before: str | None, after: str) -> dict[str, Any]:
    return {"seq": seq, "taskId": task_id, "name": "demo good", "from": before, "to": after}


def test_progress_follows_each_task_to_its_end() -> None:
    progress = Progress(total=2, middle=0.5)
    assert not progress.take({"subscribed": True, "seq": 0})
    assert not progress.take(event(1, "a", None, "Queued"))
    assert not progress.take(event(2, "b", None, "Queued"))
    assert progress.count(Status.QUEUED) == 2
    assert not progress.take(event(3, "a", "Queued", "Completed"))
    assert progress.in_the_middle.is_set()
    assert progress.take(event(4, "b", "Queued", "Cancelled"))
    assert progress.count(Status.QUEUED) == 0
    assert progress.count(Status.COMPLETED, "good") == 1
    assert (progress.events, progress.gaps) == (4, 0)


def test_progress_notices_what_the_stream_leaves_out_or_repeats() -> None:
    progress = Progress(total=9, middle=0.5)
    for seq in (1, 2, 4, 4):
        progress.take(event(seq, "a", None, "Queued"))
    assert progress.gaps == 2
