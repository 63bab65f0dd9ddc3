"""The queue actor: who gets which task, and that no task and no asker is ever forgotten."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from engine.actors.mailbox import Inbox
from engine.actors.queue import Queue
from engine.adapters.system import TrioClock
from engine.config import EngineConfig
from engine.core.commands import Claim, Refill, Take
from engine.core.entries import Entry, Page, Reading
from engine.core.pace import pool_size
from engine.core.task import Dispatch, Lane, Status
from engine.errors import (
    EngineError,
    EngineStopping,
    NotTakeable,
    Overloaded,
    QueueEmpty,
    StoreUnavailable,
)
from engine.messages import Next, Offered, QueueMessage, RepositoryMessage
from engine.ports.broker import Delivery, Hint
from tests.support.builders import NOW, a_spec, a_task, an_id, at
from tests.support.engine import GOOD, After, World, submit, submit_one, until
from tests.support.sweep import CancelAtStep, cancel_sweep, nobody_hangs

NOTHING = Page((), ready_complete=True, scheduled=(), scheduled_complete=True)


class Rig:
    """A queue whose repository is played by the test."""

    def __init__(self, *, repository_inbox: int = 100, **settings: Any) -> None:
        self.config = EngineConfig(**settings)
        self.inbox = Inbox[QueueMessage]("queue", self.config.inbox)
        self.repository = Inbox[RepositoryMessage]("repository", repository_inbox)
        self.actor = Queue(self.inbox, self.repository, TrioClock(NOW), self.config)

    def offer(self, *entries: Entry, lane: Lane = Lane.RUN, missed: bool = False) -> None:
        self.inbox.tell(Offered(Delivery(tuple(Hint(lane, entry) for entry in entries), missed)))

    async def next(
        self,
        lane: Lane = Lane.RUN,
        owner: str | None = "me",
        *,
        patient: bool = True,
        lease_s: float = 60.0,
    ) -> Any:
        """The answer to an executor who asks, or the error."""
        try:
            return await self.inbox.ask(
                lambda reply: Next(lane, reply, owner, lease_s=lease_s, patient=patient)
            )
        except EngineError as error:
            return error

    async def ask(self, nursery: trio.Nursery, *owners: str) -> None:
        """These executors ask, one after the other."""
        for owner in owners:
            nursery.start_soon(partial(self.next, owner=owner))
            await trio.testing.wait_all_tasks_blocked()

    async def dequeue(self, *, patient: bool = True, lease_s: float = 60.0) -> Any:
        """The answer to a client who asks."""
        return await self.next(Lane.TAKE, None, patient=patient, lease_s=lease_s)

    async def requests(self) -> list[Any]:
        """What the queue wants from the repository, as soon as it wants nothing more."""
        await trio.testing.wait_all_tasks_blocked()
        return [request.command for request in self.repository.receive_nowait()]

    async def know(self, page: Page = NOTHING) -> None:
        """Answer the questions for pages, with an empty store or this head of the run lane."""
        await trio.testing.wait_all_tasks_blocked()
        for request in self.repository.receive_nowait():
            assert isinstance(request.command, Refill)
            request.reply.answer(Reading(page if request.command.lane is Lane.RUN else NOTHING))
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[trio.Nursery]:
    """The queue at work, and a nursery for askers. At the end those who still ask leave, and the
    queue ends by itself."""
    async with trio.open_nursery() as actors:
        await actors.start(rig.actor.run)
        async with trio.open_nursery() as askers:
            yield askers
            askers.cancel_scope.cancel(reason="the test is over")
        rig.inbox.close()


def entry(
    n: int, *, rank: int | None = None, due_s: float = 0.0, at_host: str = "http://callee:80"
) -> Entry:
    return Entry(an_id(n), n if rank is None else rank, at(due_s), at_host)


def claims(commands: Sequence[Any]) -> list[str]:
    return [command.task_id for command in commands if isinstance(command, (Claim, Take))]


async def test_it_begins_by_reading_the_head_of_each_lane(autojump_clock):
    rig = Rig(window=8)
    async with running(rig):
        assert await rig.requests() == [Refill(Lane.RUN, 8), Refill(Lane.TAKE, 8)]


async def test_the_client_who_asks_first_gets_the_first_task(autojump_clock):
    rig = Rig()
    async with running(rig) as nursery:
        await rig.know()
        for lease_s in (1.0, 2.0):
            nursery.start_soon(partial(rig.dequeue, lease_s=lease_s))
            await trio.testing.wait_all_tasks_blocked()
        rig.offer(entry(2), entry(1), entry(3), lane=Lane.TAKE)
        assert await rig.requests() == [Take(an_id(1), 1.0), Take(an_id(2), 2.0)]


async def test_the_executor_who_called_last_gets_the_first_task(autojump_clock):
    """Its connections are still open; with a hundred of them in turn few would be."""
    rig = Rig()
    async with running(rig) as nursery:
        await rig.know()
        await rig.ask(nursery, "a", "b", "c")
        rig.offer(entry(2), entry(1))
        assert await rig.requests() == [Claim(an_id(1), "c"), Claim(an_id(2), "b")]


async def test_executors_who_left_are_forgotten(autojump_clock):
    rig = Rig(executors=4)
    async with running(rig) as nursery:
        await rig.know()
        for _ in range(50):
            with trio.move_on_after(1):
                await rig.next(owner="gone")
        nursery.start_soon(partial(rig.next, owner="here"))
        await trio.testing.wait_all_tasks_blocked()
        assert rig.actor.waiting[Lane.RUN] == 1
        (kept,) = re.findall(r"run <.*?> (\d+) askers", repr(rig.actor))
        assert int(kept) <= pool_size(4)
        rig.offer(entry(1))
        assert await rig.requests() == [Claim(an_id(1), "here")]


async def test_a_scheduled_task_is_given_at_its_time(autojump_clock):
    rig = Rig()
    async with running(rig) as nursery:
        await rig.know()
        nursery.start_soon(rig.next)
        rig.offer(entry(1, due_s=3600.0))
        assert await rig.requests() == []
        await trio.sleep(3599)
        assert await rig.requests() == []
        await trio.sleep(1.5)
        assert claims(await rig.requests()) == [an_id(1)]


async def test_a_withdrawn_task_is_not_given(autojump_clock):
    rig = Rig()
    async with running(rig) as nursery:
        await rig.know()
        rig.offer(entry(1), entry(2))
        rig.actor.withdraw((an_id(1),))
        nursery.start_soon(rig.next)
        assert claims(await rig.requests()) == [an_id(2)]


async def test_an_asker_who_left_gets_nothing(autojump_clock):
    rig = Rig()
    async with running(rig) as nursery:
        await rig.know()
        with trio.move_on_after(1):
            await rig.next(owner="gone")
        nursery.start_soon(partial(rig.next, owner="here"))
        await trio.testing.wait_all_tasks_blocked()
        assert rig.actor.waiting[Lane.RUN] == 1
        rig.offer(entry(1))
        assert await rig.requests() == [Claim(an_id(1), "here")]


async def test_only_the_store_tells_an_impatient_client_that_the_queue_is_empty(autojump_clock):
    """A hint may be on its way while the question is here."""
    rig = Rig()
    outcomes: list[Any] = []

    async def ask() -> None:
        outcomes.append(await rig.dequeue(patient=False))

    async with running(rig) as nursery:
        await rig.know()
        nursery.start_soon(ask)
        assert await rig.requests() == [Refill(Lane.TAKE, rig.config.window)]
        assert outcomes == []


async def test_an_impatient_client_hears_of_a_store_that_was_read_after_it_asked(autojump_clock):
    rig = Rig()
    outcomes: list[Any] = []

    async def ask() -> None:
        outcomes.append(await rig.dequeue(patient=False))

    async with running(rig) as nursery:
        nursery.start_soon(ask)
        await rig.know()  # this was asked for before the client came
        assert outcomes == []
        await rig.know()
        assert [type(outcome) for outcome in outcomes] == [QueueEmpty]


async def test_an_impatient_client_does_not_wait_for_a_store_that_is_down(autojump_clock):
    rig = Rig()
    outcomes: list[Any] = []

    async def ask() -> None:
        outcomes.append(await rig.dequeue(patient=False))

    async def broken_store() -> None:
        while True:
            (await rig.repository.receive()).reply.fail(StoreUnavailable("the disk is gone"))

    async with running(rig) as nursery:
        nursery.start_soon(broken_store)
        nursery.start_soon(ask)
        await trio.sleep(5)
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailable]


async def test_patient_clients_are_limited(autojump_clock):
    rig = Rig(takers_max=2)
    async with running(rig) as nursery:
        await rig.know()
        for _ in range(2):
            nursery.start_soon(rig.dequeue)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(await rig.dequeue(), Overloaded)
        nursery.start_soon(rig.next)  # executors are not counted among them
        await trio.testing.wait_all_tasks_blocked()
        assert rig.actor.waiting == {Lane.RUN: 1, Lane.TAKE: 2}


async def test_clients_who_left_make_room_for_others(autojump_clock):
    rig = Rig(takers_max=2)
    async with running(rig) as nursery:
        await rig.know()
        nursery.start_soon(rig.dequeue)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await rig.dequeue()
        nursery.start_soon(rig.dequeue)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.actor.waiting[Lane.TAKE] == 2


async def test_a_repository_without_room_is_tried_again_and_nothing_is_forgotten(autojump_clock):
    rig = Rig(repository_inbox=2)
    async with running(rig) as nursery:
        await trio.testing.wait_all_tasks_blocked()  # both places are taken by its own questions
        nursery.start_soon(rig.next)
        rig.offer(entry(1))
        await trio.sleep(1)
        assert len(rig.repository) == 2
        await rig.know(
            Page((entry(1),), ready_complete=True, scheduled=(), scheduled_complete=True)
        )
        await trio.sleep(1)
        assert claims(await rig.requests()) == [an_id(1)]


async def test_a_page_arrives_even_when_its_inbox_is_full(autojump_clock):
    rig = Rig(inbox=1)
    async with running(rig) as nursery:
        nursery.start_soon(rig.next)
        await trio.testing.wait_all_tasks_blocked()
        requests = rig.repository.receive_nowait()
        rig.actor.withdraw(())  # fills it
        page = Page((entry(1),), ready_complete=True, scheduled=(), scheduled_complete=True)
        for request in requests:
            asked_for_it = request.command == Refill(Lane.RUN, 2_000)
            request.reply.answer(Reading(page if asked_for_it else NOTHING))
        assert claims(await rig.requests()) == [an_id(1)]


async def test_after_a_store_failure_it_reads_again_with_pauses(autojump_clock):
    rig = Rig(store_retry_s=0.5)
    tries: list[float] = []

    async def broken_store() -> None:
        while True:
            request = await rig.repository.receive()
            tries.append(trio.current_time())
            request.reply.fail(StoreUnavailable("the disk is gone"))

    async with running(rig) as nursery:
        nursery.start_soon(broken_store)
        await trio.sleep(10)
        assert 10 <= len(tries) <= 50


async def test_when_a_transaction_failed_it_reads_the_store_again(autojump_clock):
    rig = Rig()
    async with running(rig) as nursery:
        await rig.know()
        rig.offer(entry(1))
        nursery.start_soon(rig.next)
        await trio.testing.wait_all_tasks_blocked()
        (request,) = rig.repository.receive_nowait()
        request.reply.fail(StoreUnavailable("the disk is gone"))
        rig.actor.lost_track(3.0)
        assert await rig.requests() == []
        await trio.sleep(2.9)
        assert await rig.requests() == [], "the store is left alone"
        await trio.sleep(0.2)
        assert [type(command) for command in await rig.requests()] == [Refill, Refill]


async def test_missed_hints_make_it_read_the_store_again(autojump_clock):
    rig = Rig()
    async with running(rig):
        await rig.know()
        rig.offer(missed=True)
        assert [type(command) for command in await rig.requests()] == [Refill, Refill]


async def test_when_it_ends_everybody_is_sent_home(autojump_clock):
    rig = Rig()
    outcomes: list[Any] = []

    async def ask(lane: Lane, owner: str | None) -> None:
        outcomes.append(await rig.next(lane, owner))

    async with nobody_hangs(60) as nursery, running(rig):
        await rig.know()
        for lane, owner in ((Lane.RUN, "me"), (Lane.TAKE, None)):
            nursery.start_soon(ask, lane, owner)
        await trio.testing.wait_all_tasks_blocked()
    assert [type(outcome) for outcome in outcomes] == [EngineStopping] * 2
    assert repr(rig.actor).startswith("<Queue run <Backlog ready 0, scheduled 0> 1 askers")


async def test_cancelled_at_any_step_it_leaves_nobody_waiting(autojump_clock):
    async def scenario(step: CancelAtStep) -> None:
        rig = Rig(inbox=50)
        outcomes: list[Any] = []

        async def ask(number: int) -> None:
            await trio.sleep(number / 2)
            lane, owner = (Lane.RUN, "me") if number % 2 else (Lane.TAKE, None)
            outcomes.append(await rig.next(lane, owner))

        async def serve() -> None:
            while True:
                request = await rig.repository.receive()
                answer = Reading(NOTHING) if isinstance(request.command, Refill) else a_task()
                request.reply.answer(answer)

        async with nobody_hangs(60) as nursery:
            for number in range(8):
                nursery.start_soon(ask, number)
            with step.watching():
                async with trio.open_nursery() as inner:
                    inner.start_soon(serve)
                    with step.scope:
                        async with trio.open_nursery() as actors:
                            await actors.start(rig.actor.run)
                            for number in range(4):
                                rig.offer(entry(number + 1, due_s=number))
                            await trio.sleep(10)
                            rig.inbox.close()
                    inner.cancel_scope.cancel()
        assert len(outcomes) == 8
        with pytest.raises(EngineStopping):
            rig.inbox.tell(Offered(Delivery(())))

    assert await cancel_sweep(scenario, of="Queue.run") > 10


# -- with everything around it -----------------------------------------------------------------


async def test_tasks_run_by_priority_then_by_age(autojump_clock):
    world = World(busy=[After(5.0)])
    async with world.open(executors=1) as engine:
        busy = await submit_one(engine, "http://callee.example/busy")
        await trio.sleep(1)
        wanted = {}
        for priority in (0, 5, -5, 5, 0):
            wanted[await submit_one(engine, priority=priority)] = priority
            await trio.sleep(0.1)
        await until(engine, wanted)
    assert world.net.order()[0] == busy
    assert [wanted[i] for i in world.net.order()[1:]] == [5, 5, 0, 0, -5]
    assert world.net.order()[1:] == sorted(wanted, key=lambda i: (-wanted[i], i))


async def test_waiting_raises_the_priority_so_that_nothing_starves(autojump_clock):
    world = World(busy=[After(10.0)])
    async with world.open(executors=1, ageing_s=60.0) as engine:
        await submit_one(engine, "http://callee.example/busy", timeout_s=20.0)
        old = await submit_one(engine, priority=0)
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                while True:  # more urgent tasks than the executor can do
                    await submit(
                        engine, *["http://callee.example/busy"] * 2, priority=5, timeout_s=20.0
                    )
                    await trio.sleep(10)

            nursery.start_soon(flood)
            await until(engine, [old], within_s=700)
            nursery.cancel_scope.cancel()
        engine.cut()
    # Five levels are worth 300 s; in those came 60 tasks that still went first, 10 s each.
    assert 590 <= world.net.of(old)[0].began <= 640


async def test_a_task_does_not_run_before_its_time(autojump_clock):
    world = World()
    async with world.open(sweep_interval_s=60.0) as engine:
        by_time = await submit_one(engine, run_at=at(7200.0))
        by_delay = await submit_one(engine, delay_s=3600.0)
        await trio.sleep(3599)
        assert world.net.calls == []
        await until(engine, [by_time, by_delay], within_s=4000)
    assert world.net.of(by_delay)[0].began == pytest.approx(3600.0, abs=0.1)
    assert world.net.of(by_time)[0].began == pytest.approx(7200.0, abs=0.1)


async def test_moving_a_task_to_an_earlier_time_takes_effect(autojump_clock):
    world = World()
    async with world.open() as engine:
        task_id = await submit_one(engine, run_at=at(7200.0))
        await trio.sleep(1)
        await engine.update(task_id, {"run_at": at(10.0)})
        await until(engine, [task_id], within_s=20)
    assert world.net.of(task_id)[0].began == pytest.approx(10.0, abs=0.1)


@pytest.mark.parametrize("inbox", [1, 3])
async def test_a_window_smaller_than_the_backlog_and_tiny_inboxes_forget_nothing(
    autojump_clock, inbox
):
    world = World(quick=[After(0.01)])
    async with world.open(window=8, inbox=inbox, commit_batch=4, store_retry_s=0.05) as engine:
        accepted = await submit(engine, *["http://callee.example/quick"] * 200)
        later = [
            await submit_patiently(engine, delay_s=0.1 * number, priority=number % 3)
            for number in range(20)
        ]
        await until(engine, accepted + later, within_s=600)
        await world.check_books(accepted + later)
    assert len(world.net.calls) == 220


async def submit_patiently(engine: Any, **fields: Any) -> str:
    """Accept a task, as soon as there is room."""
    while True:
        try:
            return await submit_one(engine, **fields)
        except Overloaded:
            await trio.sleep(0.01)


async def test_transactions_that_fail_now_and_then_make_it_forget_nothing(autojump_clock):
    world = World()
    async with world.open(window=8, executors=8) as engine:
        accepted = await submit(engine, *[GOOD] * 100, dispatch=Dispatch.AUTO)
        world.store.fail_at = range(world.store.transactions + 1, 10_000, 3)
        await until(engine, accepted, within_s=600)
        await world.check_books(accepted)


async def test_a_full_engine_refuses_at_the_edge_and_loses_nothing(autojump_clock):
    world = World()
    refused: list[Overloaded] = []
    accepted: list[str] = []
    async with world.open(inbox=5) as engine:
        world.store.delay_s = 1.0

        async def client() -> None:
            try:
                accepted.append(await submit_one(engine))
            except Overloaded as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(client)
        world.store.delay_s = 0.0
        assert len(refused) + len(accepted) == 50
        assert refused
        assert all(error.retry_after_s > 0 for error in refused)
        await until(engine, accepted)
        await world.check_books(accepted)
        assert len(await world.tasks()) == len(accepted)


async def test_a_full_queue_refuses_new_tasks_until_some_are_done(autojump_clock):
    world = World()
    async with world.open(queue_max=10) as engine:
        waiting = await submit(engine, *[GOOD] * 8, delay_s=10.0)
        with pytest.raises(Overloaded, match="has no room"):
            await submit(engine, *[GOOD] * 3)
        assert len(await world.tasks()) == 8
        await until(engine, waiting)
        await submit(engine, *[GOOD] * 10)


async def test_a_client_is_never_told_of_a_task_it_did_not_name(autojump_clock):
    """The task moves to a later time while it is being taken: the client gets the next one."""
    world = World()
    async with world.open() as engine:
        first = await submit_one(engine, dispatch=Dispatch.MANUAL)
        second = await submit_one(engine, dispatch=Dispatch.MANUAL)
        await trio.testing.wait_all_tasks_blocked()
        world.store.gate = trio.Event()
        got: list[Any] = []

        async def dequeue() -> None:
            try:
                got.append((await engine.dequeue()).id)
            except EngineError as error:
                got.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.submit, [a_spec()])  # waits at the gate
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(engine.update, first, {"run_at": at(60.0)})
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(dequeue)
            await trio.testing.wait_all_tasks_blocked()
            world.store.gate.set()
        world.store.gate = None
        assert got == [second]


@pytest.mark.parametrize("by_id", [False, True])
async def test_a_manual_task_can_be_dequeued_when_its_time_has_come(autojump_clock, by_id):
    world = World()
    async with world.open() as engine:
        task_id = await submit_one(engine, dispatch=Dispatch.MANUAL, delay_s=10.0)
        with pytest.raises(QueueEmpty):
            await engine.dequeue()
        with pytest.raises(NotTakeable):
            await engine.dequeue_task(task_id)
        await trio.sleep(11)
        taken = await (engine.dequeue_task(task_id) if by_id else engine.dequeue(wait_s=5.0))
        assert (taken.id, taken.status) == (task_id, Status.PENDING)


async def test_what_was_accepted_can_be_dequeued_at_once(autojump_clock):
    world = World()
    async with world.open() as engine:
        for _ in range(100):
            task_id = await submit_one(engine, dispatch=Dispatch.MANUAL)
            assert (await engine.dequeue()).id == task_id


async def test_the_queue_is_never_called_empty_while_an_accepted_task_waits(autojump_clock):
    world = World()
    async with world.open() as engine:
        for _ in range(300):  # the first hint keeps intake busy while the second one comes
            await submit_one(engine)
            task_id = await submit_one(engine, dispatch=Dispatch.MANUAL)
            assert (await engine.dequeue()).id == task_id


async def test_a_client_waits_for_a_task_to_come(autojump_clock):
    world = World()
    async with world.open() as engine:
        with pytest.raises(QueueEmpty):
            await engine.dequeue()
        began = trio.current_time()
        with pytest.raises(QueueEmpty):
            await engine.dequeue(wait_s=5.0)
        assert trio.current_time() == began + 5.0
        async with trio.open_nursery() as nursery:

            async def dequeue() -> None:
                task = await engine.dequeue(wait_s=30.0, lease_s=7.0)
                assert task.expires_at == at(trio.current_time() + 7.0)

            nursery.start_soon(dequeue)
            await trio.sleep(10)
            await submit_one(engine, dispatch=Dispatch.MANUAL)
        assert trio.current_time() == pytest.approx(began + 15.0, abs=0.1)


async def test_clients_share_tasks_without_getting_one_twice(autojump_clock):
    world = World()
    async with world.open() as engine:
        accepted = await submit(engine, *[GOOD] * 50, dispatch=Dispatch.MANUAL)
        got: list[str] = []

        async def client() -> None:
            while True:
                try:
                    got.append((await engine.dequeue()).id)
                except QueueEmpty:
                    return

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client)
        assert sorted(got) == sorted(accepted)
