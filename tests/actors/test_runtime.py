"""The whole engine: it starts where another stopped, keeps its promises while it runs, and stops
without losing anything, however it is stopped."""

from __future__ import annotations

import itertools
import math
from contextlib import suppress
from datetime import datetime
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from engine.adapters.system import SystemClock, SystemIds
from engine.core.commands import Claim, Created, IdempotencyKey, Recover
from engine.core.explain import Cause
from engine.core.outcome import Answer
from engine.core.queries import Kept, TaskQuery
from engine.core.suspects import PRIME_AFTER, SUSPECT_AFTER, SUSPECTS_MAX, UP_S
from engine.core.task import Attempt, Dispatch, RetryPolicy, Status, TaskSpec
from engine.errors import (
    EngineStopping,
    IllegalTransition,
    InvalidTask,
    NotTakeable,
    StoreUnavailable,
    TaskNotFound,
    VersionMismatch,
)
from engine.runtime import open_engine, system_ports
from engine.service import Engine
from tests.support.builders import CONFIG, a_spec, an_id, at, commit, creating
from tests.support.engine import (
    BAD,
    GOOD,
    HANGS,
    STUCK,
    After,
    World,
    submit,
    submit_one,
    until,
)
from tests.support.sweep import CancelAtStep, cancel_sweep, nobody_hangs

URL = "http://callee.example/it"
ONCE = RetryPolicy(max_attempts=1)


# -- one at a time per partition key -----------------------------------------------------------


async def test_tasks_of_one_key_run_one_at_a_time_and_in_order(autojump_clock):
    world = World(it=[After(1.0)])
    async with world.open(executors=10) as engine:
        eu = await submit(engine, *[URL] * 5, partition_key="eu")
        us = await submit(engine, *[URL] * 5, partition_key="us", priority=10)
        await until(engine, eu + us)
        await world.check_books(eu + us)
    for ids in (eu, us):
        calls = [world.net.of(task_id)[0] for task_id in ids]
        for earlier, later in itertools.pairwise(calls):
            assert earlier.ended <= later.began
    assert trio.current_time() == pytest.approx(5.0, abs=0.5)


async def test_who_retries_keeps_the_turn_and_who_fails_passes_it_on(autojump_clock):
    world = World(it=[500, 200])
    policy = RetryPolicy(max_attempts=2, initial_interval_s=30.0, jitter=False)
    async with world.open() as engine:
        retrying = await submit_one(engine, URL, partition_key="eu", retry_policy=policy)
        failing = await submit_one(engine, BAD, partition_key="eu", retry_policy=ONCE)
        last = await submit_one(engine, partition_key="eu")
        await until(engine, [retrying, failing, last])
        assert (await engine.get(failing)).status is Status.FAILED
    assert world.net.order() == [retrying, retrying, failing, last]


async def test_a_cancelled_task_passes_its_turn_on_wherever_it_was(autojump_clock):
    world = World(it=[500])
    policy = RetryPolicy(initial_interval_s=1000.0, max_interval_s=1000.0, jitter=False)
    async with world.open() as engine:
        running = await submit_one(engine, HANGS, partition_key="eu", timeout_s=500.0)
        retrying = await submit_one(engine, URL, partition_key="eu", retry_policy=policy)
        scheduled = await submit_one(engine, partition_key="eu", delay_s=500.0)
        blocked = await submit_one(engine, partition_key="eu")
        last = await submit_one(engine, partition_key="eu")
        await trio.sleep(1)
        await engine.cancel(blocked)
        await trio.sleep(1)
        assert world.net.order() == [running]
        await engine.cancel(running, in_flight=True)
        await until(engine, [retrying], Status.RETRYING)
        await engine.cancel(retrying)
        await trio.sleep(1)
        assert (await engine.get(last)).status is Status.QUEUED
        await engine.cancel(scheduled)
        await until(engine, [last])
        await world.check_books([running, retrying, scheduled, blocked, last])
    assert world.net.order() == [running, retrying, last]


