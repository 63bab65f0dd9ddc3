"""A server that is told to stop lets callbacks end, gives the others back, and is not held up."""

from __future__ import annotations

import pytest

from tests.murder.drain import STALLED, drain

pytestmark = [pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(300)]

ROUNDS = 3


async def test_a_server_that_is_told_to_stop_loses_and_repeats_nothing(tmp_path):
    done = await drain(
        tmp_path, ROUNDS
    )  # each end has a limit: it would exit with 70, or be missed
    assert not done.report.breaches, done.report.quote()
    assert not done.problems()
    assert min(done.held_up) >= STALLED // 2  # on a slow machine some are dropped already
