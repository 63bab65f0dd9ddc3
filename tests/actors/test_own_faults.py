"""What uses up an attempt and what does not, and how long a callee may make us wait: the engine in
virtual time."""

from __future__ import annotations

import itertools
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import trio

from engine.core.outcome import PERMANENT, Answer
from engine.core.task import ErrorClass, RetryPolicy, Status
from tests.support.builders import NOW, at
from tests.support.engine import GOOD, After, Reply, World, submit, submit_one, until

URL = "http://callee.example/it"
ONCE = RetryPolicy(max_attempts=1)
STEADY = RetryPolicy(max_attempts=3, initial_interval_s=10.0, max_interval_s=60.0, jitter=False)
SHORTAGE = Answer(error_class=ErrorClass.SHORTAGE, error="no descriptors left")


# -- our own faults ----------------------------------------------------------------------------


async def test_a_shortage_is_waited_out_without_using_up_the_only_attempt(autojump_clock) -> None:
    world = World(it=[*[SHORTAGE] * 30, 200])
    async with world.open() as engine:
        task_id = await submit_one(engine, URL, retry_policy=ONCE)
        await until(engine, [task_id])
        task = await engine.get(task_id)
        attempts = await engine.attempts(task_id)
        await world.check_books([task_id])
    assert (task.status, task.attempt, task.failures) == (Status.COMPLETED, 31, 0)
    assert [attempt.counted for attempt in attempts] == [False] * 30 + [True]


async def test_a_shortage_without_end_does_not_spin(autojump_clock) -> None:
    world = World(it=[SHORTAGE])
    async with world.open(executors=2) as engine:
        task_ids = await submit(engine, *[URL] * 2)
        await trio.sleep(100)
        tasks = [await engine.get(task_id) for task_id in task_ids]
    assert {task.failures for task in tasks} == {0}
    for task_id in task_ids:
        began = [call.began for call in world.net.of(task_id)]
        assert 90 <= len(began) <= 101
        assert all(later - earlier >= 1.0 for earlier, later in itertools.pairwise(began))


async def test_a_deadline_ends_a_shortage_without_end(autojump_clock) -> None:
    world = World(it=[SHORTAGE])
    async with world.open() as engine:
        task_id = await submit_one(engine, URL, deadline=at(10.5))
        await until(engine, [task_id], within_s=15)
        task = await engine.get(task_id)
    assert task.status is Status.FAILED
    assert task.reason is not None
    assert task.reason.startswith("the deadline leaves no time for another attempt")
    assert task.failures == 0


async def test_own_faults_in_between_leave_the_attempts_and_their_pauses_as_they_were(
    autojump_clock,
) -> None:
    world = World(it=[SHORTAGE, 500, SHORTAGE, SHORTAGE, 500, SHORTAGE, 500])
    async with world.open() as engine:
        task_id = await submit_one(engine, URL, retry_policy=STEADY)
        await until(engine, [task_id])
        task = await engine.get(task_id)
        attempts = await engine.attempts(task_id)
    assert (task.status, task.attempt, task.failures) == (Status.FAILED, 7, 3)
    assert [attempt.counted for attempt in attempts] == [
        *(False, True, False, False, True, False, True),
    ]
    began = [call.began for call in world.net.of(task_id)]
    pauses = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert pauses == pytest.approx([1, 10, 1, 1, 20, 1], abs=0.1)


async def test_a_stop_in_the_middle_of_the_only_attempt_does_not_use_it_up(autojump_clock) -> None:
    world = World(it=[After(1000.0), 200])
    async with world.open(grace_s=1.0) as engine:
        task_id = await submit_one(engine, URL, retry_policy=ONCE, timeout_s=1500.0)
        await trio.sleep(5)
    interrupted = await world.task(task_id)
    assert (interrupted.status, interrupted.failures) == (Status.RETRYING, 0)
    async with world.open() as engine:
        await until(engine, [task_id])
        attempts = await engine.attempts(task_id)
        await world.check_books([task_id])
    assert [attempt.counted for attempt in attempts] == [False, True]
    assert attempts[0].result.error_class is ErrorClass.INTERRUPTED
    assert (await world.task(task_id)).status is Status.COMPLETED