async def test_turns_survive_a_restart(autojump_clock):
    world = World(it=[After(5.0)])
    async with world.open() as engine:
        ids = await submit(engine, *[URL] * 3, partition_key="eu")
        await trio.sleep(1)
        engine.cut()
    async with world.open() as engine:
        await until(engine, ids)
        await world.check_books(ids)
    assert world.net.order() == [ids[0], *ids]


# -- stopping ----------------------------------------------------------------------------------


async def test_a_running_attempt_gets_the_grace_to_end(autojump_clock):
    world = World(it=[After(5.0)])
    async with world.open(grace_s=10.0) as engine:
        task_id = await submit_one(engine, URL)
        await trio.sleep(1)
    assert trio.current_time() == pytest.approx(5.0, abs=0.1)
    assert (await world.task(task_id)).status is Status.COMPLETED


async def test_an_attempt_beyond_the_grace_is_cut_and_put_back_uncounted(autojump_clock):
    world = World(it=[After(50.0)])
    async with world.open(grace_s=10.0) as engine:
        task_id = await submit_one(engine, URL, timeout_s=100.0)
        await trio.sleep(1)
    assert trio.current_time() == pytest.approx(11.0, abs=0.1)
    task = await world.task(task_id)
    assert (task.status, task.failures, task.attempt) == (Status.RETRYING, 0, 1)
    await world.check_books([task_id])
    async with world.open() as engine:
        await until(engine, [task_id])
        assert (await engine.get(task_id)).attempt == 2


async def test_a_cut_waits_for_nothing(autojump_clock):
    world = World()
    async with world.open(grace_s=1000.0) as engine:
        task_ids = await submit(engine, *[STUCK] * 4)
        await trio.sleep(1)
        engine.stop()
        assert engine.stopping
        assert "stopping" in repr(engine)
        engine.cut()
    assert trio.current_time() == pytest.approx(1.0, abs=0.1)
    assert {(await world.task(i)).status for i in task_ids} == {Status.RETRYING}


async def test_nothing_new_begins_once_the_stop_has_begun(autojump_clock):
    world = World(it=[After(5.0)])
    async with world.open(executors=1) as engine:
        task_ids = await submit(engine, *[URL] * 3)
        await trio.sleep(1)
        engine.stop()
        with pytest.raises(EngineStopping):
            await submit_one(engine)
        with pytest.raises(EngineStopping):
            await engine.dequeue(wait_s=5.0)
        with pytest.raises(EngineStopping):
            await engine.check_ready()
    assert len(world.net.calls) == 1
    statuses = [(await world.task(i)).status for i in task_ids]
    assert statuses == [Status.COMPLETED, Status.QUEUED, Status.QUEUED]


async def test_clients_who_wait_are_told_of_the_stop(autojump_clock):
    world = World()
    told: list[str] = []

    async def wait(engine: Engine) -> None:
        try:
            await engine.dequeue(wait_s=1000.0)
        except EngineStopping:
            told.append("stopping")

    async with nobody_hangs(60) as nursery:
        async with world.open() as engine:
            for _ in range(3):
                nursery.start_soon(wait, engine)
            await trio.sleep(1)
    assert told == ["stopping"] * 3
    assert trio.current_time() < 10
    for call in (engine.release, engine.execute, engine.retry):
        with pytest.raises(EngineStopping):
            await call(an_id(1))


async def test_results_that_cannot_be_stored_hold_the_stop_up_for_so_long_only(autojump_clock):
    world = World(it=[After(2.0)])
    async with world.open(grace_s=10.0, cleanup_timeout_s=5.0) as engine:
        task_id = await submit_one(engine, URL)
        await trio.sleep(1)
        world.store.down = True
    assert trio.current_time() < 30
    world.store.down = False
    async with world.open() as engine:  # it is Processing still, and recovered
        await until(engine, [task_id])
        await world.check_books([task_id])


