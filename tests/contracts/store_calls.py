"""How every store must behave as something that is called by many, and cancelled."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
import trio.testing

from engine.adapters.storage import open_store
from engine.core.batch import Batch, Records, WriteSet
from engine.core.queries import TaskQuery
from engine.core.task import Status
from engine.ports.store import Store
from tests.support.builders import a_task, an_event, an_id, write

CALLS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "transact": lambda store: store.transact(lambda records: records.counts()),
    "get": lambda store: store.get(an_id()),
    "tasks": lambda store: store.tasks(TaskQuery(), 5),
    "tasks, none": lambda store: store.tasks(TaskQuery(), 0),
    "snapshot": lambda store: store.snapshot(TaskQuery(), 5),
    "count": lambda store: store.count(TaskQuery()),
    "counts": lambda store: store.counts(),
    "oldest_waiting": lambda store: store.oldest_waiting(),
    "partition_holder": lambda store: store.partition_holder("k"),
    "attempts": lambda store: store.attempts(an_id()),
    "task_events": lambda store: store.task_events(an_id()),
    "events": lambda store: store.events(0, 5),
    "event_range": lambda store: store.event_range(),
}


def test_the_store_says_what_it_promises(url: str):
    opened = open_store(url)
    assert opened is not None
    assert all(hasattr(Store, name.partition(",")[0]) for name in CALLS)


@pytest.mark.parametrize("name", CALLS)
async def test_every_method_is_a_checkpoint(store: Store, name):
    with trio.testing.assert_checkpoints():
        await CALLS[name](store)


async def test_a_transaction_that_fails_is_a_checkpoint_too(store: Store):
    with pytest.raises(ZeroDivisionError), trio.testing.assert_checkpoints():
        await store.transact(lambda _: 1 / 0)


@pytest.mark.parametrize("name", CALLS)
async def test_every_method_can_be_cancelled_and_the_store_goes_on(store: Store, name):
    with trio.CancelScope() as scope:
        scope.cancel()
        await CALLS[name](store)
    assert scope.cancelled_caught
    assert await store.transact(lambda records: sum(records.counts().values())) == 0
    assert await store.get(an_id()) is None


async def test_a_transaction_that_has_begun_ends_as_if_not_cancelled(store: Store):
    scope, token = trio.CancelScope(), trio.lowlevel.current_trio_token()

    def cancel() -> None:
        if trio.lowlevel.in_trio_run():
            scope.cancel()
        else:
            trio.from_thread.run_sync(scope.cancel, trio_token=token)

    def work(records: Records) -> None:
        records.write(WriteSet(inserts=[a_task(1)], counts={Status.QUEUED: 1}))
        cancel()
        records.write(WriteSet(events=[an_event(a_task(1))]))

    with scope:
        await store.transact(work)
    assert await store.get(an_id(1)) == a_task(1)
    assert await store.event_range() == (1, 1)


async def test_a_cancelled_transaction_that_fails_is_undone(store: Store):
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.transact(lambda records: records.write(WriteSet(inserts=[a_task(1)])))
    assert await store.get(an_id(1)) is None


async def test_transactions_run_one_after_the_other(store: Store):
    inside = 0

    def work(n: int) -> Callable[[Records], None]:
        def one(records: Records) -> None:
            nonlocal inside
            inside += 1
            assert inside == 1
            task = a_task(n)
            records.write(
                WriteSet(inserts=[task], events=[an_event(task)], counts={Status.QUEUED: 1})
            )
            assert records.counts()[Status.QUEUED] == len(records.load(everything))
            inside -= 1

        return one

    everything = {an_id(n) for n in range(1, 31)}
    async with trio.open_nursery() as nursery:
        for n in range(1, 31):
            nursery.start_soon(store.transact, work(n))
    assert await store.event_range() == (1, 30)
    assert (await store.counts())[Status.QUEUED] == 30


async def test_a_snapshot_is_of_one_moment(store: Store):
    def one(records: Records) -> None:
        task = Batch(records).task(an_id(1))
        changed = attrs.evolve(task, version=task.version + 1)
        records.write(WriteSet(updates=[(changed, task.version)], events=[an_event(task)]))

    async def look() -> None:
        for _ in range(20):
            seq, (task,) = await store.snapshot(TaskQuery(), 5)
            assert seq == task.version

    await write(store, inserts=[a_task(1)], events=[an_event(a_task(1))])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        nursery.start_soon(look)
        for _ in range(40):
            await store.transact(one)
    assert await store.snapshot(TaskQuery(), 0) == (41, [])


async def test_reads_and_transactions_run_side_by_side(store: Store):
    async def read() -> None:
        for _ in range(10):
            oldest, newest = await store.event_range()
            events = await store.events(0, 1000)
            assert [event.seq for event in events][: newest - oldest + 1] == list(
                range(oldest, newest + 1)
            )

    async def change() -> None:
        for _ in range(20):
            await write(store, events=[an_event(a_task(1)), an_event(a_task(1))])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        for _ in range(4):
            nursery.start_soon(read)
    assert await store.event_range() == (1, 40)


async def test_a_read_sees_every_transaction_that_has_ended(store: Store):
    for n in range(1, 30):
        await write(store, inserts=[a_task(n)], counts={Status.QUEUED: 1})
        assert await store.get(an_id(n)) is not None
        assert (await store.counts())[Status.QUEUED] == n


async def test_nothing_is_left_open(url: str):
    async with open_store(url) as store:
        await write(store, inserts=[a_task(1)])
        await store.get(an_id(1))
    del store
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    assert not caught


async def test_opening_and_closing_survive_cancellation(url: str):
    for _ in range(3):
        with trio.CancelScope() as scope:
            scope.cancel()
            async with open_store(url):
                pytest.fail("opening is a checkpoint")
        assert scope.cancelled_caught
    with trio.CancelScope() as scope:
        async with open_store(url):
            scope.cancel()  # now closing has to work while cancelled
    async with open_store(url) as store:
        assert await store.event_range() == (1, 0)
