"""Hundreds of callbacks, half of them cut off at random points: nothing is left over. The same run
with 20,000 is ``python -m benchmarks --only cancel-leak``."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cancel_leak import DESCRIPTORS_MAX, EXECUTORS, MEMORY_MIB_MAX, Run
from benchmarks.stack import open_process

CALLBACKS = 400


@pytest.mark.slow
async def test_calls_that_are_cut_off_leave_no_connection_descriptor_or_executor_behind(
    tmp_path: Path,
) -> None:
    async with open_process("callee", ["-m", "benchmarks.rude_callee"], tmp_path) as callee:
        leaks = await Run(callee.url, CALLBACKS).measure(tmp_path)
    assert (leaks.not_ended, leaks.not_one_attempt, leaks.busy) == (0, 0, 0)
    assert leaks.alive == EXECUTORS
    assert leaks.connections == 0
    assert leaks.descriptors <= DESCRIPTORS_MAX
    assert leaks.descriptors_closed <= DESCRIPTORS_MAX
    assert leaks.memory_mib <= MEMORY_MIB_MAX
    # And it was a test: calls were cancelled, timed out, cut off by the callee, and answered.
    assert leaks.ends["Cancelled"] >= CALLBACKS / 20
    assert leaks.ends["Failed, timeout"] >= CALLBACKS / 20
    assert leaks.ends["Failed, disconnected"] >= 1
    assert leaks.ends["Completed"] >= CALLBACKS / 20