async def test_a_stop_of_an_idle_engine_is_immediate(autojump_clock):
    world = World()
    for _ in range(50):
        async with world.open(executors=3):
            pass
    assert trio.current_time() < 0.1
    assert world.net.open_callers == 0


async def test_fifty_starts_and_stops_in_the_middle_of_work_lose_nothing(autojump_clock):
    world = World(it=[After(0.3)])
    accepted: list[str] = []
    for number in range(50):
        async with world.open(grace_s=0.2) as engine:
            accepted += await submit(engine, *[URL] * 3)
            await trio.sleep(0.05 * (number % 7))
    await world.check_books(accepted)
    async with world.open() as engine:
        await until(engine, accepted)
        await world.check_books(accepted)
    assert {task.status for task in await world.tasks()} == {Status.COMPLETED}


# -- errors ------------------------------------------------------------------------------------


async def test_an_error_in_an_actor_leaves_open_engine(autojump_clock):
    world = World()
    outcomes: list[str] = []

    async def client(engine: Engine) -> None:
        try:
            await submit_one(engine)
        except EngineStopping:
            outcomes.append("told")

    async with nobody_hangs(60) as nursery:
        with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
            async with world.open() as engine:
                await trio.testing.wait_all_tasks_blocked()
                world.store.gate = trio.Event()
                world.store.error = ZeroDivisionError("a bug")
                world.store.fail_at = {world.store.transactions + 1}
                for _ in range(3):
                    nursery.start_soon(client, engine)
                await trio.testing.wait_all_tasks_blocked()
                world.store.gate.set()
                await trio.sleep_forever()
    assert caught.group_contains(ZeroDivisionError)
    assert outcomes == ["told"] * 3


async def test_an_error_in_the_block_stops_the_engine_and_is_passed_on(autojump_clock):
    world = World(it=[After(5.0)])
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with world.open() as engine:
            task_id = await submit_one(engine, URL)
            await trio.sleep(1)
            raise KeyError("mine")
    assert caught.group_contains(KeyError)
    await world.check_books([task_id])
    assert (await world.task(task_id)).status in (Status.COMPLETED, Status.RETRYING)


async def test_a_store_that_is_down_at_the_start_is_told(autojump_clock):
    world = World()
    world.store.down = True
    with pytest.raises(BaseExceptionGroup) as caught:
        async with world.open():
            pass
    assert caught.group_contains(StoreUnavailable)


async def test_readiness_tells_of_store_trouble_and_of_its_end(autojump_clock):
    world = World()
    async with world.open() as engine:
        await engine.check_ready()
        world.store.fail_at = range(10_000)  # also what the queue reads again at once
        with pytest.raises(StoreUnavailable):
            await submit_one(engine)
        with pytest.raises(StoreUnavailable):
            await engine.check_ready()
        world.store.fail_at = ()
        await submit_one(engine)
        await trio.sleep(4)  # the sweeper's transactions succeed, too
        await engine.check_ready()


@pytest.mark.parametrize(
    "changes",
    [{"no_such_field": 1}, {"name": 5}, {"priority": "high"}],
)
async def test_an_update_that_makes_no_sense_harms_its_caller_only(autojump_clock, changes):
    world = World()
    async with world.open() as engine:
        task_id = await submit_one(engine, dispatch=Dispatch.MANUAL)
        with pytest.raises((TypeError, InvalidTask)):
            await engine.update(task_id, changes)
        assert (await engine.get(task_id)).version == 1
        await until(engine, [await submit_one(engine)])


