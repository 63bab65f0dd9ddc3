"""Executors: one attempt at a time, its result stored whatever happens, and no executor is lost."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from engine.actors.executor import ExecutorKit, InFlight
from engine.actors.intake import intake
from engine.actors.mailbox import Inbox, Reply as OneShot
from engine.actors.pool import pool
from engine.actors.queue import Queue
from engine.actors.repository import Applied, Repository
from engine.adapters.brokers.local import LocalBroker
from engine.config import EngineConfig
from engine.core.commands import Finish, Prune, never_began
from engine.core.destination import report_of
from engine.core.entries import entry_of
from engine.core.outcome import Answer
from engine.core.task import ErrorClass, RetryPolicy, Status, Task
from engine.errors import (
    ClaimLost,
    EngineStopping,
    IllegalTransition,
    StoreRejected,
    StoreUnavailable,
)
from engine.messages import Answerable, Next, QueueMessage, RepositoryMessage, Request
from engine.ports.broker import Hint
from tests.support.builders import a_task, an_id, creating
from tests.support.engine import (
    BAD,
    CRASHES,
    GOOD,
    HANGS,
    After,
    Reply,
    World,
    submit,
    submit_one,
    until,
)
from tests.support.sweep import CancelAtStep, cancel_sweep, fault_sweep, nobody_hangs

URL = "http://callee.example/it"
STEADY = RetryPolicy(max_attempts=5, initial_interval_s=10.0, max_interval_s=60.0, jitter=False)


async def test_a_good_callback_completes_the_task(autojump_clock):
    world = World()
    async with world.open() as engine:
        task_id = await submit_one(engine, payload={"n": 1})
        await until(engine, [task_id])
        task = await engine.get(task_id)
        assert task.result is not None
        assert (task.result.status_code, task.result.body) == (200, "said")
        await world.check_books([task_id])
    assert await world.path(task_id) == ["Queued", "Pending", "Processing", "Completed"]
    (call,) = world.net.calls
    assert call.body["payload"] == {"n": 1}
    assert call.headers["User-Agent"].startswith("Ringback/")


async def test_no_more_callbacks_run_at_once_than_there_are_executors(autojump_clock):
    world = World(it=[After(1.0)])
    async with world.open(executors=7) as engine:
        assert world.net.open_callers == 8  # one more, whose claim may run ahead
        task_ids = await submit(engine, *[URL] * 30)
        await until(engine, task_ids)
    assert world.net.peak_in_flight == 7
    assert trio.current_time() == pytest.approx(5.0, abs=0.5)
    assert world.net.open_callers == 0


async def test_retries_come_after_growing_pauses(autojump_clock):
    world = World(it=[500, 503, 429, 404, 200])
    async with world.open() as engine:
        task_id = await submit_one(engine, URL, retry_policy=STEADY)
        await until(engine, [task_id])
    began = [call.began for call in world.net.of(task_id)]
    pauses = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert pauses == pytest.approx([10.0, 20.0, 40.0, 60.0], abs=0.1)
    assert await world.path(task_id) == [
        *("Queued", "Pending"),
        *("Processing", "Retrying") * 4,
        *("Processing", "Completed"),
    ]


async def test_pauses_may_last_for_hours(autojump_clock):
    policy = RetryPolicy(
        max_attempts=4, initial_interval_s=3600.0, max_interval_s=86_400.0, jitter=False
    )
    world = World()
    async with world.open(sweep_interval_s=60.0) as engine:
        task_id = await submit_one(engine, BAD, retry_policy=policy)
        await until(engine, [task_id], within_s=30_000, every_s=60)
        task = await engine.get(task_id)
    assert task.status is Status.FAILED
    assert "all 4 attempts failed" in (task.reason or "")
    began = [call.began for call in world.net.of(task_id)]
    assert began == pytest.approx([0.0, 3600.0, 10_800.0, 25_200.0], abs=1.0)


async def test_with_jitter_the_pause_is_a_part_of_that_and_a_seed_repeats_it(autojump_clock):
    moments = []
    for _ in range(2):
        world = World(seed=7, it=[500, 200])
        began = trio.current_time()
        async with world.open() as engine:
            task_id = await submit_one(
                engine, URL, retry_policy=RetryPolicy(initial_interval_s=100.0, max_interval_s=100)
            )
            await until(engine, [task_id])
        moments.append(world.net.of(task_id)[1].began - began)
    assert 0 < moments[0] < 100
    assert moments[0] == pytest.approx(moments[1], abs=0.001)


async def test_a_retry_after_is_honoured_up_to_a_limit(autojump_clock):
    replies: list[Reply] = [
        Answer(status_code=503, headers={"retry-after": "120"}),
        Answer(status_code=429, headers={"retry-after": "999999999"}),
        200,
    ]
    world = World(it=replies)
    async with world.open(retry_after_max_s=600.0) as engine:
        task_id = await submit_one(engine, URL, retry_policy=STEADY)
        await until(engine, [task_id])
    assert [call.began for call in world.net.calls] == pytest.approx([0, 120, 720], abs=0.2)


async def test_a_refusal_for_good_is_not_repeated(autojump_clock):
    world = World(it=[422])
    async with world.open() as engine:
        task_id = await submit_one(engine, URL)
        await until(engine, [task_id])
        assert (await engine.get(task_id)).status is Status.FAILED
    assert len(world.net.calls) == 1


async def test_a_callback_that_hangs_is_cut_at_its_timeout_and_counts(autojump_clock):
    world = World()
    async with world.open(executors=1) as engine:
        hanging = await submit_one(
            engine, HANGS, timeout_s=5.0, retry_policy=RetryPolicy(max_attempts=1)
        )
        waiting = await submit_one(engine)
        await until(engine, [hanging, waiting])
        task = await engine.get(hanging)
        assert task.status is Status.FAILED
        assert task.result is not None
        assert task.result.error_class is ErrorClass.TIMEOUT
    assert world.net.of(waiting)[0].began == pytest.approx(5.0, abs=0.1)


async def test_a_net_that_raises_costs_an_attempt_and_not_an_executor(autojump_clock):
    world = World()
    async with world.open(executors=2) as engine:
        bad = await submit(engine, *[CRASHES] * 10, retry_policy=RetryPolicy(max_attempts=2))
        await until(engine, bad)
        good = await submit(engine, *[GOOD] * 4)
        await until(engine, good)
        await world.check_books(bad + good)
        attempts = await engine.attempts(bad[0])
    assert [attempt.result.error_class for attempt in attempts] == [ErrorClass.CRASHED] * 2
    assert attempts[0].result.error == "ValueError: the net has a bug"


async def test_the_words_of_a_crash_are_kept_in_bounds(autojump_clock):
    world = World(it=[ValueError("x" * 1_000_000)])
    async with world.open() as engine:
        task_id = await submit_one(engine, URL, retry_policy=RetryPolicy(max_attempts=1))
        await until(engine, [task_id])
        result = (await engine.get(task_id)).result
    assert result is not None
    assert len(result.error or "") < 2_000


async def test_what_is_called_is_what_was_submitted_whatever_becomes_of_it(autojump_clock):
    world = World()
    payload, headers, metadata = {"n": [1]}, {"X-N": "1"}, {"n": "1"}
    async with world.open() as engine:
        task_id = await submit_one(
            engine, delay_s=5.0, payload=payload, headers=headers, metadata=metadata
        )
        payload["n"].append(2)
        headers["X-N"] = metadata["n"] = "2"
        await until(engine, [task_id])
        task = await engine.get(task_id)
    (call,) = world.net.calls
    assert [call.body["payload"], call.headers["X-N"]] == [{"n": [1]}, "1"]
    assert task.spec.metadata == {"n": "1"}


# -- cancelled, late and lost ------------------------------------------------------------------


async def test_a_cancel_in_flight_cuts_the_call(autojump_clock):
    world = World()
    async with world.open(executors=1) as engine:
        running = await submit_one(engine, HANGS, timeout_s=1000.0)
        await trio.sleep(1)
        with pytest.raises(IllegalTransition):
            await engine.cancel(running)
        await engine.cancel(running, in_flight=True)
        await trio.sleep(0.1)
        (call,) = world.net.calls
        assert call.how == "cut"
        assert call.ended == pytest.approx(1.0, abs=0.1)
        after = await submit_one(engine)
        await until(engine, [after], within_s=5)
        assert (await engine.get(running)).status is Status.CANCELLED
        (attempt,) = await engine.attempts(running)
        assert attempt.result.error_class is ErrorClass.CANCELLED
        await world.check_books([running, after])


async def test_a_task_cancelled_while_it_is_being_claimed_is_never_called(autojump_clock):
    world = World()
    async with world.open(executors=1) as engine:
        task_id = await submit_one(engine, delay_s=5.0)
        await trio.sleep(4.9)
        world.store.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            # While this is written, claim and cancel meet.
            nursery.start_soon(partial(submit_one, engine, delay_s=60.0))
            await trio.sleep(0.2)
            nursery.start_soon(partial(engine.cancel, task_id, in_flight=True))
            await trio.testing.wait_all_tasks_blocked()
            world.store.gate.set()
        world.store.gate = None
        await trio.sleep(5)
        assert world.net.of(task_id) == []
        assert (await world.path(task_id))[-2:] == ["Processing", "Cancelled"]
        await world.check_books([task_id])


async def test_a_late_result_changes_nothing_and_is_counted(autojump_clock):
    world = World(it=[After(1.0)])
    async with world.open(executors=1) as engine:
        task_id = await submit_one(engine, URL)
        await trio.sleep(0.5)
        world.store.delay_s = 1.0  # the answer comes while the cancellation is written
        await engine.cancel(task_id, in_flight=True)
        world.store.delay_s = 0.0
        await trio.sleep(5)
        task = await engine.get(task_id)
        assert task.status is Status.CANCELLED
        assert (await engine.stats()).late_results == 1
        await world.check_books([task_id])


async def test_a_call_that_does_not_end_at_its_timeout_is_cut(autojump_clock):
    """Even if the network breaks its promise to end in time, an executor is not lost to it."""
    world = World(it=[After(math.inf, obeys=False), 200])
    async with world.open(executors=1, lease_margin_s=5.0) as engine:
        task_id = await submit_one(engine, URL, timeout_s=10.0)
        await until(engine, [task_id], within_s=60)
        assert (await engine.get(task_id)).status is Status.COMPLETED
        cut, good = await engine.attempts(task_id)
    assert (cut.result.error_class, cut.counted) == (ErrorClass.TIMEOUT, True)
    assert cut.result.error == "the call did not end at its timeout"
    assert good.number == 2
    assert [call.how for call in world.net.calls] == ["cut", "answered"]
    assert world.net.calls[0].ended == pytest.approx(15.0, abs=1.5)


async def test_store_trouble_longer_than_the_lease_repeats_no_callback(autojump_clock):
    """The result waits in its executor; the lease, which could not be renewed, must not count."""
    world = World(it=[After(1.0)])
    async with world.open(lease_margin_s=5.0, sweep_interval_s=0.1, store_retry_s=7.0) as engine:
        task_id = await submit_one(engine, URL, timeout_s=10.0)
        await trio.sleep(0.5)
        world.store.down = True
        await trio.sleep(100)
        world.store.down = False
        await until(engine, [task_id], within_s=30)
        task = await engine.get(task_id)
        await world.check_books([task_id])
    assert (task.status, task.attempt, task.recoveries) == (Status.COMPLETED, 1, 0)
    assert len(world.net.calls) == 1


# -- the end of one attempt and the beginning of the next ---------------------------------------


async def test_one_transaction_ends_an_attempt_and_claims_the_next_task(autojump_clock):
    world = World(it=[After(1.0)])
    async with world.open(executors=2, sweep_interval_s=1000.0) as engine:
        task_ids = await submit(engine, *[URL] * 10)
        await trio.sleep(1.5)
        before = world.store.transactions
        world.store.delay_s = 0.1
        await until(engine, task_ids)
    ended = [event.at for event in await world.events() if event.to_status is Status.COMPLETED]
    claimed = [event.at for event in await world.events() if event.to_status is Status.PROCESSING]
    assert set(claimed[2:]) <= set(ended)
    assert world.store.transactions - before <= 5


class Desk:
    """One executor, whose queue and repository are played by the test."""

    def __init__(self, world: World, *, room: int = 10) -> None:
        self.queue = Inbox[QueueMessage]("queue", 10)
        self.repository = Inbox[RepositoryMessage]("repository", room)
        self.kit = ExecutorKit(
            queue=self.queue,
            repository=self.repository,
            net=world.net,
            clock=world.clock,
            rng=world.rng,
            config=EngineConfig(executors=1, store_retry_s=1.0, cleanup_timeout_s=5.0),
            in_flight=InFlight(),
            owner="me",
            user_agent="test",
        )

    async def asked(self) -> Next:
        """What it asks the queue next."""
        with trio.fail_after(60):
            question = await self.queue.receive()
        assert isinstance(question, Next)
        return question

    async def told(self) -> tuple[Finish, Answerable[Any]]:
        """What it tells the repository next, and where it waits for the answer."""
        with trio.fail_after(60):
            request = await self.repository.receive()
        assert isinstance(request.command, Finish)
        return request.command, request.reply

    async def work(self, task: Task) -> tuple[Finish, Answerable[Any], Next]:
        """Give it a task to run. What it tells of it, and its question for the next one."""
        (await self.asked()).reply.answer(task)
        return *await self.told(), await self.asked()


@asynccontextmanager
async def at_work(desk: Desk) -> AsyncIterator[trio.CancelScope]:
    """The executor at its desk; when the block ends the queue has ended, and it leaves."""
    async with nobody_hangs(60) as nursery:
        scope = trio.CancelScope()
        await nursery.start(partial(pool, desk.kit, 1, scope))
        yield scope
        desk.queue.close()
        for question in desk.queue.receive_nowait():
            assert isinstance(question, Next)
            question.reply.fail(EngineStopping())
    assert len(desk.kit.in_flight) == 0


def claimed(number: int, attempt: int = 1) -> Task:
    return attrs.evolve(
        a_task(number, callback_url=URL), status=Status.PROCESSING, attempt=attempt, owner="me"
    )


async def test_the_next_task_is_asked_for_before_the_result_is_stored_and_run_after(
    autojump_clock,
):
    world = World(it=[After(1.0)])
    desk = Desk(world)
    async with at_work(desk):
        finish, stored, question = await desk.work(claimed(1))
        assert (finish.task_id, question.report) == (an_id(1), report_of(finish.answer, 1.0))
        question.reply.answer(claimed(2))
        await trio.sleep(10)
        assert world.net.order() == [an_id(1)]
        stored.answer(claimed(1))
        second, stored = await desk.told()
        assert (second.task_id, world.net.order()) == (an_id(2), [an_id(1), an_id(2)])
        stored.answer(claimed(2))


async def test_a_claim_that_is_answered_after_its_lease_is_given_up(autojump_clock):
    world = World(it=[After(1.0)])
    desk = Desk(world)
    async with at_work(desk):
        late = attrs.evolve(claimed(1), expires_at=world.clock.now())
        finish, stored, question = await desk.work(late)
        assert finish == never_began(late, "me")
        assert (world.net.calls, question.report) == ([], None)
        stored.fail(ClaimLost(an_id(1)))
        in_time = attrs.evolve(claimed(2), expires_at=world.clock.now() + timedelta(seconds=1))
        question.reply.answer(in_time)
        finish, stored = await desk.told()
        assert world.net.order() == [an_id(2)]
        stored.answer(claimed(2))
    assert desk.kit.in_flight.late_results == 0


@pytest.mark.parametrize("first", ["the claim", "the failure"])
async def test_if_the_result_is_not_stored_the_next_task_is_given_up(autojump_clock, first):
    world = World(it=[After(1.0)])
    desk = Desk(world)
    async with at_work(desk):
        finish, stored, question = await desk.work(claimed(1))
        if first == "the claim":
            question.reply.answer(claimed(2, attempt=3))
        stored.fail(StoreUnavailable("the disk is gone"))
        again, stored = await desk.told()
        assert again == finish
        assert question.reply.abandoned  # so the repository gives back what it claims now
        stored.answer(claimed(1))
        if first == "the claim":
            given_back, stored = await desk.told()
            assert given_back == never_began(claimed(2, attempt=3), "me")
            stored.answer(claimed(2))
        question = await desk.asked()
        assert question.report is None  # it was told with the question before
        question.reply.answer(claimed(3))
        finish, stored = await desk.told()
        stored.answer(claimed(3))
    assert world.net.order() == [an_id(1), an_id(3)]


@pytest.mark.parametrize("has_claim", [False, True])
async def test_cut_off_while_its_result_is_being_stored_it_waits_for_that_and_begins_nothing(
    autojump_clock, has_claim
):
    world = World(it=[After(1.0)])
    desk = Desk(world)
    async with at_work(desk) as scope:
        _, stored, question = await desk.work(claimed(1))
        if has_claim:
            question.reply.answer(claimed(2))
        scope.cancel()
        await trio.sleep(2)
        assert question.reply.abandoned
        assert len(desk.kit.in_flight) == 1
        stored.answer(claimed(1))
        if has_claim:
            given_back, stored = await desk.told()
            assert given_back == never_began(claimed(2), "me")
            stored.answer(claimed(2))
        await trio.testing.wait_all_tasks_blocked()
        assert world.net.open_callers == 0
    assert desk.repository.receive_nowait() == []  # nothing was told twice
    assert world.net.order() == [an_id(1)]


async def test_cut_off_during_its_call_it_puts_the_task_back_and_asks_for_nothing(autojump_clock):
    world = World(it=[After(5.0)])
    desk = Desk(world)
    async with at_work(desk) as scope:
        (await desk.asked()).reply.answer(claimed(1))
        await trio.sleep(1)
        scope.cancel()
        finish, stored = await desk.told()
        assert finish.answer.error_class is ErrorClass.INTERRUPTED
        assert desk.queue.receive_nowait() == []
        stored.answer(claimed(1))


async def test_cut_off_it_does_not_wait_for_the_store_for_ever(autojump_clock):
    world = World(it=[After(1.0)])
    desk = Desk(world)
    async with at_work(desk) as scope:
        await desk.work(claimed(1))
        scope.cancel()
        await trio.sleep(4.9)
        assert world.net.open_callers == 1
        await trio.sleep(0.2)
        assert world.net.open_callers == 0


async def test_a_store_that_is_slow_is_told_the_result_once(autojump_clock):
    world = World(it=[After(1.0)])
    desk = Desk(world)
    async with at_work(desk):
        _, stored, question = await desk.work(claimed(1))
        await trio.sleep(1000)
        assert desk.repository.receive_nowait() == []
        stored.answer(claimed(1))
        question.reply.fail(EngineStopping())


async def test_when_the_queue_ends_before_the_result_is_stored_the_executor_stores_it_and_leaves(
    autojump_clock,
):
    world = World(it=[After(1.0)])
    desk = Desk(world)
    async with at_work(desk):
        (await desk.asked()).reply.answer(claimed(1))
        desk.queue.close()  # the question for the next task cannot be asked
        _, stored = await desk.told()
        await trio.sleep(10)
        assert world.net.open_callers == 1
        stored.answer(claimed(1))
        await trio.testing.wait_all_tasks_blocked()
        assert world.net.open_callers == 0


async def test_a_task_that_was_claimed_when_the_queue_ended_is_run(autojump_clock):
    world = World(it=[After(1.0)])
    desk = Desk(world)
    async with at_work(desk):
        _, stored, question = await desk.work(claimed(1))
        desk.queue.close()
        question.reply.answer(claimed(2))
        stored.answer(claimed(1))
        finish, stored = await desk.told()
        assert finish.task_id == an_id(2)
        stored.answer(claimed(2))
    assert world.net.order() == [an_id(1), an_id(2)]


async def test_without_room_for_the_result_nothing_is_asked_for(autojump_clock):
    world = World(it=[After(1.0)])
    desk = Desk(world, room=1)
    async with at_work(desk):
        (await desk.asked()).reply.answer(claimed(1))
        desk.repository.tell(Request(Prune(1), OneShot()))
        await trio.sleep(10)
        assert desk.queue.receive_nowait() == []
        assert isinstance((await desk.repository.receive()).command, Prune)
        finish, stored = await desk.told()
        stored.answer(claimed(1))
        question = await desk.asked()
        assert question.report == report_of(finish.answer, finish.duration_s)
        question.reply.fail(EngineStopping())


async def test_a_result_that_nobody_can_take_any_more_keeps_no_executor(autojump_clock):
    world = World(it=[After(1.0)])
    desk = Desk(world)
    async with at_work(desk):
        (await desk.asked()).reply.answer(claimed(1))
        desk.repository.abandon()
        (await desk.asked()).reply.fail(EngineStopping())
    assert desk.kit.in_flight.late_results == 0


# -- trouble below -----------------------------------------------------------------------------


async def test_in_store_trouble_an_executor_keeps_its_slot_until_the_result_is_stored(
    autojump_clock,
):
    world = World(it=[After(1.0)])
    async with world.open(executors=2, lease_margin_s=300.0) as engine:
        task_ids = await submit(engine, *[URL] * 4)
        await trio.sleep(0.5)
        world.store.down = True
        await trio.sleep(100)
        assert len(world.net.calls) == 2
        world.store.down = False
        await until(engine, task_ids, within_s=10)
        await world.check_books(task_ids)
        assert (await engine.stats()).late_results == 0
    assert len(world.net.calls) == 4


async def test_a_slow_store_makes_no_result_late(autojump_clock):
    world = World(it=[After(1.0)])
    async with world.open(executors=2, cleanup_timeout_s=5.0) as engine:
        task_ids = await submit(engine, *[URL] * 2)
        await trio.sleep(0.5)
        world.store.delay_s = 8.0
        await trio.sleep(30)
        world.store.delay_s = 0.0
        await until(engine, task_ids)
        assert (await engine.stats()).late_results == 0
        await world.check_books(task_ids)


@pytest.mark.parametrize("reply", [After(1.0), After(1.0, then=500)])
async def test_words_the_store_refuses_do_not_harm_the_executor_or_the_verdict(
    autojump_clock, reply
):
    world = World(it=[reply])
    async with world.open(executors=1, sweep_interval_s=1000.0) as engine:
        task_id = await submit_one(engine, URL, retry_policy=RetryPolicy(max_attempts=1))
        await trio.sleep(0.5)
        world.store.error = StoreRejected("these bytes cannot be kept")
        world.store.fail_at = {world.store.transactions + 1}
        await until(engine, [task_id])
        task = await engine.get(task_id)
        assert task.status is (Status.COMPLETED if reply.then == 200 else Status.FAILED)
        assert task.result is not None
        assert task.result.body == ""
        await world.check_books([task_id])


async def test_a_result_the_store_refuses_for_ever_frees_the_executor(autojump_clock):
    world = World(it=[After(1.0), 200])
    async with world.open(executors=1, lease_margin_s=5.0, sweep_interval_s=7.0) as engine:
        task_id = await submit_one(engine, URL)
        await trio.sleep(0.5)
        world.store.error = StoreRejected("this row cannot be kept")
        world.store.fail_at = range(10_000)  # with its words and without
        await trio.sleep(2)
        assert (await engine.get(task_id)).status is Status.PROCESSING
        world.store.fail_at = ()
        other = await submit_one(engine)
        await until(engine, [other], within_s=5)
        await until(engine, [task_id], within_s=60)  # its lease ends
        await world.check_books([task_id, other])


async def test_a_claim_the_store_refuses_is_tried_again(autojump_clock):
    world = World()
    async with world.open(executors=1, sweep_interval_s=1000.0) as engine:
        task_id = await submit_one(engine, delay_s=5.0)
        await trio.sleep(1)
        world.store.error = StoreRejected("this row cannot be kept")
        world.store.fail_at = {world.store.transactions + 1}
        await until(engine, [task_id], within_s=60)
        await world.check_books([task_id])


# -- sweeps ------------------------------------------------------------------------------------


class Shop:
    """Queue, repository and executors without a runtime around them."""

    def __init__(self, world: World) -> None:
        self.config = EngineConfig(executors=1, window=4, inbox=50)
        self.queue_inbox = Inbox[QueueMessage]("queue", 50)
        self.repository_inbox = Inbox[RepositoryMessage]("repository", 50)
        self.broker = LocalBroker(50)
        self.in_flight = InFlight()
        self.queue = Queue(self.queue_inbox, self.repository_inbox, world.clock, self.config)
        self.repository = Repository(
            self.repository_inbox, world.store, world.clock, self.config, self
        )
        self.kit = ExecutorKit(
            queue=self.queue_inbox,
            repository=self.repository_inbox,
            net=world.net,
            clock=world.clock,
            rng=world.rng,
            config=self.config,
            in_flight=self.in_flight,
            owner="me",
            user_agent="test",
        )

    def __call__(self, applied: Applied) -> None:
        waiting = [task for task in applied.tasks if task.lane is not None]
        self.broker.announce([Hint(t.lane, entry_of(t)) for t in waiting if t.lane is not None])

    def lost_track(self, rest_s: float) -> None:
        self.queue.lost_track(rest_s)


async def test_cancelled_at_any_step_an_executor_loses_no_task(autojump_clock):
    async def scenario(step: CancelAtStep) -> None:
        world = World(it=[After(1.0), 500, 200])
        shop = Shop(world)
        async with nobody_hangs(60) as services:
            repository = await services.start(shop.repository.run)
            assert not repository.cancel_called
            await services.start(shop.queue.run)
            await services.start(intake, shop.broker, shop.queue_inbox)
            async with trio.open_nursery() as work:
                await work.start(partial(pool, shop.kit, 1, step.scope))
                with step.watching():
                    await shop.repository_inbox.ask(
                        partial(Request, creating(1, 2, callback_url=URL))
                    )
                    await trio.sleep(60)
                shop.broker.close()
                shop.queue_inbox.close()
            shop.repository_inbox.close()
        assert len(shop.in_flight) == 0
        assert world.net.open_callers == 0
        tasks = await world.tasks()
        assert [task.status for task in tasks if task.status is Status.PROCESSING] == []
        await world.check_books(task.id for task in tasks)
        async with world.open() as engine:  # whatever is left can be done by another
            await until(engine, [task.id for task in tasks])
            await world.check_books(task.id for task in tasks)
        assert {task.status for task in await world.tasks()} == {Status.COMPLETED}

    assert await cancel_sweep(scenario, of="actors.executor.executor") > 5


@pytest.mark.parametrize("commit_batch", [1, 500])
async def test_whichever_transaction_fails_every_task_ends(autojump_clock, commit_batch):
    """Also when a result and the claim behind it are two transactions."""

    async def scenario(number: int) -> int:
        world = World(it=[After(1.0), 500, 200])
        world.store.fail_at = {number}
        accepted: list[str] = []
        try:
            async with world.open(
                executors=2, window=4, sweep_interval_s=30.0, commit_batch=commit_batch
            ) as engine:
                for _ in range(3):
                    with suppress(StoreUnavailable):
                        accepted += await submit(engine, URL, URL, timeout_s=5.0)
                await until(engine, accepted, within_s=300)
        except* StoreUnavailable:
            assert number <= 1  # it could not start
        await world.check_books(accepted)
        return world.store.transactions

    assert await fault_sweep(scenario) > 8


# -- the books of what is running --------------------------------------------------------------


async def test_only_the_attempt_that_was_left_is_cut():
    in_flight = InFlight()
    second = attrs.evolve(a_task(), attempt=2)
    scope = trio.CancelScope()
    in_flight.enter(second, scope)
    in_flight.moved_on(second, 1)
    assert not scope.cancel_called
    in_flight.moved_on(second, 2)
    assert scope.cancel_called


async def test_an_attempt_whose_call_has_ended_is_still_in_flight_and_cannot_be_cut():
    in_flight = InFlight()
    scope = trio.CancelScope()
    in_flight.enter(a_task(attempt=1), scope)
    in_flight.called(a_task(attempt=1))
    in_flight.moved_on(a_task(attempt=1), 1)
    assert not scope.cancel_called
    assert in_flight.task_ids() == {an_id(1)}


async def test_an_older_attempt_that_ends_does_not_hide_the_newer_one():
    in_flight = InFlight()
    first, second = (attrs.evolve(a_task(), attempt=n) for n in (1, 2))
    scope = trio.CancelScope()
    in_flight.enter(first, trio.CancelScope())
    in_flight.enter(second, scope)
    in_flight.called(first)
    in_flight.leave(first)
    assert len(in_flight) == 1
    in_flight.moved_on(second, 2)
    assert scope.cancel_called
    in_flight.leave(second)
    in_flight.leave(second)
    assert len(in_flight) == 0
    in_flight.moved_on(second, 2)
