"""Whole ways of tasks over every store: commands through ``Changes`` and ``Batch``."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from engine.config import EngineConfig
from engine.core.commands import (
    Cancel,
    Claim,
    Create,
    Execute,
    IdempotencyKey,
    Prune,
    Recover,
    Refill,
    Release,
    Retry,
    Sweep,
    Take,
    Update,
)
from engine.core.queries import Kept, TaskQuery
from engine.core.suspects import LINES, PRIME_AFTER, SUSPECT_AFTER
from engine.core.task import Dispatch, Lane, Status, Task, Wait
from engine.errors import ClaimLost, IdempotencyConflict, NotTakeable, StoreConflict, TaskNotFound
from engine.ports.store import Store
from tests.support.builders import NOW, a_spec, an_id, at, commit, creating, finishing


async def claimed(store: Store, n: int = 1, owner: str = "me", now=NOW) -> Task:
    """The n-th task, taken by an executor."""
    task: Task
    (task,) = await commit(store, Claim(an_id(n), owner), now=now)
    return task


async def statuses(store: Store) -> dict[Status, int]:
    """The counters, without zeros; they must agree with the tasks."""
    counts = {status: n for status, n in (await store.counts()).items() if n}
    tasks = await store.tasks(TaskQuery(), 1000)
    assert counts == {status: sum(t.status is status for t in tasks) for status in counts}
    assert sum(counts.values()) == len(tasks)
    return counts


async def test_a_task_is_created_claimed_finished_and_archived(store: Store):
    await commit(store, creating(1, 2, payload={"a": [1]}, metadata={"tenant": "x"}))
    task = await claimed(store)
    (done,) = await commit(store, finishing(task), now=at(1))
    assert await store.get(task.id) == done
    assert (done.status, done.archived_at, done.version) == (Status.COMPLETED, at(1), 4)
    assert await statuses(store) == {Status.QUEUED: 1, Status.COMPLETED: 1}
    assert [t.id for t in await store.tasks(TaskQuery(kept=Kept.ARCHIVE), 5)] == [task.id]
    moves = [(e.from_status, e.to_status) for e in await store.task_events(task.id)]
    assert moves == [
        (None, Status.QUEUED),
        (Status.QUEUED, Status.PENDING),
        (Status.PENDING, Status.PROCESSING),
        (Status.PROCESSING, Status.COMPLETED),
    ]
    (attempt,) = await store.attempts(task.id)
    assert (attempt.number, attempt.result.body) == (1, "said")
    (late,) = await commit(store, finishing(task))
    assert isinstance(late, ClaimLost)


async def test_everything_in_one_transaction_is_one_row(store: Store):
    results = await commit(store, creating(1), Claim(an_id(1), "me"), Cancel(an_id(1), True))
    assert results[2].status is Status.CANCELLED
    assert await store.get(an_id(1)) == results[2]
    assert await store.event_range() == (1, 4)
    assert await statuses(store) == {Status.CANCELLED: 1}


async def test_a_failure_waits_is_due_again_and_is_given_up(store: Store):
    await commit(store, creating(1))
    now, seen = NOW, []
    for _ in range(3):
        task = await claimed(store, now=now)
        (task,) = await commit(store, finishing(task, 500), now=now)
        seen.append(task.status)
        (reading,) = await commit(store, Refill(Lane.RUN, 10), now=now)
        assert not reading.page.ready
        now = at(100 * len(seen))
        (reading,) = await commit(store, Refill(Lane.RUN, 10), now=now)
        assert len(reading.page.ready) == (task.status is Status.RETRYING)
    assert seen == [Status.RETRYING, Status.RETRYING, Status.FAILED]
    assert [a.number for a in await store.attempts(an_id(1))] == [1, 2, 3]
    (again,) = await commit(store, Retry(an_id(1)), now=now)
    assert (again.status, again.failures) == (Status.RETRYING, 0)
    assert await store.get(an_id(1)) == again


async def test_a_client_takes_releases_and_executes(store: Store):
    await commit(store, creating(1, dispatch=Dispatch.MANUAL))
    (reading,) = await commit(store, Refill(Lane.TAKE, 5))
    assert [entry.task_id for entry in reading.page.ready] == [an_id(1)]
    (taken,) = await commit(store, Take(an_id(1), 60))
    assert (taken.status, taken.expires_at) == (Status.PENDING, at(60))
    (freed,) = await commit(store, Release(an_id(1)))
    assert freed.status is Status.QUEUED
    await commit(store, Take(an_id(1), 60))
    (handed,) = await commit(store, Execute(an_id(1)))
    assert handed.lane is Lane.RUN
    (reading,) = await commit(store, Refill(Lane.RUN, 5))
    assert [entry.task_id for entry in reading.page.ready] == [an_id(1)]


async def test_leases_and_deadlines_are_swept(store: Store):
    await commit(store, creating(1, dispatch=Dispatch.MANUAL), creating(2, deadline=at(30)))
    await commit(store, creating(3))
    await commit(store, Take(an_id(1), 10))
    await claimed(store, 3)
    assert await commit(store, Sweep(10), now=at(9)) == [0]
    assert await commit(store, Sweep(10), now=at(100)) == [3]
    found = [(await store.get(an_id(n))) for n in (1, 2, 3)]
    assert [task and task.status for task in found] == [
        Status.QUEUED,
        Status.FAILED,
        Status.RETRYING,
    ]
    assert await commit(store, Sweep(10), now=at(100)) == [0]


async def test_a_new_owner_recovers_what_the_old_one_left(store: Store):
    await commit(store, creating(1, 2, 3))
    for n in (1, 2):
        await claimed(store, n, "old")
    await claimed(store, 3, "new")
    assert await commit(store, Recover("new", 1)) == [1]
    assert await commit(store, Recover("new", 10)) == [1]
    assert await commit(store, Recover("new", 10)) == [0]
    assert await statuses(store) == {Status.RETRYING: 2, Status.PROCESSING: 1}


@pytest.mark.parametrize("apart", [True, False])
async def test_a_partition_key_is_first_in_first_out(store: Store, apart):
    creates = [creating(n, partition_key="k") for n in (1, 2, 3)]
    if apart:
        for create in creates:
            await commit(store, create)
    else:
        await commit(store, *creates)
    order = []
    while holder := await store.partition_holder("k"):
        (reading,) = await commit(store, Refill(Lane.RUN, 10))
        assert [entry.task_id for entry in reading.page.ready] == [holder]
        order.append(holder)
        (task,) = await commit(store, Claim(holder, "me"))
        await commit(store, finishing(task))
    assert order == [an_id(1), an_id(2), an_id(3)]


async def test_a_blocked_task_cannot_be_taken_and_follows_a_cancelled_one(store: Store):
    fields: dict[str, Any] = {"partition_key": "k", "dispatch": Dispatch.MANUAL}
    await commit(store, creating(1, **fields), creating(2, **fields))
    (refused,) = await commit(store, Take(an_id(2), 5))
    assert isinstance(refused, NotTakeable)
    await commit(store, Cancel(an_id(1)))
    follower = await store.get(an_id(2))
    assert follower is not None
    assert follower.wait is Wait.READY


async def test_one_sweep_unblocks_and_ends_a_row_of_tasks(store: Store):
    await commit(store, *(creating(n, partition_key="k", deadline=at(9)) for n in (1, 2, 3)))
    assert await commit(store, Sweep(10), now=at(10)) == [3]
    assert await statuses(store) == {Status.FAILED: 3}
    assert await store.partition_holder("k") is None


async def test_an_update_changes_what_is_found_and_when(store: Store):
    await commit(store, creating(1, metadata={"a": "1"}))
    changes = {"name": "other", "metadata": {"a": "2"}, "run_at": at(50), "priority": 7}
    (task,) = await commit(store, Update(an_id(1), changes, if_version=1))
    assert await store.get(an_id(1)) == task
    for query, found in (
        (TaskQuery(metadata={"a": "1"}), 0),
        (TaskQuery(metadata={"a": "2"}, priority=7), 1),
        (TaskQuery(names=frozenset({"other"})), 1),
        (TaskQuery(names=frozenset({"invoice"})), 0),
    ):
        assert len(await store.tasks(query, 5)) == found
    (reading,) = await commit(store, Refill(Lane.RUN, 5))
    assert (reading.page.ready, len(reading.page.scheduled)) == ((), 1)


async def test_a_key_replays_its_answer_until_it_runs_out(store: Store):
    key = IdempotencyKey("hash", "body")
    (first,) = await commit(store, creating(1, key=key))
    (again,) = await commit(store, creating(2, key=key), now=at(9))
    assert (again.receipts, again.replayed) == (first.receipts, True)
    (other,) = await commit(store, creating(2, key=IdempotencyKey("hash", "other body")))
    assert isinstance(other, IdempotencyConflict)
    next_day = at(EngineConfig().idempotency_s + 1)
    (fresh,) = await commit(store, creating(2, key=key), now=next_day)
    assert not fresh.replayed
    (again,) = await commit(store, creating(3, key=key), now=next_day)
    assert again.receipts == fresh.receipts


async def test_a_refused_command_leaves_its_neighbours_alone(store: Store):
    results = await commit(store, creating(1), Claim(an_id(9), "me"), Cancel(an_id(1)))
    assert [type(result) for result in results[1:]] == [TaskNotFound, Task]
    assert await store.event_range() == (1, 2)


async def test_the_counters_bound_the_queue(store: Store):
    config = EngineConfig(queue_max=2)
    results = await commit(store, *(creating(n) for n in range(1, 5)), config=config)
    assert [isinstance(result, Exception) for result in results] == [False, False, True, True]
    assert await statuses(store) == {Status.QUEUED: 2}


async def test_prune_makes_old_tasks_unknown(store: Store):
    await commit(store, creating(1, 2))
    await commit(store, Cancel(an_id(1)))
    assert await commit(store, Prune(100), now=at(1)) == [0]
    long_after = at(40 * 86_400)
    assert await commit(store, Prune(100), now=long_after) == [3 + 1]
    assert await store.get(an_id(1)) is None
    assert await statuses(store) == {Status.QUEUED: 1}
    assert await store.event_range() == (4, 3)


async def test_what_a_transaction_believes_must_still_hold(store: Store):
    await commit(store, creating(1))

    def work(records):
        from engine.core.batch import Batch

        batch = Batch(records)
        stale = attrs.evolve(batch.task(an_id(1)), version=7)
        batch.adopt(stale)
        batch._current[an_id(1)] = stale
        batch.put(attrs.evolve(stale, version=8))
        batch.flush()

    with pytest.raises(StoreConflict):
        await store.transact(work)
    assert await statuses(store) == {Status.QUEUED: 1}


async def test_a_hundred_creates_share_a_transaction(store: Store):
    tasks = tuple((an_id(n), a_spec(name=f"n{n}")) for n in range(1, 101))
    (created,) = await commit(store, Create(tasks))
    assert len(created.receipts) == 100
    found = await store.tasks(TaskQuery(), 200)
    assert [task.spec.name for task in found] == [f"n{n}" for n in range(100, 0, -1)]


async def test_a_suspect_is_found_among_the_suspects_and_later_with_its_destination(store: Store):
    """The store has to know it too: the queue reads there what it may hand out."""
    await commit(store, creating(1, callback_url="http://a/", dispatch=Dispatch.AUTO))
    lines = ("http://a:80", *LINES)
    for lost in range(PRIME_AFTER + 1):
        mine = 0 if lost < SUSPECT_AFTER else 1 if lost < PRIME_AFTER else 2
        for number, line in enumerate(lines):
            wanted = Refill(Lane.RUN, 10, page=False, sides=(line,), side_limit=10)
            (reading,) = await commit(store, wanted)
            found = [entry.task_id for entry in reading.sides[0].ready]
            assert found == ([an_id(1)] if number == mine else []), (lost, line)
        if lost < PRIME_AFTER:
            await claimed(store)
            await commit(store, Recover("another", 10))
    task = await claimed(store)
    await commit(store, finishing(task, status_code=503), now=at(1))
    (reading,) = await commit(
        store,
        Refill(Lane.RUN, 10, page=False, sides=("http://a:80",), side_limit=10),
        now=at(1_000),
    )
    assert [entry.task_id for entry in reading.sides[0].ready] == [an_id(1)]