@pytest.mark.parametrize(
    "changes",
    [
        {"partition_key": None},
        {"dispatch": Dispatch.AUTO},
        {"deadline": at(10.0)},
        {"delay_s": 10.0},
    ],
)
async def test_what_decides_where_a_task_waits_cannot_be_updated(autojump_clock, changes):
    """A task whose key is taken away while it waits for its turn would wait for ever."""
    world = World()
    async with world.open() as engine:
        await submit_one(engine, dispatch=Dispatch.MANUAL, partition_key="eu")
        task_id = await submit_one(engine, dispatch=Dispatch.MANUAL, partition_key="eu")
        with pytest.raises(InvalidTask) as caught:
            await engine.update(task_id, changes)
        assert [path for path, _ in caught.value.problems] == [tuple(changes)]
        assert (await engine.get(task_id)).version == 1


async def test_an_update_changes_what_it_names(autojump_clock):
    world = World()
    async with world.open() as engine:
        task_id = await submit_one(engine, dispatch=Dispatch.MANUAL)
        task = await engine.update(task_id, {"name": "other", "priority": 3}, if_version=1)
        assert (task.spec.name, task.spec.priority, task.version) == ("other", 3, 2)
        with pytest.raises(VersionMismatch):
            await engine.update(task_id, {"name": "again"}, if_version=1)
        with pytest.raises(InvalidTask, match="name"):
            await engine.update(task_id, {"name": ""})
        with pytest.raises(TaskNotFound):
            await engine.update(an_id(9), {"name": "nobody"})


async def test_a_bad_spec_is_refused_with_its_place_and_nothing_is_stored(autojump_clock):
    world = World()
    async with world.open() as engine:
        with pytest.raises(InvalidTask) as caught:
            await engine.submit([a_spec(), a_spec(name="", callback_url="nowhere")])
        assert [path for path, _ in caught.value.problems] == [(1, "name"), (1, "callback_url")]
        assert await world.tasks() == []


# -- starting where another stopped ------------------------------------------------------------


async def abandoned(world: World, *urls: str, **fields: Any) -> list[str]:
    """Tasks that are Processing in the store, as a process that was killed leaves them."""
    async with world.open(cleanup_timeout_s=0.1, grace_s=0.1) as engine:
        task_ids = await submit(engine, *urls, **fields)
        await until(engine, task_ids, Status.PROCESSING)
        world.store.down = True
    world.store.down = False
    for task_id in task_ids:
        assert (await world.task(task_id)).status is Status.PROCESSING
    return task_ids


async def test_what_another_process_left_running_is_repeated_at_once(autojump_clock):
    world = World(it=[After(9.0), 200])
    task_ids = await abandoned(world, *[URL] * 3)
    began = trio.current_time()
    async with world.open() as engine:
        await until(engine, task_ids, within_s=5)
        await world.check_books(task_ids)
        task = await engine.get(task_ids[0])
        assert (task.attempt, task.failures, task.recoveries) == (2, 0, 0)
    assert trio.current_time() - began < 2
    assert await world.path(task_ids[0]) == [
        *("Queued", "Pending", "Processing", "Retrying", "Processing", "Completed")
    ]


async def test_more_than_one_round_of_orphans_is_recovered(autojump_clock):
    world = World()
    ids = [an_id(n) for n in range(1, 602)]
    create = creating(*range(1, 602), callback_url=GOOD, dispatch=Dispatch.AUTO)
    await commit(world.store.inner, create)
    await commit(world.store.inner, *(Claim(i, "another") for i in ids))
    async with world.open() as engine:
        await until(engine, ids)
        await world.check_books()
    assert {task.attempt for task in await world.tasks()} == {2}


async def test_a_task_that_takes_the_process_down_again_and_again_is_given_up(autojump_clock):
    world = World()
    (task_id,) = await abandoned(world, HANGS, timeout_s=100.0)
    for _ in range(3):
        async with world.open(cleanup_timeout_s=0.1, grace_s=0.1) as engine:
            await until(engine, [task_id], Status.PROCESSING)
            world.store.down = True
        world.store.down = False
    async with world.open() as engine:
        task = await engine.get(task_id)
        assert task.status is Status.FAILED
        assert "4 attempts in a row were lost" in (task.reason or "")
        await world.check_books([task_id])
    assert len(world.net.calls) == 4


