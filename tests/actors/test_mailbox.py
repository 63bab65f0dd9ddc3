"""Asking and telling: bounded, never blocking the actor, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from engine.actors.mailbox import Inbox, Reply
from engine.errors import EngineStopping, Overloaded, QueueEmpty


async def test_messages_come_out_in_the_order_they_went_in():
    inbox = Inbox[int]("test", 3)
    for number in (1, 2, 3):
        inbox.tell(number)
    assert [await inbox.receive() for _ in range(3)] == [1, 2, 3]


async def test_a_full_inbox_refuses_and_keeps_what_it_has():
    inbox = Inbox[int]("test", 2)
    inbox.tell(1)
    inbox.tell(2)
    with pytest.raises(Overloaded, match="the test is overloaded") as caught:
        inbox.tell(3)
    assert not isinstance(caught.value, EngineStopping)
    assert inbox.receive_nowait() == [1, 2]


async def test_what_is_there_is_taken_in_one_go_up_to_a_limit():
    inbox = Inbox[int]("test", 5)
    for number in range(5):
        inbox.tell(number)
    assert inbox.receive_nowait(2) == [0, 1]
    assert inbox.receive_nowait() == [2, 3, 4]
    assert inbox.receive_nowait() == []


async def test_a_closed_inbox_takes_nothing_but_gives_out_what_it_has():
    inbox = Inbox[int]("test", 2)
    inbox.tell(1)
    inbox.close()
    with pytest.raises(EngineStopping):
        inbox.tell(2)
    assert await inbox.receive() == 1
    with pytest.raises(trio.EndOfChannel):
        await inbox.receive()
    assert inbox.receive_nowait() == []


async def test_nobody_can_tell_an_actor_that_has_ended():
    inbox = Inbox[int]("test", 2)
    inbox.abandon()
    with pytest.raises(EngineStopping):
        inbox.tell(1)


async def test_an_inbox_says_how_full_it_is():
    inbox = Inbox[int]("test", 2)
    inbox.tell(1)
    assert len(inbox) == 1
    assert repr(inbox) == "<Inbox test 1>"


async def asked(inbox: Inbox[Reply[int]], respond: Callable[[Reply[int]], None]) -> int:
    """The answer to a question, of an actor that responds like this."""
    async with trio.open_nursery() as nursery:

        async def actor() -> None:
            respond(await inbox.receive())

        nursery.start_soon(actor)
        try:
            return await inbox.ask(lambda reply: reply)
        except Exception as error:
            failed = error
    raise failed


async def test_an_answer_comes_back(autojump_clock):
    assert await asked(Inbox[Reply[int]]("test", 1), lambda reply: reply.answer(7)) == 7


async def test_an_error_given_as_the_answer_is_raised(autojump_clock):
    with pytest.raises(QueueEmpty):
        await asked(Inbox[Reply[int]]("test", 1), lambda reply: reply.fail(QueueEmpty()))


async def test_only_the_first_answer_counts(autojump_clock):
    def twice(reply: Reply[int]) -> None:
        reply.answer(1)
        reply.answer(2)
        reply.fail(QueueEmpty())

    assert await asked(Inbox[Reply[int]]("test", 1), twice) == 1


async def test_a_question_to_a_full_inbox_is_refused_at_once():
    inbox = Inbox[Reply[int]]("test", 1)
    inbox.tell(Reply())
    with pytest.raises(Overloaded):
        await inbox.ask(lambda reply: reply)


async def test_an_asker_who_leaves_is_known_and_may_be_answered():
    inbox = Inbox[Reply[int]]("test", 1)
    abandoned: list[bool] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.ask, lambda reply: reply)
        await trio.testing.wait_all_tasks_blocked()
        reply = await inbox.receive()
        abandoned.append(reply.abandoned)
        nursery.cancel_scope.cancel()
    abandoned.append(reply.abandoned)
    assert abandoned == [False, True]
    reply.answer(1)


async def test_a_cancellation_does_not_come_between_an_answer_and_who_needs_it():
    reply = Reply[int]()
    reply.answer(7)
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await reply.wait() == 7
    assert not reply.abandoned


async def test_who_was_cancelled_while_waiting_may_wait_once_more(autojump_clock):
    reply = Reply[int]()
    with trio.move_on_after(1):
        await reply.wait()
    assert reply.abandoned
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_later, reply, 7)
        assert await reply.wait() == 7


async def answer_later(reply: Reply[int], value: int) -> None:
    await trio.sleep(1)
    reply.answer(value)


async def test_who_withdraws_a_question_sees_what_was_answered_before():
    unanswered, answered, failed = Reply[int](), Reply[int](), Reply[int]()
    answered.answer(7)
    failed.fail(QueueEmpty())
    assert [reply.withdraw() for reply in (unanswered, answered, failed)] == [None, 7, None]
    assert unanswered.abandoned


async def test_an_actor_that_was_woken_for_what_it_has_taken_waits_for_more(autojump_clock):
    inbox = Inbox[int]("test", 5)
    inbox.tell(1)
    assert inbox.receive_nowait() == [1]
    with trio.move_on_after(1) as scope:
        await inbox.receive()
    assert scope.cancelled_caught
    for number in (2, 3):
        inbox.tell(number)
    assert await inbox.receive() == 2
    assert await inbox.receive() == 3


async def test_a_cancelled_actor_leaves_its_messages_in_the_inbox():
    inbox = Inbox[int]("test", 5)
    inbox.tell(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await inbox.receive()
    assert inbox.receive_nowait() == [1]


async def test_who_asks_an_actor_that_ends_is_told_so(autojump_clock):
    """Also when the question still lies in its inbox, or was received and never answered."""
    inbox = Inbox[Reply[int]]("test", 4)
    outcomes: list[str] = []

    async def ask() -> None:
        try:
            await inbox.ask(lambda reply: reply)
        except EngineStopping:
            outcomes.append("told")

    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            (await inbox.receive()).fail(EngineStopping())
            for reply in inbox.receive_nowait():
                reply.fail(EngineStopping())
            inbox.abandon()
    assert outcomes == ["told"] * 3
