"""Sweeps: cancel at the first step, the second, … until the work finishes; and the same with the
n-th transaction failing. Each round must leave things as its check wants them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count

import trio

_ROUNDS_MAX = 5_000


class CancelAtStep(trio.abc.Instrument):
    """Cancels ``scope`` at the n-th step of the tasks whose name ends with ``of``, counted while
    ``watching``. The scenario enters the scope, or puts another in its place."""

    def __init__(self, step: int, of: str) -> None:
        self.step, self.seen, self.fired = step, 0, False
        self.scope = trio.CancelScope()
        self._of = of

    def __repr__(self) -> str:
        return f"<CancelAtStep {self.step} of {self._of}, {self.seen} seen>"

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name.endswith(self._of):
            self.seen += 1
            if self.seen == self.step:
                self.fired = True
                self.scope.cancel(reason=f"sweep: step {self.step}")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count the steps of this block."""
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)


async def cancel_sweep(
    scenario: Callable[[CancelAtStep], Awaitable[None]], *, of: str, stride: int = 1
) -> int:
    """Run the scenario again and again, cancelled one step later each time, until it is not any
    more; tells how many rounds that took. The scenario checks its own books."""
    for rounds, step in enumerate(count(1, stride), 1):
        assert rounds < _ROUNDS_MAX, "the scenario never finishes"
        at = CancelAtStep(step, of)
        try:
            await scenario(at)
        except BaseException as error:
            error.add_note(f"in the sweep, cancelled at {at!r}")
            raise
        if not at.fired:
            return rounds
    raise AssertionError


async def fault_sweep(scenario: Callable[[int], Awaitable[int]]) -> int:
    """Run the scenario with the n-th transaction failing, for n = 1, 2, 3 … until it has fewer; it
    tells how many it had. Tells how many rounds that took."""
    for number in range(1, _ROUNDS_MAX):
        try:
            transactions = await scenario(number)
        except BaseException as error:
            error.add_note(f"in the sweep, transaction {number} failed")
            raise
        if transactions < number:
            return number
    raise AssertionError("the scenario never finishes")


@asynccontextmanager
async def nobody_hangs(within_s: float) -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks must all have ended soon after the block."""
    async with trio.open_nursery() as nursery:
        yield nursery
        with trio.move_on_after(within_s):
            while True:
                await trio.sleep(within_s / 100)
                if not nursery.child_tasks:
                    break
        left = [task.name for task in nursery.child_tasks]
        nursery.cancel_scope.cancel(reason="they hang")
    assert not left, f"left hanging: {left}"