async def lost_before(world: World, task_ids: list[str], times: int) -> None:
    """The engine that is opened next is not the first that has lost these."""
    for _ in range(times):
        await commit(world.store.inner, Recover("nobody", 100))
        await commit(world.store.inner, *(Claim(i, "another") for i in task_ids))


async def test_a_few_suspects_run_at_once_beside_the_others(autojump_clock):
    world = World(it=[After(5.0)])
    numbers = range(1, SUSPECTS_MAX + 3)
    suspects = [an_id(n) for n in numbers]
    create = creating(*numbers, callback_url=URL, dispatch=Dispatch.AUTO)
    await commit(world.store.inner, create)
    await commit(world.store.inner, *(Claim(i, "another") for i in suspects))
    await lost_before(world, suspects, SUSPECT_AFTER - 1)
    async with world.open(executors=SUSPECTS_MAX + 10) as engine:
        await trio.sleep(UP_S - 0.1)
        assert (await engine.explain(suspects[0])).cause is Cause.SUSPECT
        others = await submit(engine, *[URL] * 2)
        await trio.sleep(1.0)
        running = {task.id for task in await world.tasks() if task.status is Status.PROCESSING}
        assert running >= set(others)
        assert len(running & set(suspects)) == SUSPECTS_MAX
        await until(engine, [*suspects, *others], within_s=30)
        await world.check_books([*suspects, *others])


async def test_prime_suspects_run_one_at_a_time_beside_the_others(autojump_clock):
    """The next end of the process parks them: none must take another one with it."""
    world = World(it=[After(5.0)])
    suspects = await abandoned(world, *[URL] * 4)
    await lost_before(world, suspects, PRIME_AFTER - 1)
    async with world.open(executors=4) as engine:
        began = trio.current_time()
        await trio.sleep(UP_S)
        others = await submit(engine, *[URL] * 2)
        await trio.sleep(1.0)
        running = {task.id for task in await world.tasks() if task.status is Status.PROCESSING}
        assert running >= set(others)
        assert len(running & set(suspects)) == 1
        waiting = next(i for i in suspects if i not in running)
        assert (await engine.explain(waiting)).cause is Cause.SUSPECT
        await until(engine, [*suspects, *others], within_s=30)
        calls = [c for c in world.net.calls if c.task_id in suspects and c.began >= began]
        assert len(calls) == 4
        assert all(one.ended <= next_one.began for one, next_one in itertools.pairwise(calls))
        assert {(await world.task(i)).status for i in suspects} == {Status.COMPLETED}
        assert (await engine.stats()).destinations.known == 1


async def test_a_prime_suspect_gets_its_turn_among_suspects_and_runs_without_them(autojump_clock):
    """More suspects than run at once, before and behind it; each has a destination of its own."""
    world = World(it=[After(3.0)])
    numbers = range(1, 3 * SUSPECTS_MAX + 2)
    task_ids = [an_id(n) for n in numbers]
    prime = task_ids[SUSPECTS_MAX]
    create = creating(*numbers, callback_url=URL, dispatch=Dispatch.AUTO)
    await commit(world.store.inner, create)
    await commit(world.store.inner, Claim(prime, "another"))
    await lost_before(world, [prime], 1)
    await commit(world.store.inner, *(Claim(i, "another") for i in task_ids if i != prime))
    await lost_before(world, task_ids, SUSPECT_AFTER - 1)
    async with world.open(executors=100) as engine:
        await until(engine, task_ids, within_s=60)
        await world.check_books(task_ids)
    (alone,) = world.net.of(prime)
    others = [call for call in world.net.calls if call.task_id != prime]
    assert len(others) == 3 * SUSPECTS_MAX
    assert all(call.ended <= alone.began or alone.ended <= call.began for call in others)
    assert any(alone.ended <= call.began for call in others), "it had to wait for all of them"


