"""What every store must do, at the level of rows. ``test_stores.py`` runs it over every adapter."""

from __future__ import annotations

import attrs
import pytest

from engine.core.batch import Batch, Records, WriteSet
from engine.core.task import CallbackResult, ErrorClass, Lane, RetryPolicy, Status, Task, Wait
from engine.errors import StoreConflict, StoreRejected
from engine.ports.store import Store
from tests.support.builders import NOW, a_task, an_answer, an_attempt, an_event, an_id, at, write

ENTIRE = a_task(
    7,
    name="naïve ☃",
    description="d",
    payload={"nested": [1, 2.5, None, True, "☃\x7f", {"": []}], "big": 2**80},
    priority=-3,
    run_at=at(60),
    delay_s=None,
    deadline=at(3600),
    timeout_s=1.5,
    retry_policy=RetryPolicy(max_attempts=7, jitter=False),
    headers={"X-One": "1"},
    metadata={"tenant": "é", "zone": ""},
    partition_key="key ☃",
    version=12,
    created_at=at(-1),
    due_at=at(60),
    rank=-(2**40),
    lane=Lane.TAKE,
    wait=Wait.BLOCKED,
    attempt=3,
    failures=2,
    recoveries=1,
    owner="somebody",
    expires_at=at(3600),
    executed_at=at(-0.000_001),
    completed_at=at(5),
    result=CallbackResult(
        status_code=500, body='"\n☃', truncated=True, error_class=ErrorClass.TLS, error="no"
    ),
    reason="why",
)


async def test_an_empty_store_answers_everything(store: Store):
    assert await store.get(an_id()) is None
    assert await store.counts() == dict.fromkeys(Status, 0)
    assert await store.oldest_waiting() is None
    assert await store.partition_holder("key") is None
    assert await store.attempts(an_id()) == []
    assert await store.task_events(an_id()) == []
    assert list(await store.events(0, 10)) == []
    assert await store.event_range() == (1, 0)


async def test_a_task_comes_back_as_it_went_in(store: Store):
    bare = a_task(8, status=Status.PENDING)
    await write(store, inserts=[ENTIRE, bare])
    assert await store.get(ENTIRE.id) == ENTIRE
    assert await store.get(bare.id) == bare
    assert await store.transact(lambda r: r.load({ENTIRE.id, bare.id, an_id(9)})) == {
        ENTIRE.id: ENTIRE,
        bare.id: bare,
    }


async def test_every_field_can_be_updated(store: Store):
    await write(store, inserts=[a_task(7)])
    changed = attrs.evolve(ENTIRE, created_at=NOW)
    await write(store, updates=[(changed, 1)])
    assert await store.get(changed.id) == changed


async def test_an_update_keeps_a_spec_that_was_read_in_the_same_transaction(store: Store):
    await write(store, inserts=[ENTIRE])

    def work(records: Records) -> None:
        task = Batch(records).task(ENTIRE.id)
        records.write(WriteSet(updates=[(attrs.evolve(task, version=13, owner="me"), 12)]))
        task = Batch(records).task(ENTIRE.id)
        spec = attrs.evolve(task.spec, payload="new")
        records.write(WriteSet(updates=[(attrs.evolve(task, version=14, spec=spec), 13)]))

    await store.transact(work)
    task = await store.get(ENTIRE.id)
    assert task is not None
    assert (task.version, task.owner, task.spec.payload) == (14, "me", "new")
    assert task.spec.metadata == ENTIRE.spec.metadata


async def test_an_exception_in_the_work_leaves_no_trace(store: Store):
    await write(store, inserts=[a_task(1)], counts={Status.QUEUED: 1})

    def work(records: Records) -> None:
        for n in (2, 3):  # several writes
            task = a_task(n)
            records.write(
                WriteSet(
                    inserts=[task],
                    events=[an_event(task)],
                    attempts=[an_attempt(task.id)],
                    answers=[an_answer(f"key {n}")],
                    counts={Status.QUEUED: 1},
                )
            )
        changed = attrs.evolve(a_task(1), version=2, status=Status.CANCELLED, archived_at=NOW)
        records.write(WriteSet(archived=[(changed, 1)]))
        records.prune(at(9), at(9), at(9), 10)
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        await store.transact(work)
    assert await store.get(an_id(1)) == a_task(1)
    assert await store.get(an_id(2)) is None
    assert await store.attempts(an_id(2)) == []
    assert (await store.counts())[Status.QUEUED] == 1
    assert await store.event_range() == (1, 0)
    assert await store.transact(lambda r: r.answer("key 2", NOW)) is None


async def test_a_prune_that_fails_leaves_no_trace(store: Store):
    ended = a_task(1, status=Status.COMPLETED, archived_at=NOW)
    await write(
        store,
        archived=[(ended, None)],
        events=[an_event(ended), an_event(ended)],
        attempts=[an_attempt(ended.id)],
        answers=[an_answer()],
        counts={Status.COMPLETED: 1},
    )

    def work(records: Records) -> None:
        assert records.prune(at(9), at(9), at(9), 10) == 4
        raise KeyError("on purpose")

    with pytest.raises(KeyError):
        await store.transact(work)
    assert await store.get(ended.id) == ended
    assert len(await store.attempts(ended.id)) == 1
    assert await store.event_range() == (1, 2)
    assert (await store.counts())[Status.COMPLETED] == 1
    assert await store.transact(lambda r: r.answer("key", NOW)) == an_answer()


