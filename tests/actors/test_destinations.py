"""Dead, slow and recovering destinations with everything around them: who is called, when, and that
nobody else has to wait for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from engine.core.breaker import BreakerState
from engine.core.destinations import DestinationFigures
from engine.core.explain import Cause
from engine.core.outcome import Answer
from engine.core.task import Dispatch, ErrorClass, RetryPolicy, Status, TaskId
from engine.errors import StoreUnavailable
from engine.service import Engine
from tests.support.builders import a_spec
from tests.support.engine import After, FakeNet, World, submit, submit_one, until

HEALTHY = "http://healthy.example/hook"
DEAD = "http://dead.example/hook"
AT_DEAD = "http://dead.example:80"
ONCE = RetryPolicy(max_attempts=1)

UNREACHABLE = After(5.0, then=503)  # a connection that is never made: refused only by time
QUICK = After(0.1)
REFUSED = Answer(error_class=ErrorClass.REFUSED, error="connection refused")


def a_world(dead: Any = UNREACHABLE, healthy: Any = QUICK) -> World:
    world = World()
    world.net.script(DEAD, dead)
    world.net.script(HEALTHY, healthy)
    return world


async def figures(engine: Engine, destination: str = AT_DEAD) -> DestinationFigures:
    found = {one.destination: one for one in (await engine.stats()).destinations.worst}
    return found[destination]


def began(net: FakeNet, url: str) -> list[float]:
    return [call.began for call in net.calls if call.url == url]


async def waits_s(engine: Engine, world: World, number: int, every_s: float) -> list[float]:
    """How long healthy tasks wait for their call, one created every so often."""
    created: dict[TaskId, float] = {}
    for _ in range(number):
        created[await submit_one(engine, HEALTHY)] = trio.current_time()
        await trio.sleep(every_s)
    await until(engine, created)
    return [world.net.of(task_id)[0].began - at for task_id, at in created.items()]


# -- the limit ---------------------------------------------------------------------------------


async def test_a_dead_host_cannot_take_the_pool(autojump_clock):
    """Half of the load goes to it, and it is not yet known for being dead."""
    world = a_world()
    async with world.open(executors=100) as engine:
        dead: list[TaskId] = []

        async def flood() -> None:
            for _ in range(200):
                dead.extend(await submit(engine, *[DEAD] * 2, retry_policy=ONCE))
                await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            waits = await waits_s(engine, world, 400, 0.01)
        assert max(waits) < 0.05
        assert sum(1 for call in world.net.calls if call.url == DEAD) <= 20
        await world.check_books(dead)
        engine.cut()


async def test_tasks_of_a_dead_host_that_wait_ahead_hide_nobody(autojump_clock):
    """More of them than the window holds, and older and more urgent than the others."""
    world = a_world()
    async with world.open(executors=100, window=50, inbox=500) as engine:
        # All at once: alone, even for a moment, the dead host might have every executor.
        ahead = [a_spec(callback_url=DEAD, dispatch=Dispatch.AUTO)] * 300
        behind = [a_spec(callback_url=HEALTHY, dispatch=Dispatch.AUTO, priority=-100)] * 200
        created = await engine.submit([*ahead, *behind])
        accepted = [receipt.task_id for receipt in created.receipts[300:]]
        await until(engine, accepted, within_s=2.0)
        assert len(began(world.net, DEAD)) == 20
        await world.check_books(accepted)
        engine.cut()


async def test_a_host_that_dies_is_found_out_although_it_has_always_answered(autojump_clock):
    world = a_world(dead=After(0.1))
    async with world.open(executors=100) as engine:
        for _ in range(20):
            await until(engine, await submit(engine, *[DEAD] * 100), every_s=0.05)
        world.net.script(DEAD, UNREACHABLE)
        await submit(engine, *[DEAD] * 500)
        await trio.sleep(5.1)  # until then it may have all of them
        waits = await waits_s(engine, world, 50, 0.1)
        assert max(waits) < 0.2
        engine.cut()


async def test_a_host_that_hangs_is_found_out_before_any_of_its_attempts_ends(autojump_clock):
    world = a_world(dead=After(0.1))
    async with world.open(executors=90) as engine:
        await until(engine, await submit(engine, *[DEAD] * 1000))
        world.net.script(DEAD, After(60.0))
        for _ in range(10):
            await submit(engine, *[DEAD] * 10, timeout_s=90.0)
            await trio.sleep(1)
        assert 60 <= world.net.in_flight <= 80  # ten a second, until enough of them were slow
        assert max(await waits_s(engine, world, 20, 0.1)) < 0.1
        engine.cut()


async def test_a_slow_host_is_held_and_let_go_when_it_is_quick_again(autojump_clock):
    world = a_world(dead=After(6.0))
    async with world.open(executors=100) as engine:
        tasks = await submit(engine, *[DEAD] * 300)
        await submit_one(engine, HEALTHY)
        await trio.sleep(7)
        assert world.net.in_flight == 20
        assert (await figures(engine)).limit == 20
        assert (await figures(engine)).breaker is BreakerState.CLOSED  # slow is not dead
        world.net.script(DEAD, After(0.5))
        await trio.sleep(7)
        assert (await figures(engine)).limit is None
        await until(engine, tasks, within_s=3)
        await world.check_books(tasks)
    assert world.net.repeated() == []


async def test_a_burst_for_one_new_host_runs_all_at_once(autojump_clock):
    world = a_world(healthy=After(2.0))
    async with world.open(executors=100) as engine:
        tasks = await submit(engine, *[HEALTHY] * 300)
        await until(engine, tasks)
    assert world.net.peak_in_flight == 100
    assert max(call.ended for call in world.net.calls) == pytest.approx(6.0, abs=0.2)


# -- the breaker -------------------------------------------------------------------------------


async def test_a_breaker_opens_half_opens_and_closes(autojump_clock):
    world = a_world(dead=REFUSED)
    async with world.open(executors=1) as engine:
        tasks = await submit(engine, *[DEAD] * 40, retry_policy=ONCE)
        await trio.sleep(1)
        assert len(began(world.net, DEAD)) == 10
        found = await figures(engine)
        assert (found.breaker, found.failures, found.in_flight) == (BreakerState.OPEN, 10, 0)
        await trio.sleep(28)
        assert len(began(world.net, DEAD)) == 10
        await trio.sleep(2)
        assert began(world.net, DEAD)[10:] == [pytest.approx(30.0, abs=0.1)]
        world.net.script(DEAD, 200)
        await until(engine, tasks, within_s=40)
        assert (await figures(engine)).breaker is BreakerState.CLOSED
        assert (await engine.stats()).destinations.openings == 2
        await world.check_books(tasks)
    ended = [(await world.task(task_id)).status for task_id in tasks]
    assert ended.count(Status.FAILED) == 11


async def test_waiting_for_a_breaker_uses_up_no_attempt(autojump_clock):
    world = a_world(dead=REFUSED)
    async with world.open(executors=1) as engine:
        await submit(engine, *[DEAD] * 10, retry_policy=ONCE)
        await trio.sleep(1)
        waiting = await submit_one(engine, DEAD, retry_policy=ONCE)
        world.net.script(DEAD, After(0.0))
        await trio.sleep(25)
        task = await engine.get(waiting)
        assert (task.status, task.attempt, task.failures) == (Status.QUEUED, 0, 0)
        await until(engine, [waiting], within_s=10)
        assert (await engine.get(waiting)).status is Status.COMPLETED
        assert [one.counted for one in await engine.attempts(waiting)] == [True]


async def test_a_breaker_stops_nobody_else(autojump_clock):
    world = a_world(dead=REFUSED)
    async with world.open(executors=1) as engine:
        await submit(engine, *[DEAD] * 100, priority=50, retry_policy=ONCE)
        assert max(await waits_s(engine, world, 20, 0.5)) < 0.2
        assert len(began(world.net, DEAD)) == 10


async def test_beside_a_breaker_that_is_open_accepting_and_claiming_are_one_commit(autojump_clock):
    world = a_world(dead=REFUSED)
    async with world.open(executors=1, sweep_interval_s=1e4) as engine:
        await submit(engine, *[DEAD] * 100, retry_policy=ONCE)
        await trio.sleep(1)
        assert (await figures(engine)).breaker is BreakerState.OPEN
        before = world.store.transactions
        accepted = await submit_one(engine, HEALTHY)
        assert world.store.transactions == before + 1
        assert (await engine.get(accepted)).status is Status.PROCESSING
        held = await submit_one(engine, DEAD)
        assert (await engine.get(held)).status is Status.QUEUED
        await until(engine, [accepted])
        await world.check_books([accepted])
        engine.cut()


async def test_order_holds_among_what_waited_for_a_breaker(autojump_clock):
    world = a_world(dead=REFUSED)
    async with world.open(executors=1) as engine:
        await submit(engine, *[DEAD] * 10, retry_policy=ONCE)
        await trio.sleep(1)
        world.net.script(DEAD, After(0.1))
        wanted = {}
        for priority in (0, 5, -5, 5, 0):
            wanted[await submit_one(engine, DEAD, priority=priority)] = priority
        await until(engine, wanted)
    assert world.net.order()[10:] == sorted(wanted, key=lambda i: (-wanted[i], i))


async def test_tasks_of_a_partition_key_wait_for_the_breaker_in_their_order(autojump_clock):
    world = a_world(dead=REFUSED)
    async with world.open(executors=1) as engine:
        await submit(engine, *[DEAD] * 10, retry_policy=ONCE)
        await trio.sleep(1)
        world.net.script(DEAD, After(0.1))
        keyed = await submit(engine, DEAD, HEALTHY, DEAD, partition_key="k")
        await trio.sleep(10)
        assert (await engine.explain(keyed[0])).cause is Cause.BREAKER_OPEN
        assert (await engine.explain(keyed[1])).facts["behind"] == keyed[0]
        await until(engine, keyed)
    assert world.net.order()[10:] == keyed


@pytest.mark.parametrize("how", ["cancel", "deadline", "elsewhere", "later"])
async def test_what_waits_for_a_breaker_can_be_changed(autojump_clock, how):
    world = a_world(dead=REFUSED)
    async with world.open(executors=1) as engine:
        await submit(engine, *[DEAD] * 10, retry_policy=ONCE)
        await trio.sleep(1)
        deadline = {"deadline": world.clock.now() + _seconds(5)} if how == "deadline" else {}
        task_id = await submit_one(engine, DEAD, **deadline)
        await trio.sleep(1)
        if how == "cancel":
            await engine.cancel(task_id)
        elif how == "elsewhere":
            await engine.update(task_id, {"callback_url": HEALTHY})
        elif how == "later":
            world.net.script(DEAD, 200)
            await engine.update(task_id, {"run_at": world.clock.now() + _seconds(100)})
        await until(engine, [task_id], within_s=200)
        status = (await engine.get(task_id)).status
        calls = [(call.url, round(call.began)) for call in world.net.of(task_id)]
    assert (status, calls) == {
        "cancel": (Status.CANCELLED, []),
        "deadline": (Status.FAILED, []),
        "elsewhere": (Status.COMPLETED, [(HEALTHY, 2)]),
        "later": (Status.COMPLETED, [(DEAD, 102)]),
    }[how]


def _seconds(number: float) -> Any:
    from datetime import timedelta

    return timedelta(seconds=number)


async def test_a_task_that_was_executed_by_hand_waits_for_the_breaker_as_well(autojump_clock):
    world = a_world(dead=REFUSED)
    async with world.open(executors=1) as engine:
        await submit(engine, *[DEAD] * 10, retry_policy=ONCE)
        manual = await submit_one(engine, DEAD, dispatch=Dispatch.MANUAL)
        await trio.sleep(1)
        assert (await engine.dequeue()).id == manual  # taking is not calling
        task = await engine.execute_and_wait(manual, 5.0)
        assert task.status is Status.PENDING
        found = await engine.explain(manual)
        assert found.cause is Cause.BREAKER_OPEN
        assert found.sentence.startswith(
            "A client has asked for its execution. The circuit breaker"
        )
        assert found.facts["until"] == "2026-01-02T03:04:35.678901Z"


async def test_a_restart_forgets_what_was_held_against_a_host(autojump_clock):
    world = a_world(dead=REFUSED)
    async with world.open(executors=1) as engine:
        tasks = await submit(engine, *[DEAD] * 20, retry_policy=ONCE)
        await trio.sleep(1)
        assert (await figures(engine)).breaker is BreakerState.OPEN
    world.net.script(DEAD, 200)
    async with world.open(executors=1) as engine:
        assert (await engine.stats()).destinations.openings == 0
        await until(engine, tasks, within_s=2)
        await world.check_books(tasks)


async def test_stopping_does_not_wait_for_what_is_held_back(autojump_clock):
    world = a_world(dead=REFUSED)
    async with world.open(executors=1) as engine:
        tasks = await submit(engine, *[DEAD] * 100, retry_policy=ONCE)
        await trio.sleep(1)
        stopped_at = trio.current_time()
    assert trio.current_time() - stopped_at < 1
    await world.check_books(tasks)
    assert [(await world.task(task_id)).status for task_id in tasks[-3:]] == [Status.QUEUED] * 3


@pytest.mark.slow
@pytest.mark.parametrize(("number", "recovers"), [(1000, True), (100, False)])
async def test_many_hosts_of_which_many_are_dead(autojump_clock, number, recovers):
    world = World()
    hosts = [f"http://host{n}.example/" for n in range(number)]
    for n, url in enumerate(hosts):
        world.net.script(url, REFUSED if n % 3 == 0 else 200)
    async with world.open(executors=50, window=200, breaker_attempts_min=2) as engine:
        fields = {"retry_policy": RetryPolicy(max_attempts=5, initial_interval_s=1.0, jitter=False)}
        tasks = [await submit(engine, *hosts, **fields) for _ in range(4)]
        every = [task_id for some in tasks for task_id in some]
        good = [task_id for some in tasks for n, task_id in enumerate(some) if n % 3]
        await until(engine, good, within_s=30)
        found = (await engine.stats()).destinations
        assert (found.known, found.open) == (number, sum(n % 3 == 0 for n in range(number)))
        if recovers:
            for url in hosts:
                world.net.script(url, 200)
        await until(engine, every, within_s=2000, every_s=10.0)
        await world.check_books(every)
    ended = {(await world.task(task_id)).status for task_id in set(every) - set(good)}
    assert ended == ({Status.COMPLETED} if recovers else {Status.FAILED})


# -- seats -------------------------------------------------------------------------------------


async def test_whatever_becomes_of_an_attempt_its_seat_is_freed(autojump_clock):
    world = a_world(dead=After(math.inf))
    async with world.open(executors=8, store_retry_s=0.1, slow_s=1000.0) as engine:
        tasks = await submit(engine, *[DEAD] * 8, timeout_s=500.0)
        await trio.sleep(1)
        assert (await figures(engine)).in_flight == 8
        for task_id in tasks[:4]:
            await engine.cancel(task_id, in_flight=True)
        await trio.sleep(1)
        assert (await figures(engine)).in_flight == 4
        world.store.fail_at = range(world.store.transactions + 2, world.store.transactions + 20)
        await submit_one(engine, DEAD, timeout_s=500.0)  # its claim fails again and again
        await trio.sleep(10)
        assert (await figures(engine)).in_flight == 5
        world.net.script(DEAD, 200)
        for task_id in tasks[4:]:
            await engine.cancel(task_id, in_flight=True)
        await trio.sleep(1)
        assert (await figures(engine)).in_flight == 1
        assert (await figures(engine)).attempts == 0  # none of this tells anything of the host
        engine.cut()


async def test_a_store_that_fails_now_and_then_leaves_no_seat_taken(autojump_clock):
    world = a_world(healthy=200)
    async with world.open(executors=8, window=8) as engine:
        world.store.fail_at = range(world.store.transactions + 5, 10_000, 3)
        accepted: list[TaskId] = []
        while len(accepted) < 100:
            try:
                accepted += await submit(engine, *[HEALTHY, DEAD] * 2, retry_policy=ONCE)
            except StoreUnavailable:
                await trio.sleep(0.1)
        await until(engine, accepted, within_s=6000)
        found = await figures(engine, "http://healthy.example:80")
        assert (found.in_flight, found.breaker) == (0, BreakerState.CLOSED)
        await world.check_books(accepted)


# -- what is told ------------------------------------------------------------------------------


async def test_explain_tells_what_holds_a_task_back(autojump_clock):
    world = a_world()
    async with world.open(executors=100) as engine:
        await submit_one(engine, HEALTHY)
        tasks = await submit(engine, *[DEAD] * 40, retry_policy=ONCE)
        await trio.sleep(1)
        held = await engine.explain(tasks[-1])
        assert held.cause is Cause.DESTINATION_LIMIT
        assert "has not answered well in the last 60 s and others are served" in held.sentence
        assert held.facts == {"destination": AT_DEAD, "limit": 20, "running": 20}
        await trio.sleep(5)
        held = await engine.explain(tasks[-1])
        assert held.cause is Cause.BREAKER_OPEN
        assert held.facts["lastError"] == "the callback answered 503"
        assert (await engine.explain(tasks[0])).cause is Cause.ENDED
        engine.cut()


async def test_explain_tells_of_trouble_with_the_store_and_of_the_end(autojump_clock):
    world = World(it=[After(1000.0)])
    async with world.open(executors=1) as engine:
        busy = await submit_one(engine, "http://callee.example/it", timeout_s=1500.0)
        task_id = await submit_one(engine)
        await trio.sleep(1)
        assert await causes(engine, [busy, task_id]) == [Cause.RUNNING, Cause.NO_EXECUTOR]
        world.store.fail_at = range(world.store.transactions + 1, 10_000)
        await trio.sleep(2)
        assert await causes(engine, [task_id]) == [Cause.STORE_TROUBLE]
        world.store.fail_at = ()
        await trio.sleep(2)
        engine.cut()
        assert await causes(engine, [task_id]) == [Cause.STOPPING]


async def causes(engine: Engine, task_ids: Sequence[TaskId]) -> list[Cause]:
    return [(await engine.explain(task_id)).cause for task_id in task_ids]