async def test_a_task_cut_off_while_others_fail_is_not_counted_among_them(autojump_clock) -> None:
    world = World(it=[500, After(1000.0)])
    async with world.open() as engine:
        task_id = await submit_one(engine, URL, retry_policy=STEADY, timeout_s=1500.0)
        await trio.sleep(15)
        task = await engine.cancel(task_id, in_flight=True)
        attempts = await engine.attempts(task_id)
    assert (task.status, task.attempt, task.failures) == (Status.CANCELLED, 2, 1)
    assert [(one.result.error_class, one.counted) for one in attempts] == [
        (ErrorClass.HTTP_STATUS, True),
        (ErrorClass.CANCELLED, False),
    ]


# -- what the callee says ----------------------------------------------------------------------


def in_two_minutes(form: str) -> str:
    return (NOW + timedelta(minutes=2)).strftime(form)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("120.5", 120.5),
        (format_datetime(NOW + timedelta(minutes=2), usegmt=True), 120),
        (in_two_minutes("%A, %d-%b-%y %H:%M:%S GMT"), 120),
        (in_two_minutes("%a %b %e %H:%M:%S %Y"), 120),
        ("7", 10),  # less than was planned anyway
        ("0", 10),
        ("-7", 10),
        (format_datetime(NOW - timedelta(days=9), usegmt=True), 10),
        ("soon", 10),
        ("99999999", 86_400),
        (in_two_minutes("%a, %d %b 9999 %H:%M:%S GMT"), 86_400),
    ],
)
async def test_a_retry_after_in_any_form_is_honoured(
    autojump_clock, value: str, seconds: float
) -> None:
    world = World(it=[Answer(status_code=503, headers={"retry-after": value}), 200])
    async with world.open(sweep_interval_s=3600.0) as engine:
        task_id = await submit_one(engine, URL, retry_policy=STEADY)
        await until(engine, [task_id], within_s=100_000, every_s=100)
    began = [call.began for call in world.net.of(task_id)]
    assert began[1] - began[0] == pytest.approx(seconds, abs=1.1)  # dates have whole seconds


@pytest.mark.parametrize("status", [301, 401, 404, 408, 425, 429, 500, 502, 503, 504])
async def test_a_retry_after_is_honoured_with_whatever_status_is_retried(
    autojump_clock, status: int
) -> None:
    asks = Answer(status_code=status, headers={"retry-after": "120"})
    world = World(it=[asks, 200])
    async with world.open() as engine:
        task_id = await submit_one(engine, URL, retry_policy=STEADY)
        await trio.sleep(1)
        waiting = await engine.get(task_id)
        await until(engine, [task_id])
    assert (waiting.due_at - NOW).total_seconds() == pytest.approx(120, abs=0.1)
    assert [call.began for call in world.net.of(task_id)] == pytest.approx([0, 120], abs=0.2)


async def test_a_refusal_for_good_uses_one_attempt_whatever_is_asked_for(autojump_clock) -> None:
    answers: list[Reply] = [
        *[Answer(status_code=s, headers={"retry-after": "1"}) for s in sorted(PERMANENT)],
        *[Answer(status_code=s, headers={"x-task-no-retry": "true"}) for s in (301, 404, 429, 503)],
    ]
    scripts: dict[str, Any] = {f"it{place}": [answer] for place, answer in enumerate(answers)}
    world = World(**scripts)
    async with world.open() as engine:
        task_ids = await submit(engine, *[f"{URL}{place}" for place in range(len(answers))])
        await until(engine, task_ids, within_s=5)
        tasks = [await engine.get(task_id) for task_id in task_ids]
    assert {task.status for task in tasks} == {Status.FAILED}
    assert {(task.attempt, task.failures) for task in tasks} == {(1, 1)}
    assert all("refused it for good" in (task.reason or "") for task in tasks)


async def test_a_success_is_one_whatever_its_headers_ask_for(autojump_clock) -> None:
    headers = {"retry-after": "120", "x-task-no-retry": "true"}
    world = World(it=[Answer(status_code=200, headers=headers)])
    async with world.open() as engine:
        task_ids = await submit(engine, URL, GOOD)
        await until(engine, task_ids, within_s=5)
        assert {(await engine.get(i)).status for i in task_ids} == {Status.COMPLETED}
