"""Blocking calls in a thread: one after the other, waited for, and told to whoever asked."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from engine.adapters.threads import InlineRunSync, ThreadRunSync


@pytest.fixture(params=[ThreadRunSync, InlineRunSync])
def run_sync(request: pytest.FixtureRequest):
    return request.param()


async def test_it_gives_the_result_or_the_exception(run_sync):
    assert await run_sync(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await run_sync(lambda: 1 // 0)
    assert await run_sync(lambda: 8) == 8


async def test_every_call_is_a_checkpoint(run_sync):
    with trio.testing.assert_checkpoints():
        await run_sync(lambda: None)
    called = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await run_sync(lambda: called.append(1))
    assert scope.cancelled_caught
    assert not called


async def test_calls_run_one_after_the_other_and_others_go_on():
    run_sync = ThreadRunSync()
    doors = [threading.Event() for _ in range(3)]
    ended: list[int] = []

    async def call(n: int) -> None:
        await run_sync(doors[n].wait)
        ended.append(n)

    assert repr(run_sync) == "<ThreadRunSync idle>"
    async with trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(call, n)
            await trio.testing.wait_all_tasks_blocked()
        assert repr(run_sync) == "<ThreadRunSync busy>"
        doors[2].set()
        doors[1].set()
        await trio.testing.wait_all_tasks_blocked()
        assert ended == []
        doors[0].set()
    assert ended == [0, 1, 2]


async def test_a_call_that_has_begun_is_waited_for_and_its_result_given():
    run_sync = ThreadRunSync()
    door = threading.Event()
    results: list[bool] = []

    async def call() -> None:
        results.append(await run_sync(door.wait))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        assert results == []
        door.set()
    assert results == [True]


async def test_one_that_waits_for_its_turn_can_be_cancelled():
    run_sync = ThreadRunSync()
    door = threading.Event()
    called = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_sync, door.wait)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(run_sync, lambda: called.append(1))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        door.set()
    assert not called
    assert await run_sync(lambda: 7) == 7
