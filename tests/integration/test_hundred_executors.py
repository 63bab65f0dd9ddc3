"""The real engine calls a real receiver over loopback: a hundred at once, and no callback that is
dead or hangs delays the others."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from engine import Engine, EngineConfig, ErrorClass, RetryPolicy, Status, open_engine
from engine.core.lifecycle import ENDED
from tests.support.builders import a_spec
from web.receiver import Receiver, open_receiver

pytestmark = pytest.mark.slow

ONCE = RetryPolicy(max_attempts=1)


@asynccontextmanager
async def engine_and_receiver(
    executors: int, **settings: Any
) -> AsyncIterator[tuple[Engine, Receiver]]:
    """A real engine with its tasks in memory, and a real callee."""
    config = EngineConfig(executors=executors, grace_s=5.0, **settings)
    async with open_receiver() as receiver, open_engine(config) as engine:
        yield engine, receiver


async def submit(engine: Engine, url: str, number: int, *, timeout_s: float = 10.0) -> list[str]:
    specs = [a_spec(callback_url=url, timeout_s=timeout_s, retry_policy=ONCE)] * number
    return [receipt.task_id for receipt in (await engine.submit(specs)).receipts]


async def until_ended(engine: Engine, task_ids: Iterable[str], within_s: float) -> None:
    left = list(task_ids)
    with trio.fail_after(within_s):
        while True:
            left = [i for i in left if (await engine.get(i)).status not in ENDED]
            if not left:
                return
            await trio.sleep(0.02)


async def test_a_hundred_callbacks_of_200_ms_are_in_flight_at_once():
    async with engine_and_receiver(100) as (engine, receiver):
        task_ids = await submit(engine, f"{receiver.url}/slow?ms=200", 500)
        await until_ended(engine, task_ids, within_s=30.0)
        assert receiver.peak_in_flight == 100
        assert receiver.total == 500
        assert receiver.counts() == dict.fromkeys(task_ids, 1)
        stats = await engine.stats()
        assert stats.counts[Status.COMPLETED] == 500
        assert stats.attempts.by_outcome == {"success": 500}


async def test_dead_and_hanging_callbacks_hold_up_nobody_beyond_their_own_slots():
    with socket.socket() as dead:  # bound, not listening: every connection is refused
        dead.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{dead.getsockname()[1]}/hook"
        # No breaker: this is about slots, and all that are refused shall be tried.
        async with (
            engine_and_receiver(10, breaker_ratio=2.0) as (engine, receiver),
            open_receiver() as hangman,
        ):
            hanging = await submit(engine, f"{hangman.url}/hang", 5, timeout_s=600.0)
            refused = await submit(engine, nobody, 20)
            good = await submit(engine, f"{receiver.url}/slow?ms=50", 50)
            await until_ended(engine, good + refused, within_s=30.0)  # half of the slots are enough
            assert {(await engine.get(i)).status for i in hanging} == {Status.PROCESSING}
            assert {(await engine.get(i)).status for i in good} == {Status.COMPLETED}
            for task_id in refused:
                (attempt,) = await engine.attempts(task_id)
                assert attempt.result.error_class is ErrorClass.REFUSED
            assert hangman.in_flight == 5
            for task_id in hanging:
                await engine.cancel(task_id, in_flight=True)
            too_slow = await submit(engine, f"{hangman.url}/hang", 5, timeout_s=0.5)
            await until_ended(engine, too_slow, within_s=10.0)
            for task_id in too_slow:
                (attempt,) = await engine.attempts(task_id)
                assert attempt.result.error_class is ErrorClass.TIMEOUT
                assert 0.45 < attempt.duration_s < 5.0
            with trio.fail_after(5):  # the connections were closed, too
                while hangman.in_flight:  # noqa: ASYNC110 - it is not ours to signal
                    await trio.sleep(0.01)


async def test_a_cancel_in_flight_closes_the_connection():
    async with engine_and_receiver(2) as (engine, receiver):
        (task_id,) = await submit(engine, f"{receiver.url}/hang", 1)
        with trio.fail_after(5):
            while not receiver.in_flight:  # noqa: ASYNC110 - it is not ours to signal
                await trio.sleep(0.01)
        await engine.cancel(task_id, in_flight=True)
        with trio.fail_after(5):
            while receiver.in_flight:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert (await engine.get(task_id)).status is Status.CANCELLED