async def test_a_store_shared_with_others_is_not_recovered_but_leases_end(autojump_clock):
    world = World(it=[After(9.0), 200])
    (task_id,) = await abandoned(world, URL, timeout_s=10.0)
    world.store.capabilities = attrs.evolve(world.store.capabilities, exclusive=False)
    async with world.open() as engine:
        await trio.sleep(5)
        assert (await engine.get(task_id)).status is Status.PROCESSING
        await until(engine, [task_id], within_s=60)
        await world.check_books([task_id])


async def test_tasks_that_wait_are_found_at_the_start(autojump_clock):
    world = World()
    await commit(world.store.inner, creating(*range(1, 101), callback_url=GOOD))
    async with world.open(executors=1, window=8) as engine:
        ids = [an_id(n) for n in range(1, 101)]
        await until(engine, ids)
        await world.check_books(ids)
    assert world.net.order() == ids


# -- by people ---------------------------------------------------------------------------------


async def test_failed_tasks_can_be_redriven_by_filter_and_run_again(autojump_clock):
    world = World(it=[400, 200])
    async with world.open() as engine:
        mine = await submit(engine, *[URL] * 3, name="mine")
        yours = await submit(engine, URL, name="yours")
        await until(engine, mine + yours)
        query = TaskQuery(names=frozenset({"mine"}))
        assert await engine.redrive(query, 2) == [mine[2], mine[1]]
        await until(engine, mine[1:], Status.COMPLETED)
        assert await engine.redrive(query, 100) == [mine[0]]
        assert await engine.redrive(query, 100) == []
        await until(engine, mine, Status.COMPLETED)
        assert (await engine.get(yours[0])).status is Status.FAILED
        await world.check_books(mine + yours)


async def test_the_answers_say_what_is_not_possible(autojump_clock):
    world = World()
    async with world.open() as engine:
        done = await submit_one(engine)
        await until(engine, [done])
        for call in (engine.cancel, engine.retry, engine.execute, engine.release):
            with pytest.raises(IllegalTransition):
                await call(done)
        for ask in (engine.get, engine.attempts, engine.task_events, engine.explain):
            with pytest.raises(TaskNotFound):
                await ask(an_id(9))
        with pytest.raises(IllegalTransition):
            await engine.dequeue_task(done)
        with pytest.raises(IllegalTransition):
            await engine.update(done, {"name": "too late"})
        automatic = await submit_one(engine, delay_s=60.0)
        with pytest.raises(NotTakeable, match="executors take it"):
            await engine.dequeue_task(automatic)
        manual = await submit_one(engine, dispatch=Dispatch.MANUAL)
        await engine.dequeue_task(manual)
        await engine.execute(manual)
        with pytest.raises(IllegalTransition, match="execute again"):
            await engine.execute(manual)


async def test_an_update_of_a_blocked_task_leaves_it_blocked(autojump_clock):
    world = World()
    async with world.open() as engine:
        first = await submit_one(engine, delay_s=30.0, partition_key="eu")
        second = await submit_one(engine, partition_key="eu")
        await engine.update(second, {"priority": 100, "run_at": at(1.0)})
        await until(engine, [first, second])
    assert world.net.order() == [first, second]


async def test_one_key_used_twice_at_once_accepts_one_set_of_tasks(autojump_clock):
    world = World()
    created: list[Created] = []
    async with world.open() as engine:

        async def create() -> None:
            key = IdempotencyKey("key", "print")
            created.append(await engine.submit([a_spec(callback_url=GOOD)], key=key))

        world.store.delay_s = 1.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit_one, engine)  # the two meet while this is written
            await trio.sleep(0.5)
            nursery.start_soon(create)
            nursery.start_soon(create)
        world.store.delay_s = 0.0
        assert created[0].receipts == created[1].receipts
        assert {one.replayed for one in created} == {False, True}
        assert len(await world.tasks()) == 2


