"""The repository actor: one transaction for all that waits, an answer for everybody, and nothing
announced before it is durable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from engine.actors.mailbox import Inbox, Reply
from engine.actors.repository import Applied, Repository
from engine.adapters.system import TrioClock
from engine.config import EngineConfig
from engine.core.commands import AnyCommand, Cancel, Claim, Create, Execute, Refill, Take
from engine.core.outcome import Answer
from engine.core.task import Dispatch, Lane, Status
from engine.errors import (
    ClaimLost,
    EngineStopping,
    StoreConflict,
    StoreRejected,
    StoreUnavailable,
    TaskNotFound,
)
from engine.messages import RepositoryMessage, Request
from tests.support.builders import NOW, a_spec, an_id, creating, finishing
from tests.support.engine import TroubledStore
from tests.support.sweep import CancelAtStep, cancel_sweep, nobody_hangs


@attrs.define
class Told:
    """An announcer that records."""

    applied: list[Applied] = attrs.field(factory=list)
    lost: int = 0
    rest_s: float | None = None

    def __call__(self, applied: Applied) -> None:
        self.applied.append(applied)

    def lost_track(self, rest_s: float) -> None:
        self.lost += 1
        self.rest_s = rest_s


class Rig:
    """A repository on a troubled store, with nothing around it."""

    def __init__(self, **settings: Any) -> None:
        self.store, self.told = TroubledStore(), Told()
        self.config = EngineConfig(**settings)
        self.inbox = Inbox[RepositoryMessage]("repository", self.config.inbox)
        clock = TrioClock(NOW)
        self.actor = Repository(self.inbox, self.store, clock, self.config, self.told)

    async def do(self, command: AnyCommand) -> Any:
        return await self.inbox.ask(partial(Request, command))

    async def outcome(self, command: AnyCommand) -> Any:
        """The result, or the error."""
        try:
            return await self.do(command)
        except Exception as error:
            return error

    async def all_at_once(self, *commands: AnyCommand) -> list[Any]:
        """Outcomes of commands that reach the store together."""
        results: list[Any] = [None] * len(commands)

        async def one(index: int) -> None:
            results[index] = await self.outcome(commands[index])

        self.store.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.outcome, Refill(Lane.RUN, 1))  # holds the gate
            await trio.testing.wait_all_tasks_blocked()
            for index in range(len(commands)):  # in this order
                nursery.start_soon(one, index)
                await trio.testing.wait_all_tasks_blocked()
            self.store.gate.set()
        self.store.gate = None
        return results


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[trio.CancelScope]:
    """The repository at work; at the end of the block it has ended."""
    async with trio.open_nursery() as nursery:
        scope = await nursery.start(rig.actor.run)
        try:
            yield scope
        finally:
            rig.inbox.close()


async def test_an_answer_means_that_it_is_durable(autojump_clock):
    rig = Rig()
    async with running(rig):
        created = await rig.do(creating(1))
        assert [receipt.task_id for receipt in created.receipts] == [an_id(1)]
        assert (await rig.store.get(an_id(1))) is not None
    assert [task.id for task in rig.told.applied[0].tasks] == [an_id(1)]
    assert [event.seq for event in rig.told.applied[0].events] == [1]


async def test_what_gathers_during_a_commit_shares_the_next_one(autojump_clock):
    rig = Rig()
    async with running(rig):
        before = rig.store.transactions
        results = await rig.all_at_once(*(creating(n) for n in range(1, 21)))
        assert [r.receipts[0].task_id for r in results] == [an_id(n) for n in range(1, 21)]
        assert rig.store.transactions == before + 2
    assert rig.actor.commits == 2


async def test_a_transaction_holds_no_more_commands_than_allowed(autojump_clock):
    rig = Rig(commit_batch=5)
    async with running(rig):
        await rig.all_at_once(*(creating(n) for n in range(1, 21)))
    assert [len(applied.tasks) for applied in rig.told.applied] == [0, 5, 5, 5, 5]


async def test_a_transaction_holds_no_more_of_answers_than_a_mebibyte(autojump_clock):
    rig = Rig(answer_bytes_max=2**21)
    sizes = [2**18] * 6 + [2**21, 1]
    body = b"x" * 2**21
    async with running(rig):
        await rig.all_at_once(*(creating(n) for n in range(1, 9)))
        claimed = await rig.all_at_once(*(Claim(an_id(n), "me") for n in range(1, 9)))
        before = len(rig.told.applied)
        ended = await rig.all_at_once(
            *(
                finishing(task, answer=Answer(status_code=200, body=body[:size]))
                for task, size in zip(claimed, sizes, strict=True)
            )
        )
    assert [task.status for task in ended] == [Status.COMPLETED] * 8
    assert [len(applied.tasks) for applied in rig.told.applied[before + 1 :]] == [4, 2, 1, 1]


async def test_a_refused_command_does_not_sink_its_neighbours(autojump_clock):
    rig = Rig()
    async with running(rig):
        good, bad, also_good = await rig.all_at_once(creating(1), Execute(an_id(9)), creating(2))
    assert good.receipts
    assert isinstance(bad, TaskNotFound)
    assert also_good.receipts


async def test_values_the_store_refuses_fail_their_own_command_only(autojump_clock):
    rig = Rig()
    async with running(rig):
        rig.store.error, rig.store.fail_at = StoreRejected("too big"), {2, 4}  # the batch, and one
        results = await rig.all_at_once(creating(1), creating(2), creating(3))
    assert [type(result).__name__ for result in results] == ["Created", "StoreRejected", "Created"]
    assert rig.actor.store_error is None


async def test_a_conflict_is_tried_again(autojump_clock):
    rig = Rig()
    async with running(rig):
        rig.store.error, rig.store.fail_at = StoreConflict("somebody was faster"), {1, 2, 3}
        assert (await rig.do(creating(1))).receipts
    assert rig.store.transactions == 4


async def test_endless_conflicts_are_told_as_trouble_that_may_pass(autojump_clock):
    rig = Rig()
    async with running(rig):
        rig.store.error, rig.store.fail_at = StoreConflict("somebody was faster"), range(100)
        with pytest.raises(StoreUnavailable, match="others keep changing"):
            await rig.do(creating(1))
    assert rig.store.transactions < 10


async def test_trouble_is_told_to_all_and_remembered_until_it_passes(autojump_clock, caplog):
    rig = Rig()
    async with running(rig):
        rig.store.down = True
        results = await rig.all_at_once(creating(1), creating(2))
        assert all(isinstance(result, StoreUnavailable) for result in results)
        trouble = [rig.actor.store_error]
        assert rig.told.lost > 0
        assert rig.told.applied == []
        rig.store.down = False
        await rig.do(creating(1))
        trouble.append(rig.actor.store_error)  # on a full disk some transactions succeed
        rig.store.down = True
        await rig.all_at_once(creating(2))
        rig.store.down = False
        await trio.sleep(2)
        await rig.do(creating(2))
        trouble.append(rig.actor.store_error)
    assert [str(error) for error in trouble] == ["the disk is gone", "the disk is gone", "None"]
    assert [record.getMessage() for record in caplog.records] == [
        "the store does not answer: the disk is gone",
        "the store answers again",
    ]


@pytest.mark.parametrize("dispatch", [Dispatch.MANUAL, Dispatch.AUTO])
async def test_a_task_claimed_for_somebody_who_left_is_given_back(autojump_clock, dispatch):
    rig = Rig()
    async with running(rig):
        await rig.do(creating(1, dispatch=dispatch))
        manual = dispatch is Dispatch.MANUAL
        command = Take(an_id(1), 60.0) if manual else Claim(an_id(1), "me")
        with trio.move_on_after(1):
            rig.store.delay_s = 2
            await rig.do(command)
        rig.store.delay_s = 0
        await trio.sleep(5)
        task = await rig.store.get(an_id(1))
        assert task is not None
        assert task.status is (Status.QUEUED if manual else Status.RETRYING)
        assert (task.failures, task.recoveries) == (0, 0)


@pytest.mark.parametrize("dispatch", [Dispatch.MANUAL, Dispatch.AUTO])
async def test_it_is_given_back_even_when_the_engine_stops_or_the_inbox_is_full(
    autojump_clock, dispatch
):
    rig = Rig(inbox=1)
    async with running(rig):
        await rig.do(creating(1, dispatch=dispatch))
        manual = dispatch is Dispatch.MANUAL
        reply: Reply[Any] = Reply()
        rig.inbox.tell(Request(Take(an_id(1), 60.0) if manual else Claim(an_id(1), "me"), reply))
        with trio.move_on_after(0):
            await reply.wait()
        rig.inbox.close()
    task = await rig.store.get(an_id(1))
    assert task is not None
    assert task.status is (Status.QUEUED if manual else Status.RETRYING)


async def test_other_results_need_nobody_to_wait_for_them(autojump_clock):
    rig = Rig()
    async with running(rig):
        reply: Reply[Any] = Reply()
        rig.inbox.tell(Request(creating(1), reply))
        with trio.move_on_after(0):
            await reply.wait()
    assert await rig.store.get(an_id(1)) is not None


async def test_a_claim_that_is_cancelled_in_the_same_transaction_is_lost(autojump_clock):
    """Else a callback would be made after its cancellation was confirmed."""
    rig = Rig()
    async with running(rig):
        await rig.do(creating(1))
        claimed, cancelled = await rig.all_at_once(
            Claim(an_id(1), "me"), Cancel(an_id(1), in_flight=True)
        )
    assert cancelled.status is Status.CANCELLED
    assert isinstance(claimed, ClaimLost)


async def test_a_claim_of_a_task_that_is_not_free_is_lost_and_shows_how_it_is(autojump_clock):
    rig = Rig()
    async with running(rig):
        await rig.do(creating(1, delay_s=60.0))
        await rig.do(creating(2, 3, partition_key="eu"))
        for number in (1, 3):  # not due, and not its turn
            with pytest.raises(ClaimLost):
                await rig.do(Claim(an_id(number), "me"))
            assert [task.id for task in rig.told.applied[-1].tasks] == [an_id(number)]
            assert rig.told.applied[-1].events == ()


async def test_a_late_result_changes_nothing(autojump_clock):
    rig = Rig()
    async with running(rig):
        await rig.do(creating(1))
        first = await rig.do(Claim(an_id(1), "me"))
        await rig.do(finishing(first, status_code=500, jitter=0.0))
        second = await rig.do(Claim(an_id(1), "me"))
        with pytest.raises(ClaimLost):
            await rig.do(finishing(first))
        with pytest.raises(ClaimLost):
            await rig.do(finishing(attrs.evolve(second, owner="somebody else")))
        assert await rig.store.get(an_id(1)) == second


async def test_everything_told_before_the_close_is_done(autojump_clock):
    rig = Rig(commit_batch=3)
    replies: list[Reply[Any]] = [Reply() for _ in range(10)]
    async with running(rig):
        for number, reply in enumerate(replies, 1):
            rig.inbox.tell(Request(creating(number), reply))
    assert [(await reply.wait()).receipts[0].task_id for reply in replies] == [
        an_id(n) for n in range(1, 11)
    ]


async def test_a_bug_ends_it_and_leaves_nobody_waiting(autojump_clock):
    rig = Rig(commit_batch=2)
    outcomes: list[Any] = []

    async def ask(number: int) -> None:
        outcomes.append(await rig.outcome(creating(number)))

    async with nobody_hangs(60) as nursery:
        rig.store.gate = trio.Event()
        rig.store.error, rig.store.fail_at = ZeroDivisionError("a bug"), {1}
        for number in range(1, 6):
            nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked()
        rig.store.gate.set()
        with pytest.RaisesGroup(ZeroDivisionError):
            async with running(rig):
                await trio.sleep(1)
    assert [type(outcome) for outcome in outcomes] == [EngineStopping] * 5


async def test_cancelled_at_any_step_it_leaves_nobody_waiting_and_nothing_by_half(autojump_clock):
    async def scenario(at: CancelAtStep) -> None:
        rig = Rig(commit_batch=2)
        outcomes: dict[int, Any] = {}

        async def client(number: int) -> None:
            outcomes[number] = await rig.outcome(Create(((an_id(number), a_spec()),)))

        async with nobody_hangs(60) as nursery:
            at.scope = await nursery.start(rig.actor.run)
            with at.watching():
                for number in range(1, 8):
                    nursery.start_soon(client, number)
                await trio.sleep(1)
                rig.inbox.close()
        stored = [n for n in outcomes if await rig.store.get(an_id(n)) is not None]
        confirmed = [n for n, outcome in outcomes.items() if not isinstance(outcome, Exception)]
        told = {event.task_id for applied in rig.told.applied for event in applied.events}
        assert len(outcomes) == 7
        assert set(confirmed) <= set(stored)
        assert told == {an_id(n) for n in stored}
        _, newest = await rig.store.event_range()
        assert newest == len(stored)
        with pytest.raises(EngineStopping):
            rig.inbox.tell(Request(creating(99), Reply()))

    assert await cancel_sweep(scenario, of="Repository.run") > 5
