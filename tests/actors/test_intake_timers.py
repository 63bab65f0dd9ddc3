"""Hints reach the queue however full it is; time ends leases and deadlines and removes the old."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from engine.actors.executor import InFlight
from engine.actors.intake import intake
from engine.actors.mailbox import Inbox
from engine.actors.timers import pruner, sweeper
from engine.adapters.brokers.local import LocalBroker
from engine.core.entries import Entry
from engine.core.queries import Kept, TaskQuery
from engine.core.task import Dispatch, Lane, Status
from engine.errors import TaskNotFound
from engine.messages import Offered, QueueMessage, RepositoryMessage, Withdrawn
from engine.ports.broker import Hint
from tests.support.builders import CONFIG, an_id, at
from tests.support.engine import BAD, GOOD, HANGS, After, World, submit, submit_one, until
from tests.support.sweep import CancelAtStep, cancel_sweep

URL = "http://callee.example/it"


def hint(n: int) -> Hint:
    return Hint(Lane.RUN, Entry(an_id(n), n, at(0), "http://callee.example:80"))


# -- intake ------------------------------------------------------------------------------------


async def test_hints_wait_for_room_in_the_queue(autojump_clock):
    broker, queue = LocalBroker(10), Inbox[QueueMessage]("queue", 1)
    async with trio.open_nursery() as nursery:
        await nursery.start(intake, broker, queue)
        for n in (1, 2, 3):
            broker.announce([hint(n)])
        got = []
        for _ in range(3):
            await trio.sleep(1)
            message = await queue.receive()
            assert isinstance(message, Offered)
            got += [one.entry.task_id for one in message.delivery.hints]
        assert got == [an_id(1), an_id(2), an_id(3)]
        broker.close()


async def test_intake_ends_when_the_queue_ends_even_while_it_waits_for_room(autojump_clock):
    broker, queue = LocalBroker(10), Inbox[QueueMessage]("queue", 1)
    queue.tell(Withdrawn(()))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(intake, broker, queue)
            broker.announce([hint(1)])
            await trio.sleep(1)
            queue.close()


async def test_a_broker_without_room_says_that_hints_are_missing():
    broker = LocalBroker(2)
    for n in range(1, 5):
        broker.announce([hint(n)])
    first, second = await broker.receive(), await broker.receive()
    assert (first.missed, second.missed) == (True, False)
    await broker.ack(first)
    broker.close()
    broker.announce([hint(9)])
    with pytest.raises(trio.EndOfChannel):
        await broker.receive()


async def test_cancelled_at_any_step_intake_invents_and_reorders_nothing(autojump_clock):
    async def scenario(step: CancelAtStep) -> None:
        broker, queue = LocalBroker(10), Inbox[QueueMessage]("queue", 2)
        got: list[str] = []
        with step.watching():
            async with trio.open_nursery() as nursery:
                with step.scope:
                    async with trio.open_nursery() as inner:
                        await inner.start(intake, broker, queue)
                        for n in range(1, 6):
                            broker.announce([hint(n)])

                        async def read() -> None:
                            for _ in range(5):
                                await trio.sleep(0.1)
                                message = await queue.receive()
                                assert isinstance(message, Offered)
                                got.append(message.delivery.hints[0].entry.task_id)
                            broker.close()

                        inner.start_soon(read)
                nursery.cancel_scope.cancel()
        assert got == [an_id(n) for n in range(1, len(got) + 1)]
        assert step.fired or len(got) == 5

    assert await cancel_sweep(scenario, of="intake.intake") > 5


# -- leases and deadlines ----------------------------------------------------------------------


async def test_a_lease_that_ends_gives_the_task_back_to_the_next_client(autojump_clock):
    world = World()
    async with world.open() as engine:
        task_id = await submit_one(engine, dispatch=Dispatch.MANUAL)
        taken = await engine.dequeue(lease_s=30.0)
        assert (taken.id, taken.status) == (task_id, Status.PENDING)
        again = await engine.dequeue(wait_s=60.0)
        assert again.id == task_id
        assert trio.current_time() == pytest.approx(30.0, abs=1.5)
        assert await world.path(task_id) == ["Queued", "Pending", "Queued", "Pending"]
        await world.check_books([task_id])


async def test_a_released_task_is_there_for_the_next_client_at_once(autojump_clock):
    world = World()
    async with world.open() as engine:
        task_id = await submit_one(engine, dispatch=Dispatch.MANUAL)
        await engine.dequeue()
        await engine.release(task_id)
        assert (await engine.dequeue(wait_s=1.0)).id == task_id


async def test_a_task_that_was_told_to_execute_has_no_lease_to_lose(autojump_clock):
    world = World(it=[After(100.0)])
    async with world.open(executors=1) as engine:
        busy = await submit_one(engine, URL, timeout_s=200.0)
        task_id = await submit_one(engine, dispatch=Dispatch.MANUAL)
        await engine.dequeue(wait_s=1.0, lease_s=10.0)
        await engine.execute(task_id)
        await until(engine, [busy, task_id], within_s=200)
        assert await world.path(task_id) == ["Queued", "Pending", "Processing", "Completed"]


async def test_a_deadline_ends_a_waiting_task(autojump_clock):
    world = World()
    async with world.open() as engine:
        task_id = await submit_one(engine, dispatch=Dispatch.MANUAL, deadline=at(20.0))
        await trio.sleep(19)
        assert (await engine.get(task_id)).status is Status.QUEUED
        await trio.sleep(3)
        task = await engine.get(task_id)
        assert (task.status, task.reason) == (Status.FAILED, "its deadline passed")


async def test_a_deadline_ends_what_was_to_run_and_had_to_wait(autojump_clock):
    world = World()
    async with world.open(executors=1) as engine:
        await submit_one(engine, HANGS, timeout_s=100)
        task_id = await submit_one(engine, dispatch=Dispatch.MANUAL, deadline=at(20.0))
        await engine.dequeue()
        await engine.execute(task_id)
        await until(engine, [task_id], within_s=25)
        task = await engine.get(task_id)
        await world.check_books([task_id])
        assert await world.path(task_id) == ["Queued", "Pending", "Queued", "Failed"]
    assert (task.status, task.reason) == (Status.FAILED, "its deadline passed")


async def test_a_deadline_ends_the_retries(autojump_clock):
    world = World()
    async with world.open() as engine:
        task_id = await submit_one(engine, BAD, deadline=at(1.0))
        await until(engine, [task_id])
        task = await engine.get(task_id)
    assert task.status is Status.FAILED
    assert "deadline" in (task.reason or "")


async def test_more_leases_than_one_round_takes_end_together(autojump_clock):
    world = World()
    async with world.open(commit_batch=5) as engine:
        accepted = await submit(engine, *[GOOD] * 23, dispatch=Dispatch.MANUAL)
        for _ in accepted:
            await engine.dequeue(lease_s=10.0)
        await trio.sleep(12)
        assert {task.status for task in await world.tasks()} == {Status.QUEUED}
        await world.check_books(accepted)


async def test_leases_end_although_the_store_was_away_for_a_while(autojump_clock):
    world = World()
    async with world.open() as engine:
        task_id = await submit_one(engine, dispatch=Dispatch.MANUAL)
        await engine.dequeue(lease_s=10.0)
        world.store.down = True
        await trio.sleep(60)
        world.store.down = False
        await until(engine, [task_id], Status.QUEUED, within_s=5)


async def test_timers_end_with_the_repository(autojump_clock):
    inbox = Inbox[RepositoryMessage]("repository", 1)
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sweeper, inbox, InFlight(), CONFIG)
            nursery.start_soon(pruner, inbox, CONFIG)
            await trio.sleep(1)  # the second found no room, and will try again
            (request,) = inbox.receive_nowait()
            request.reply.answer(0)
            inbox.close()


# -- pruning -----------------------------------------------------------------------------------


async def test_what_is_older_than_kept_goes_away_and_the_rest_stays(autojump_clock):
    world = World()
    settings: dict[str, Any] = {
        "archive_retention_s": 100.0,
        "event_retention_s": 50.0,
        "prune_interval_s": 10.0,
        "prune_batch": 3,
    }
    async with world.open(**settings) as engine:
        old = await submit(engine, *[GOOD] * 10)
        await until(engine, old)
        waiting = await submit_one(engine, dispatch=Dispatch.MANUAL)
        await trio.sleep(70)
        assert await engine.count(TaskQuery(kept=Kept.ARCHIVE)) == 10
        assert (await world.store.inner.event_range()) == (42, 41)
        await trio.sleep(50)
        assert await engine.list_tasks(TaskQuery(), 100) == [await engine.get(waiting)]
        with pytest.raises(TaskNotFound):
            await engine.get(old[0])
        young = await submit_one(engine)
        await until(engine, [young])
        assert [event.seq for event in await engine.task_events(young)] == [42, 43, 44, 45]