@pytest.mark.parametrize("kind", ["updates", "archived"])
async def test_a_row_that_has_another_version_is_a_conflict_and_nothing_is_kept(store: Store, kind):
    await write(store, inserts=[a_task(1), a_task(2)])
    for version, n in ((2, 2), (1, 3)):  # another version; no such task
        changed = attrs.evolve(a_task(n), version=3, archived_at=NOW)
        good = attrs.evolve(a_task(1), version=2, archived_at=NOW)
        with pytest.raises(StoreConflict):
            await write(
                store,
                **{kind: [(good, 1), (changed, version)]},
                inserts=[a_task(4)],
                events=[an_event(good)],
            )
    assert await store.get(an_id(1)) == a_task(1)
    assert await store.get(an_id(4)) is None
    assert await store.event_range() == (1, 0)


async def test_what_is_there_cannot_be_inserted_again(store: Store):
    await write(store, inserts=[a_task(1)], attempts=[an_attempt(an_id(1))])
    with pytest.raises(StoreRejected):
        await write(store, inserts=[a_task(2), a_task(1)])
    with pytest.raises(StoreRejected):
        await write(store, attempts=[an_attempt(an_id(1))])
    assert await store.get(an_id(2)) is None


async def test_an_archived_task_moves_in_one_transaction(store: Store):
    await write(store, inserts=[a_task(1, metadata={"a": "b"})], attempts=[an_attempt(an_id(1))])

    def work(records: Records) -> Task:
        task = Batch(records).task(an_id(1))
        ended = attrs.evolve(
            task, status=Status.COMPLETED, version=2, lane=None, wait=None, archived_at=at(1)
        )
        records.write(WriteSet(archived=[(ended, 1)]))
        assert records.load({ended.id}) == {ended.id: ended}  # it sees its own writes
        return ended

    ended = await store.transact(work)
    assert await store.get(ended.id) == ended
    assert len(await store.attempts(ended.id)) == 1
    with pytest.raises(StoreConflict):  # it is no longer a live row
        await write(store, updates=[(attrs.evolve(ended, archived_at=None, version=3), 2)])


async def test_a_task_can_be_born_in_the_archive(store: Store):
    ended = a_task(1, status=Status.CANCELLED, lane=None, wait=None, archived_at=NOW)
    await write(store, archived=[(ended, None)], counts={Status.CANCELLED: 1})
    assert await store.get(ended.id) == ended


async def test_events_are_numbered_without_gaps(store: Store):
    task = a_task(1)
    assert await write(store, events=[an_event(task), an_event(task, attempt=1)]) == 1
    with pytest.raises(StoreConflict):
        await write(store, events=[an_event(task)], updates=[(task, 1)])
    assert await write(store, inserts=[task]) == 0  # no event, no number
    for n in range(5):
        assert await write(store, events=[an_event(task, attempt=n)]) == 3 + n
    found = await store.events(0, 100)
    assert [event.seq for event in found] == [1, 2, 3, 4, 5, 6, 7]
    assert found[1] == an_event(task, attempt=1, seq=2)
    assert [event.seq for event in await store.events(2, 3)] == [3, 4, 5]
    assert list(await store.events(7, 3)) == []
    assert await store.event_range() == (1, 7)


async def test_an_event_comes_back_as_it_went_in(store: Store):
    task = a_task(3)
    result = CallbackResult(status_code=200, body="☃")
    event = an_event(task, from_status=Status.PROCESSING, reason="☃", result=result, at=at(1e-6))
    await write(store, events=[event, an_event(a_task(4))])
    assert await store.task_events(task.id) == [attrs.evolve(event, seq=1)]


async def test_attempts_come_in_their_order(store: Store):
    second = an_attempt(an_id(1), 2, counted=False, duration_s=1e-6, url="http://☃/")
    await write(store, attempts=[second, an_attempt(an_id(1), 1), an_attempt(an_id(2), 1)])
    assert await store.attempts(an_id(1)) == [an_attempt(an_id(1), 1), second]


async def test_counts_are_added_up(store: Store):
    await write(store, counts={Status.QUEUED: 3})
    await write(store, counts={Status.QUEUED: -2, Status.FAILED: 1})
    assert await store.counts() == {
        **dict.fromkeys(Status, 0),
        Status.QUEUED: 1,
        Status.FAILED: 1,
    }
    assert await store.transact(lambda r: dict(r.counts())) == await store.counts()


async def test_an_answer_is_known_until_it_is_too_old(store: Store):
    await write(store, answers=[an_answer("key")])
    assert await store.transact(lambda r: r.answer("key", NOW)) == an_answer("key")
    assert await store.transact(lambda r: r.answer("key", at(1e-6))) is None
    assert await store.transact(lambda r: r.answer("other", NOW)) is None
    again = an_answer("key", at(100))  # the key was free again
    await write(store, answers=[again])
    assert await store.transact(lambda r: r.answer("key", NOW)) == again


async def test_the_oldest_waiting_task_is_the_queued_one_created_first(store: Store):
    await write(store, inserts=[a_task(3), a_task(2), a_task(1, status=Status.RETRYING)])
    found = await store.oldest_waiting()
    assert found is not None
    assert found.id == an_id(2)
