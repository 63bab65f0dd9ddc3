"""A task that finds an executor idle is claimed in the commit that accepts it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from engine.core.commands import Claim, IdempotencyKey
from engine.core.entries import Arrival
from engine.core.task import Dispatch, Lane, Status
from engine.errors import Overloaded, StoreUnavailable
from engine.messages import Arriving
from tests.actors.test_queue import Rig, claims, entry, running
from tests.support.builders import a_spec, an_id
from tests.support.engine import GOOD, World, submit, submit_one, until

HOST = "http://callee:80"


def arrive(rig: Rig, *numbers: int) -> None:
    rig.inbox.tell(Arriving(tuple(Arrival(an_id(n), HOST) for n in numbers)))


# -- the queue ---------------------------------------------------------------------------------


async def test_it_is_claimed_for_who_asks(autojump_clock):
    rig = Rig()
    async with running(rig) as nursery:
        await rig.know()
        await rig.ask(nursery, "a", "b")
        arrive(rig, 1)
        assert await rig.requests() == [Claim(an_id(1), "b")]
        assert rig.actor.waiting[Lane.RUN] == 1


async def test_it_is_not_kept_for_who_asks_later(autojump_clock):
    """The store will offer it, if it takes it."""
    rig = Rig()
    async with running(rig) as nursery:
        await rig.know()
        arrive(rig, 1)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(rig.next)
        assert await rig.requests() == []


async def test_it_passes_by_nobody_of_whom_the_queue_does_not_know_yet(autojump_clock):
    rig = Rig()
    async with running(rig) as nursery:
        nursery.start_soon(rig.next)
        await trio.testing.wait_all_tasks_blocked()
        arrive(rig, 1)
        assert claims(await rig.requests()) == []


async def test_who_waits_goes_first(autojump_clock):
    rig = Rig()
    async with running(rig) as nursery:
        await rig.know()
        await rig.ask(nursery, "a", "b")
        arrive(rig, 3)
        rig.offer(entry(1), entry(2))
        assert claims(await rig.requests()) == [an_id(1), an_id(2)]


async def test_of_more_than_can_run_none_is_claimed_before_their_order_is_known(autojump_clock):
    rig = Rig(executors=2)
    async with running(rig) as nursery:
        await rig.know()
        for _ in range(3):  # more ask than may run
            nursery.start_soon(rig.next)
        await trio.testing.wait_all_tasks_blocked()
        arrive(rig, 1, 2, 3)
        assert await rig.requests() == []
        arrive(rig, 4, 5)
        assert claims(await rig.requests()) == [an_id(4), an_id(5)]


async def test_where_the_repository_has_no_room_the_asker_goes_on_asking(autojump_clock):
    rig = Rig(repository_inbox=2)
    async with running(rig) as nursery:
        await rig.know()
        nursery.start_soon(rig.next)
        await trio.testing.wait_all_tasks_blocked()
        rig.repository.tell(None)  # type: ignore[arg-type]  # anything
        rig.repository.tell(None)  # type: ignore[arg-type]
        arrive(rig, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.actor.waiting[Lane.RUN] == 1
        rig.repository.receive_nowait()
        rig.offer(entry(1))  # it is stored
        assert claims(await rig.requests()) == [an_id(1)]


# -- the engine --------------------------------------------------------------------------------


async def test_accepting_and_claiming_are_one_commit(autojump_clock):
    world = World()
    async with world.open(sweep_interval_s=1e4) as engine:
        await trio.sleep(0.5)
        before = world.store.transactions
        task_id = await submit_one(engine)
        assert world.store.transactions == before + 1
        assert (await engine.get(task_id)).status is Status.PROCESSING
        await until(engine, [task_id])
        assert world.store.transactions == before + 2
        assert await world.path(task_id) == ["Queued", "Pending", "Processing", "Completed"]
        await world.check_books([task_id])


async def test_a_batch_that_finds_room_for_all_is_one_commit(autojump_clock):
    world = World()
    async with world.open(executors=8, sweep_interval_s=1e4) as engine:
        await trio.sleep(0.5)
        before = world.store.transactions
        tasks = await submit(engine, *[GOOD] * 8)
        assert world.store.transactions == before + 1
        await until(engine, tasks)
        assert world.net.peak_in_flight == 8
        await world.check_books(tasks)


async def test_one_that_is_refused_is_not_called_and_costs_no_executor(autojump_clock):
    world = World()
    async with world.open(executors=1, queue_max=1) as engine:
        await submit_one(engine, dispatch=Dispatch.MANUAL)
        for _ in range(3):
            with pytest.raises(Overloaded):
                await submit_one(engine)
        await trio.sleep(1)
        assert world.net.calls == []
        await engine.dequeue()
        accepted = await submit_one(engine)
        await until(engine, [accepted])
        assert (await engine.stats()).executors_busy == 0
        await world.check_books([accepted])


async def test_a_repeated_request_calls_nothing_again(autojump_clock):
    world = World()
    key = IdempotencyKey("key", "print")
    async with world.open(executors=1) as engine:
        created = [await engine.submit([a_spec(callback_url=GOOD)], key=key) for _ in range(3)]
        assert [one.replayed for one in created] == [False, True, True]
        (task_id,) = {one.receipts[0].task_id for one in created}
        after = await submit_one(engine)
        await until(engine, [task_id, after])
        assert len(world.net.calls) == 2
        await world.check_books([task_id, after])


async def test_where_the_commit_fails_nothing_is_called(autojump_clock):
    world = World()
    async with world.open(executors=1) as engine:
        await trio.sleep(0.5)  # until the queue knows that nothing waits
        world.store.down = True
        with pytest.raises(StoreUnavailable):
            await submit_one(engine)
        world.store.down = False
        await trio.sleep(5)
        assert world.net.calls == []
        accepted = await submit_one(engine)
        await until(engine, [accepted])
        await world.check_books([accepted])
