"""A server that is killed with callbacks in flight makes them again, and its queue is as it was."""

from __future__ import annotations

import attrs
import pytest

from engine.core.task import ErrorClass, Status
from tests.murder.history import AttemptSeen, Found, TaskSeen
from tests.murder.startup import IN_FLIGHT, Start, Startup, startup, wrong

TASKS = 2_000


@pytest.mark.slow
@pytest.mark.proof
async def test_a_server_that_is_killed_goes_on_with_what_was_in_flight(tmp_path):
    done = await startup(tmp_path, TASKS, 1)
    assert done.wrong == []
    assert done.called_again == IN_FLIGHT
    assert done.tasks == TASKS
    assert done.integrity == "ok"
    assert done.ready_s > 0


TWO = [AttemptSeen(1, ErrorClass.LOST, counted=False), AttemptSeen(2)]
WHOLE = Found(
    tasks=[
        TaskSeen("queued", "a", Status.QUEUED, 0),
        TaskSeen("called", "b", Status.COMPLETED, 2),
    ],
    attempts={"called": TWO},
    events=[],
    calls=[],
)


def wrong_in(found: Found) -> list[str]:
    return [line.partition(":")[0] for line in wrong(found, {"queued"}, {"called"})]


def test_whatever_is_wrong_in_the_end_is_said():
    queued, called = WHOLE.tasks
    again = "not Completed by its second attempt"
    assert wrong_in(WHOLE) == []
    assert wrong_in(attrs.evolve(WHOLE, tasks=[])) == ["lost", "lost"]
    more = [queued, called, TaskSeen("other", "c", Status.QUEUED, 0)]
    assert wrong_in(attrs.evolve(WHOLE, tasks=more)) == ["unexpected"]
    taken = attrs.evolve(queued, status=Status.PENDING)
    assert wrong_in(attrs.evolve(WHOLE, tasks=[taken, called])) == ["not as it was"]
    failed = attrs.evolve(called, status=Status.FAILED)
    assert wrong_in(attrs.evolve(WHOLE, tasks=[queued, failed])) == [again]
    counted = {"called": [attrs.evolve(TWO[0], counted=True), TWO[1]]}
    assert wrong_in(attrs.evolve(WHOLE, attempts=counted)) == [again]
    assert wrong_in(attrs.evolve(WHOLE, attempts={})) == [again]


@pytest.mark.parametrize(
    ("ready_s", "first_call_s", "in_time"), [(3.0, 1.0, True), (3.1, 0.0, False), (1.0, 1.1, False)]
)
def test_the_worst_start_counts(ready_s, first_call_s, in_time):
    starts = [Start(ready_s, first_call_s), Start(0.5, 0.1)]
    done = Startup(tasks=200, starts=starts, called_again=200, wrong=[], integrity="ok")
    assert done.is_whole
    assert done.in_time is in_time
    assert not attrs.evolve(done, called_again=199).is_whole
