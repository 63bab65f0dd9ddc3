"""What every store must find, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import pytest

from engine.core.batch import Records, WriteSet
from engine.core.commands import Claim, Refill, Update
from engine.core.destination import destination_of
from engine.core.entries import Side, entry_of
from engine.core.queries import Kept, TaskQuery
from engine.core.task import Lane, Status, Task, TaskId, Wait
from engine.ports.store import Store
from tests.support.builders import (
    NOW,
    a_spec,
    a_task,
    an_answer,
    an_id,
    at,
    commit,
    creating,
    number,
    write,
)

HOST = destination_of(a_spec().callback_url)
DEAD, OTHER = "http://dead.example:80", "https://other.example:443"


def _numbers(found: Iterable[TaskId]) -> list[int]:
    return [number(task_id) for task_id in found]


def _ids(tasks: Iterable[Task]) -> list[int]:
    return _numbers(task.id for task in tasks)


# -- lists -----------------------------------------------------------------------------------


async def _some_tasks(store: Store) -> None:
    def archived(n: int, status: Status, **fields: Any) -> tuple[Task, None]:
        return (a_task(n, status=status, archived_at=NOW, completed_at=NOW, **fields), None)

    await write(
        store,
        inserts=[
            a_task(2, name="b", priority=5, metadata={"tenant": "x", "zone": "1"}),
            a_task(1, created_at=at(-10)),
            a_task(4, status=Status.FAILED, completed_at=NOW, created_at=at(10)),
            a_task(6, status=Status.PROCESSING, owner="me", metadata={"tenant": "x"}),
        ],
        archived=[
            archived(3, Status.COMPLETED, name="b", metadata={"tenant": "x"}),
            archived(5, Status.CANCELLED, priority=5),
        ],
        counts={
            Status.QUEUED: 2,
            Status.FAILED: 1,
            Status.PROCESSING: 1,
            Status.COMPLETED: 1,
            Status.CANCELLED: 1,
        },
    )


FILTERS = [
    ({}, [6, 5, 4, 3, 2, 1]),
    ({"kept": Kept.LIVE}, [6, 4, 2, 1]),
    ({"kept": Kept.ARCHIVE}, [5, 3]),
    ({"statuses": frozenset({Status.QUEUED})}, [2, 1]),
    ({"statuses": frozenset({Status.QUEUED, Status.COMPLETED, Status.FAILED})}, [4, 3, 2, 1]),
    ({"statuses": frozenset({Status.QUEUED}), "kept": Kept.ARCHIVE}, []),
    ({"statuses": frozenset(Status), "kept": Kept.ARCHIVE}, [5, 3]),
    ({"names": frozenset({"b"})}, [3, 2]),
    ({"names": frozenset({"b", "invoice"}), "statuses": frozenset({Status.QUEUED})}, [2, 1]),
    ({"names": frozenset({"b", *map(str, range(200))})}, [3, 2]),
    ({"names": frozenset({"none"})}, []),
    ({"task_ids": frozenset({an_id(5), an_id(2), an_id(99)})}, [5, 2]),
    ({"task_ids": frozenset({an_id(5), an_id(2)}), "names": frozenset({"b"})}, [2]),
    ({"priority": 5}, [5, 2]),
    ({"created_after": NOW}, [4]),
    ({"created_before": NOW}, [1]),
    ({"created_after": at(-11), "created_before": at(-9)}, [1]),
    ({"metadata": {"tenant": "x"}}, [6, 3, 2]),
    ({"metadata": {"tenant": "x"}, "statuses": frozenset({Status.COMPLETED})}, [3]),
    ({"metadata": {"tenant": "x", "zone": "1"}, "kept": Kept.LIVE}, [2]),
    ({"metadata": {"tenant": "y"}}, []),
    ({"before": an_id(4)}, [3, 2, 1]),
    ({"before": an_id(4), "statuses": frozenset({Status.FAILED, Status.QUEUED})}, [2, 1]),
    ({"before": an_id(6), "metadata": {"tenant": "x"}}, [3, 2]),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS)
async def test_a_filter_finds_what_matches_newest_first(store: Store, filters, expected):
    await _some_tasks(store)
    query = TaskQuery(**filters)
    assert _ids(await store.tasks(query, 10)) == expected
    assert _ids(await store.tasks(query, 2)) == expected[:2]
    assert _ids(await store.tasks(query, 2, offset=1)) == expected[1:3]
    assert await store.tasks(query, 0) == []
    without_cursor = attrs.evolve(query, before=None)
    assert await store.count(query) == len(await store.tasks(without_cursor, 10))


async def test_a_cursor_walks_over_everything_once(store: Store):
    await _some_tasks(store)
    query, seen = TaskQuery(), list[int]()
    while page := await store.tasks(query, 2):
        seen += _ids(page)
        query = attrs.evolve(query, before=page[-1].id)
    assert seen == [6, 5, 4, 3, 2, 1]


async def test_metadata_that_changed_is_found_as_it_is_now(store: Store):
    task = a_task(1, metadata={"a": "1", "b": "2"})
    await write(store, inserts=[task])
    spec = attrs.evolve(task.spec, metadata={"a": "9"})
    await write(store, updates=[(attrs.evolve(task, spec=spec, version=2), 1)])
    for metadata, expected in (({"a": "1"}, []), ({"b": "2"}, []), ({"a": "9"}, [1])):
        assert _ids(await store.tasks(TaskQuery(metadata=metadata), 10)) == expected


# -- partition keys --------------------------------------------------------------------------


async def test_a_key_is_held_by_the_task_that_is_neither_ended_nor_blocked(store: Store):
    blocked = {"partition_key": "k", "wait": Wait.BLOCKED}
    await write(
        store,
        inserts=[
            a_task(1, partition_key="k", status=Status.FAILED, completed_at=NOW),
            a_task(4, **blocked),
            a_task(3, **blocked),
            a_task(2, partition_key="k", status=Status.PROCESSING, owner="me"),
            a_task(5, partition_key="other", wait=Wait.BLOCKED),
        ],
        archived=[(a_task(6, partition_key="k", status=Status.COMPLETED, archived_at=NOW), None)],
    )
    assert await store.partition_holder("k") == an_id(2)
    assert await store.partition_holder("other") is None

    def search(records: Records):
        return records.holder("k"), records.next_blocked("k"), records.next_blocked("none")

    assert await store.transact(search) == (an_id(2), a_task(3, **blocked), None)


# -- lanes -----------------------------------------------------------------------------------


async def _page(store: Store, now, limit, lane=Lane.RUN):
    (reading,) = await commit(store, Refill(lane, limit), now=now)
    page = reading.page
    return (
        _numbers(entry.task_id for entry in page.ready),
        page.ready_complete,
        _numbers(entry.task_id for entry in page.scheduled),
        page.scheduled_complete,
    )


def _later(n: int, seconds: float, **fields: Any) -> Task:
    return a_task(n, due_at=at(seconds), wait=Wait.SCHEDULED, **fields)


async def test_a_page_holds_the_head_of_its_lane_in_order(store: Store):
    await write(
        store,
        inserts=[
            a_task(1),
            a_task(2, priority=1),
            a_task(3, due_at=at(-700)),  # has waited for more than one level
            a_task(4),
            a_task(5, lane=Lane.TAKE),
            a_task(6, wait=Wait.BLOCKED, partition_key="k"),
            a_task(7, status=Status.PROCESSING, owner="me"),
            _later(9, 20),
            _later(8, 20),
            _later(10, 10, status=Status.RETRYING),
            _later(11, 20, priority=50),
        ],
    )
    assert await _page(store, NOW, 10) == ([3, 2, 1, 4], True, [10, 11, 8, 9], True)
    assert await _page(store, NOW, 4) == ([3, 2, 1, 4], True, [10, 11, 8, 9], True)
    assert await _page(store, NOW, 3) == ([3, 2, 1], False, [10, 11, 8], False)
    assert await _page(store, NOW, 10, Lane.TAKE) == ([5], True, [], True)


async def test_what_has_become_due_is_ready_in_its_rank(store: Store):
    late = _later(2, 5, priority=1)
    await write(store, inserts=[a_task(1), late, _later(3, 10), _later(4, 11)])
    assert await _page(store, at(4.9), 10) == ([1], True, [2, 3, 4], True)
    assert await _page(store, at(10), 10) == ([2, 1, 3], True, [4], True)
    found = await store.get(late.id)
    assert found is not None
    assert found == attrs.evolve(late, wait=Wait.READY)  # the version is still the same
    await write(store, updates=[(attrs.evolve(found, version=2), 1)])


async def test_a_page_makes_few_tasks_ready_at_once_and_says_so(store: Store):
    await write(store, inserts=[_later(n, n) for n in range(1, 8)])
    assert await _page(store, at(6), 3) == ([1, 2, 3], False, [4, 5, 6], False)
    assert await _page(store, at(6), 3) == ([1, 2, 3], False, [7], True)


async def test_entries_carry_what_the_window_needs(store: Store):
    task = a_task(1, priority=3)
    await write(store, inserts=[task, _later(2, 7)])
    (reading,) = await commit(store, Refill(Lane.RUN, 5))
    assert reading.page.ready == (entry_of(task),)
    assert reading.page.scheduled == (entry_of(_later(2, 7)),)


async def test_a_page_can_leave_destinations_out(store: Store):
    await write(
        store,
        inserts=[
            *(a_task(n, callback_url="http://dead.example/a") for n in range(1, 40)),
            *(a_task(n, callback_url="https://OTHER.example/b") for n in range(40, 43)),
            *(a_task(n) for n in range(50, 53)),
            _later(60, 7, callback_url="http://dead.example/c"),
        ],
    )
    (reading,) = await commit(store, Refill(Lane.RUN, 4, without=(DEAD,)))
    assert _numbers(e.task_id for e in reading.page.ready) == [40, 41, 42, 50]
    assert {e.destination for e in reading.page.ready} == {OTHER, HOST}
    assert not reading.page.ready_complete
    assert [e.destination for e in reading.page.scheduled] == [DEAD]  # those are not left out
    (reading,) = await commit(store, Refill(Lane.RUN, 3, without=(DEAD, OTHER)))
    assert _numbers(e.task_id for e in reading.page.ready) == [50, 51, 52]
    assert reading.page.ready_complete


async def test_sides_hold_the_head_of_single_destinations(store: Store):
    await write(
        store,
        inserts=[
            a_task(1),
            *(a_task(n, callback_url="http://dead.example/a") for n in (2, 3, 4)),
            a_task(5, callback_url="http://dead.example:80/b", priority=1),
            a_task(6, callback_url="http://dead.example:81/b"),
            a_task(7, callback_url="http://dead.example/c", lane=Lane.TAKE),
            a_task(8, callback_url="http://dead.example/c", status=Status.PROCESSING, owner="me"),
        ],
    )
    asked = Refill(Lane.RUN, 9, page=False, sides=(DEAD, OTHER), side_limit=4)
    (reading,) = await commit(store, asked)
    assert reading.page is None
    dead, other = reading.sides
    assert (dead.destination, _numbers(e.task_id for e in dead.ready)) == (DEAD, [5, 2, 3, 4])
    assert dead.complete
    assert other == Side(OTHER, (), complete=True)
    (reading,) = await commit(store, attrs.evolve(asked, side_limit=3))
    assert _numbers(e.task_id for e in reading.sides[0].ready) == [5, 2, 3]
    assert not reading.sides[0].complete


async def test_a_side_shows_what_has_become_due_and_says_if_that_is_not_all(store: Store):
    dead = {"callback_url": "http://dead.example/a"}
    await write(store, inserts=[_later(n, n, **dead) for n in range(1, 6)])
    asked = Refill(Lane.RUN, 2, page=False, sides=(DEAD,), side_limit=9)
    for found, complete in (([1, 2], False), ([1, 2, 3, 4], True)):
        (reading,) = await commit(store, asked, now=at(4))
        assert _numbers(e.task_id for e in reading.sides[0].ready) == found
        assert reading.sides[0].complete is complete


async def test_a_task_that_gets_another_url_moves_to_its_destination(store: Store):
    (_,) = await commit(store, creating(1))
    await commit(store, Update(an_id(1), {"callback_url": "http://dead.example/new"}))
    (reading,) = await commit(store, Refill(Lane.RUN, 5, sides=(HOST, DEAD), side_limit=5))
    assert [len(side.ready) for side in reading.sides] == [0, 1]
    assert reading.page.ready[0].destination == DEAD
    await commit(store, Claim(an_id(1), "me"))
    (reading,) = await commit(store, Refill(Lane.RUN, 5, sides=(DEAD,), side_limit=5))
    assert reading.sides[0].ready == ()


# -- by the clock ----------------------------------------------------------------------------


async def test_expired_tasks_come_earliest_first(store: Store):
    await write(
        store,
        inserts=[
            a_task(1),
            a_task(2, expires_at=at(5)),
            a_task(3, expires_at=at(3), status=Status.PENDING),
            a_task(4, expires_at=at(3)),
            a_task(5, expires_at=at(5.000_001)),
        ],
    )
    assert _ids(await store.transact(lambda r: r.expired(at(5), 10))) == [3, 4, 2]
    assert _ids(await store.transact(lambda r: r.expired(at(5), 2))) == [3, 4]
    assert await store.transact(lambda r: r.expired(at(2), 2)) == []


async def test_running_tasks_of_others_are_found(store: Store):
    processing = {"status": Status.PROCESSING}
    await write(
        store,
        inserts=[
            a_task(3, owner="old", **processing),
            a_task(1, owner="me", **processing),
            a_task(2, owner="older", **processing),
            a_task(4, owner="old", status=Status.PENDING),
        ],
    )
    assert _ids(await store.transact(lambda r: r.running("me", 10))) == [2, 3]
    assert _ids(await store.transact(lambda r: r.running("me", 1))) == [2]


async def test_a_transaction_sees_its_own_writes(store: Store):
    def work(records: Records) -> None:
        task = a_task(1, partition_key="k", expires_at=NOW)
        records.write(WriteSet(inserts=[task], counts={Status.QUEUED: 1}, answers=[an_answer()]))
        assert records.load({task.id}) == {task.id: task}
        assert records.holder("k") == task.id
        assert records.expired(NOW, 5) == [task]
        assert records.counts()[Status.QUEUED] == 1
        assert records.answer("key", NOW) == an_answer()
        assert records.ready(Lane.RUN, 5) == records.ready_at(HOST, 5) == [entry_of(task)]
        assert records.load(set()) == {}

    await store.transact(work)
