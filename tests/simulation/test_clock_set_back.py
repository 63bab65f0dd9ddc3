"""What the simulation found: a task that is ready stays so when the clock is set back."""

from __future__ import annotations

import pytest

from engine.adapters.storage.memory import MemoryStore
from engine.core.commands import Claim, Take
from engine.core.task import Dispatch, Status, Task
from tests.support.builders import an_id, at, commit, creating


@pytest.mark.parametrize(
    ("dispatch", "command", "status"),
    [
        (Dispatch.AUTO, Claim(an_id(1), "an executor"), Status.PROCESSING),
        (Dispatch.MANUAL, Take(an_id(1), 60.0), Status.PENDING),
    ],
)
async def test_a_ready_task_can_be_taken_although_the_clock_was_set_back(
    dispatch: Dispatch, command: Claim | Take, status: Status
) -> None:
    """Else the queue reads it as ready, the repository refuses it as not yet due, and the two turn
    in circles, as fast as they can, until the clock has caught up."""
    store = MemoryStore()
    await commit(store, creating(1, dispatch=dispatch))
    (taken,) = await commit(store, command, now=at(-3600))
    assert isinstance(taken, Task), taken
    assert taken.status is status