async def test_an_event_repeats_only_the_beginning_of_a_long_answer(autojump_clock):
    world = World(it=[Answer(status_code=200, body=b"x" * 5_000)])
    async with world.open() as engine:
        task_id = await submit_one(engine, URL)
        await until(engine, [task_id])
        task, last = await engine.get(task_id), (await engine.task_events(task_id))[-1]
    assert task.result is not None
    assert last.result is not None
    assert (len(task.result.body or ""), task.result.truncated) == (5_000, False)
    assert (len(last.result.body or ""), last.result.truncated) == (1_024, True)


async def test_a_redrive_passes_over_what_somebody_else_redrove(autojump_clock):
    world = World(it=[400, After(60.0)])
    async with world.open() as engine:
        task_ids = await submit(engine, *[URL] * 3)
        await until(engine, task_ids)
        world.store.delay_s = 1.0
        redriven: list[str] = []

        async def redrive() -> None:
            redriven.extend(await engine.redrive(TaskQuery(), 100))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(redrive)
            nursery.start_soon(redrive)
        world.store.delay_s = 0.0
        assert sorted(redriven) == sorted(task_ids)
        engine.cut()


async def test_lists_and_counts_speak_of_live_and_archived_tasks(autojump_clock):
    world = World()
    async with world.open() as engine:
        done = await submit_one(engine)
        await until(engine, [done])
        waiting = await submit_one(engine, dispatch=Dispatch.MANUAL, name="mine")
        found = await engine.list_tasks(TaskQuery(), 10)
        assert [task.id for task in found] == [waiting, done]
        assert await engine.count(TaskQuery()) == 2
        assert await engine.count(TaskQuery(statuses=frozenset({Status.QUEUED}))) == 1
        assert await engine.count(TaskQuery(names=frozenset({"mine"}))) == 1
        newest, live = await engine.snapshot(TaskQuery(kept=Kept.LIVE), 10)
        assert (newest, [task.id for task in live]) == (5, [waiting])


async def test_the_figures_add_up(autojump_clock):
    world = World(it=[After(30.0)])
    observed: list[Attempt] = []
    async with world.open(executors=2, observe_attempt=observed.append) as engine:
        done = await submit(engine, GOOD, BAD, retry_policy=ONCE)
        await until(engine, done)
        await submit(engine, *[URL] * 3, timeout_s=60.0)
        await trio.sleep(10)
        stats = await engine.stats()
        assert {status: n for status, n in stats.counts.items() if n} == {
            Status.COMPLETED: 1,
            Status.FAILED: 1,
            Status.PROCESSING: 2,
            Status.QUEUED: 1,
        }
        assert (stats.executors, stats.executors_busy, stats.queue_depth) == (2, 2, 1)
        assert stats.oldest_waiting_s == pytest.approx(10.0, abs=0.5)
        assert stats.attempts.by_outcome == {"success": 1, "http_status": 1}
        assert stats.newest_event == len(await world.events())
        assert stats.commits > 0
        assert repr(engine) == "<Engine running, 2 attempts in flight>"
        assert engine.config.executors == 2
        assert engine.now() == world.clock.now()
        engine.cut()
    assert {attempt.task_id for attempt in observed[:2]} == set(done)
    assert (await engine.stats()).oldest_waiting_s is not None


async def test_every_waiting_task_can_be_explained(autojump_clock):
    world = World(it=[After(1000.0)])
    async with world.open(executors=1) as engine:
        first = await submit_one(engine, URL, partition_key="eu", timeout_s=1000.0)
        behind = await submit_one(engine, URL, partition_key="eu")
        ready = await submit_one(engine)
        manual = await submit_one(engine, dispatch=Dispatch.MANUAL)
        await trio.sleep(1)
        causes = [(await engine.explain(i)).cause for i in (first, behind, ready, manual)]
        assert causes == [Cause.RUNNING, Cause.BLOCKED, Cause.NO_EXECUTOR, Cause.NO_CLIENT]
        assert first in (await engine.explain(behind)).sentence
        engine.cut()


