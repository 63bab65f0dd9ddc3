"""What every store must forget, and what it must keep."""

from __future__ import annotations

from collections.abc import Iterable

from engine.core.queries import Kept, TaskQuery
from engine.core.task import Status, Task
from engine.ports.store import Store
from tests.support.builders import a_task, an_answer, an_attempt, an_event, an_id, at, number, write


def _ids(tasks: Iterable[Task]) -> list[int]:
    return [number(task.id) for task in tasks]


async def test_prune_removes_old_records_whole_and_no_others(store: Store):
    old, young = {"archived_at": at(-20)}, {"archived_at": at(-5)}
    done = {"status": Status.COMPLETED, "metadata": {"a": "b"}}
    await write(
        store,
        inserts=[
            a_task(3, status=Status.FAILED, completed_at=at(-20), metadata={"a": "b"}),
            a_task(4, status=Status.FAILED, completed_at=at(-5)),
            a_task(5, created_at=at(-99), metadata={"a": "b"}),
        ],
        archived=[(a_task(1, **done, **old), None), (a_task(2, **done, **young), None)],
        attempts=[an_attempt(an_id(n)) for n in (1, 2, 3, 5)],
        events=[an_event(a_task(5), at=at(seconds)) for seconds in (-20, -15, -5, -20)],
        answers=[an_answer("old", at(-20)), an_answer("young", at(-10))],
        counts={Status.COMPLETED: 2, Status.FAILED: 2, Status.QUEUED: 1},
    )
    assert await store.transact(lambda r: r.prune(at(-10), at(-10), at(-10), 10)) == 2 + 2 + 1
    assert _ids(await store.tasks(TaskQuery(), 10)) == [5, 4, 2]
    assert _ids(await store.tasks(TaskQuery(metadata={"a": "b"}), 10)) == [5, 2]
    assert [len(await store.attempts(an_id(n))) for n in (1, 2, 3, 5)] == [0, 1, 0, 1]
    assert await store.event_range() == (3, 4)  # only from the front: no gaps
    assert [event.seq for event in await store.task_events(an_id(5))] == [3, 4]
    assert [event.seq for event in await store.events(0, 9)] == [3, 4]
    assert [event.seq for event in await store.events(3, 9)] == [4]
    assert await store.transact(lambda r: r.answer("old", at(-99))) is None
    assert await store.transact(lambda r: r.answer("young", at(-99))) is not None
    counts = await store.counts()
    assert [counts[s] for s in (Status.COMPLETED, Status.FAILED, Status.QUEUED)] == [1, 1, 1]
    assert await store.transact(lambda r: r.prune(at(-10), at(-10), at(-10), 10)) == 0


async def test_prune_is_bounded_and_takes_the_oldest_first(store: Store):
    await write(
        store,
        archived=[
            (a_task(n, status=Status.COMPLETED, archived_at=at(-n)), None) for n in range(1, 6)
        ],
        inserts=[a_task(9, status=Status.FAILED, completed_at=at(-9))],
        events=[an_event(a_task(1), at=at(-n)) for n in range(5)],
        answers=[an_answer(f"key {n}", at(-n)) for n in range(5)],
    )
    assert await store.transact(lambda r: r.prune(at(1), at(1), at(1), 2)) == 6
    assert _ids(await store.tasks(TaskQuery(kept=Kept.ARCHIVE), 10)) == [3, 2, 1]
    assert await store.event_range() == (3, 5)
    assert await store.transact(lambda r: r.answer("key 3", at(-99))) is None
    assert await store.transact(lambda r: r.answer("key 2", at(-99))) is not None
    for removed in (6, 4, 0):
        assert await store.transact(lambda r: r.prune(at(1), at(1), at(1), 2)) == removed
    assert await store.event_range() == (6, 5)
    assert await write(store, events=[an_event(a_task(1))]) == 6
