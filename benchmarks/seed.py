"""Fills a database with waiting tasks as fast as the product's own code can, without a server."""

from __future__ import annotations

import gc
import random
from contextlib import AsyncExitStack
from functools import partial
from itertools import islice
from typing import Final

from benchmarks.driver.load import task
from engine import EngineConfig, TaskSpec
from engine.adapters.storage import open_store
from engine.adapters.system import SystemClock
from engine.core.batch import Batch, Records
from engine.core.changes import Changes
from engine.core.commands import Create
from engine.core.ids import IdSequence
from engine.core.task import Dispatch, TaskId

TRANSACTION: Final = 10_000  # tasks


async def seed(database: str, callback_url: str, numbers: range) -> list[TaskId]:
    """Accept manual tasks of these numbers in the store at ``database``; their ids.

    They are what single creates would have made of them, events and counts included; what is saved
    is HTTP and one wait for the disk for each.
    """
    clock, ids, chance = SystemClock(), IdSequence(), random.Random(0)
    accepted: list[TaskId] = []
    ahead = iter(numbers)

    def new_id() -> TaskId:
        return ids.next(int(clock.now().timestamp() * 1000), chance.getrandbits(62))

    def accept(created: list[tuple[TaskId, TaskSpec]], records: Records) -> None:
        batch = Batch(records)
        Changes(batch, EngineConfig(), clock.now()).apply(Create(tuple(created)))
        batch.flush()

    gc.disable()  # it would look again and again at what only grows
    async with AsyncExitStack() as opened:
        opened.callback(gc.enable)
        store = await opened.enter_async_context(open_store(database))
        while chunk := list(islice(ahead, TRANSACTION)):
            created = [(new_id(), spec(callback_url, number)) for number in chunk]
            await store.transact(partial(accept, created))
            accepted += [task_id for task_id, _ in created]
    return accepted


def spec(callback_url: str, number: int) -> TaskSpec:
    """What the server makes of a create of this number."""
    made = task(number, callback_url, "manual")
    return TaskSpec(
        name=str(made["name"]),
        callback_url=callback_url,
        payload=made["payload"],
        dispatch=Dispatch.MANUAL,
    )