# -- sweeps ------------------------------------------------------------------------------------


async def after_a_stop(world: World, accepted: list[str]) -> None:
    """Whatever stopped the first engine, another one brings every task to its end."""
    assert world.net.in_flight == world.net.open_callers == 0
    await world.check_books(accepted)
    everything = [task.id for task in await world.tasks()]
    async with world.open() as engine:
        await until(engine, everything)
    await world.check_books(accepted)


async def one_life(world: World, accepted: list[str], step: CancelAtStep | None = None) -> None:
    """An engine that works, has clients and watchers, and stops while it is busy."""

    async def client(engine: Engine) -> None:
        with suppress(EngineStopping):
            await engine.dequeue(wait_s=1000.0)

    async def watcher(engine: Engine) -> None:
        with suppress(EngineStopping):
            async with engine.watch() as watch:
                while True:
                    await watch.receive()

    async with nobody_hangs(60) as clients:
        with step.scope if step is not None else trio.CancelScope():
            async with world.open(executors=2, grace_s=2.0, window=4) as engine:
                clients.start_soon(client, engine)
                clients.start_soon(watcher, engine)
                for _ in range(3):
                    accepted += await submit(engine, URL, URL)
                    await trio.sleep(0.7)


async def test_cancelled_at_any_step_of_its_caller_the_engine_stops_and_loses_nothing(
    autojump_clock,
):
    async def scenario(step: CancelAtStep) -> None:
        world, accepted = World(it=[After(1.0), 500, 200]), list[str]()
        with step.watching():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one_life, world, accepted, step)
        await after_a_stop(world, accepted)

    assert await cancel_sweep(scenario, of="one_life") > 15


@pytest.mark.slow
@pytest.mark.parametrize(
    "actor", ["Queue.run", "Repository.run", "StatusHub.run", "pool.pool", "executor.executor"]
)
async def test_its_caller_cancelled_at_any_step_of_an_actor_loses_nothing(autojump_clock, actor):
    async def scenario(step: CancelAtStep) -> None:
        world, accepted = World(it=[After(1.0), 500, 200]), list[str]()
        with step.watching():
            await one_life(world, accepted, step)
        await after_a_stop(world, accepted)

    assert await cancel_sweep(scenario, of=actor) >= 5


async def test_whichever_transaction_fails_the_engine_loses_nothing(autojump_clock):
    for number in range(1, 60):
        world, accepted = World(it=[After(1.0), 500, 200]), list[str]()
        world.store.fail_at = {number}
        try:
            await one_life(world, accepted)
        except* StoreUnavailable:
            pass  # his own command met the trouble, or the engine could not start
        world.store.fail_at = ()
        await after_a_stop(world, accepted)


# -- the real ports ----------------------------------------------------------------------------


async def test_without_ports_the_engine_gets_the_real_ones():
    async with open_engine(attrs.evolve(CONFIG, executors=2)) as engine:
        created = await engine.submit([TaskSpec(name="a", callback_url="http://127.0.0.1:9/")])
        task = await engine.get(created.receipts[0].task_id)
        assert task.status is Status.QUEUED
        assert abs((engine.now() - task.created_at).total_seconds()) < 60


async def test_real_ids_grow_and_owners_differ():
    ports = system_ports(CONFIG, "memory:")
    ids = [ports.ids.task_id() for _ in range(100)]
    assert ids == sorted(set(ids))
    assert len({ports.ids.owner_id() for _ in range(10)}) == 10
    assert isinstance(ports.clock, SystemClock)
    assert isinstance(ports.ids, SystemIds)
    assert isinstance(ports.clock.now(), datetime)
    assert not math.isnan(ports.clock.monotonic())
