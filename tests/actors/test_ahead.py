"""Claims that run ahead of calls: room for calls is used, and what waits for room can be stopped."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from engine.actors.slots import CallSlots
from engine.core.task import ErrorClass, Status, TaskId
from engine.service import Engine
from tests.support.engine import HANGS, After, World, submit, until

URL = "http://callee.example/it"


async def test_room_for_calls_is_used_while_results_are_stored(autojump_clock):
    world = World(it=[After(0.2)])
    world.store.delay_s = 0.01
    async with world.open(executors=20) as engine:
        task_ids = await submit(engine, *[URL] * 1_000)
        began = trio.current_time()
        await until(engine, task_ids)
        lasted = max(call.ended for call in world.net.calls) - began
    assert world.net.peak_in_flight == 20
    # At least 97 % of what is possible, ramp-up and ramp-down included; one call after the other
    # with a commit or two between them would be 91 to 95 %.
    assert 10.0 <= lasted <= 10.0 / 0.97
    await world.check_books(task_ids)


async def test_while_calls_take_long_no_claim_runs_ahead(autojump_clock):
    world = World(it=[After(10.0)])
    async with world.open(executors=8) as engine:
        task_ids = await submit(engine, *[URL] * 100, timeout_s=60.0)
        for _ in range(100):
            await trio.sleep(1.0)
            assert (await engine.stats()).counts[Status.PROCESSING] <= 8
        await until(engine, task_ids)


async def claims_that_wait(engine: Engine, world: World) -> set[TaskId]:
    """Two tasks that have been claimed and wait for room, with eight callbacks that hang."""
    await until(engine, await submit(engine, *[URL] * 400), every_s=0.05)
    hanging = await submit(engine, *[HANGS] * 30, timeout_s=500.0)
    await trio.sleep(0.5)
    running = [task for task in await world.tasks() if task.status is Status.PROCESSING]
    waiting = {task.id for task in running} - {call.task_id for call in world.net.calls}
    assert (len(running), len(waiting)) == (10, 2)
    assert waiting < set(hanging)
    stats = await engine.stats()
    assert (stats.executors, stats.executors_busy) == (8, 8)
    return waiting


async def test_a_claim_that_waits_for_room_is_put_back_when_the_engine_stops(autojump_clock):
    world = World(it=[After(0.05)])
    async with world.open(executors=8) as engine:
        waiting = await claims_that_wait(engine, world)
        engine.cut()
    for task_id in waiting:
        task = await world.task(task_id)
        assert task.status is Status.RETRYING
        (attempt,) = await world.store.inner.attempts(task_id)
        assert attempt.result.error_class is ErrorClass.INTERRUPTED
        assert not attempt.counted
        assert world.net.of(task_id) == []
    await world.check_books()


async def test_a_claim_that_waits_for_room_can_be_cancelled(autojump_clock):
    world = World(it=[After(0.05)])
    async with world.open(executors=8) as engine:
        waiting = await claims_that_wait(engine, world)
        for task_id in waiting:
            await engine.cancel(task_id, in_flight=True)
        await trio.sleep(1_000)  # the callbacks that hang have met their timeout
        assert [(await world.task(i)).status for i in waiting] == [Status.CANCELLED] * 2
        assert [world.net.of(i) for i in waiting] == [[], []]
        await world.check_books()
        engine.cut()


async def test_its_time_counts_from_the_call(autojump_clock):
    """A claim that waited for room longer than its timeout still gets its call, all of it."""
    world = World(it=[After(0.05)], late=[After(5.0)])
    late = "http://callee.example/late"
    async with world.open(executors=8, lease_margin_s=1.0) as engine:
        await until(engine, await submit(engine, *[URL] * 400), every_s=0.05)
        await submit(engine, *[HANGS] * 8, timeout_s=100.0, priority=9)
        await trio.sleep(0.02)
        task_ids = await submit(engine, late, late, timeout_s=10.0)
        await trio.sleep(0.5)
        assert {(await world.task(i)).status for i in task_ids} == {Status.PROCESSING}
        assert [world.net.of(i) for i in task_ids] == [[], []]
        await until(engine, task_ids)
        for task_id in task_ids:
            (attempt,) = await world.store.inner.attempts(task_id)
            assert attempt.result.error_class is None
            assert attempt.duration_s == pytest.approx(5.0, abs=0.1)
            (call,) = world.net.of(task_id)
            assert call.ended - call.began == pytest.approx(5.0)
        engine.cut()


async def test_who_waits_for_room_gets_it_in_order_and_who_leaves_the_line_loses_none(
    autojump_clock,
):
    slots, order = CallSlots(1), []

    async def call(name: str) -> None:
        async with slots:
            order.append(name)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, "first")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5):
            await call("gone")
        nursery.start_soon(call, "second")
        await trio.testing.wait_all_tasks_blocked()
        assert repr(slots) == "<CallSlots 1 of 1 busy, 1 wait>"
        nursery.start_soon(call, "third")
    assert order == ["first", "second", "third"]
    assert slots.busy == 0
