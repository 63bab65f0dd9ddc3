"""A server, or a callee, that stands still for longer than every lease: each task ends once."""

from __future__ import annotations

import random

import pytest

from tests.murder.stop import stop

pytestmark = [pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(180)]


async def test_after_a_pause_longer_than_every_lease_each_task_ends_once(tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    done = await stop(tmp_path, 1, seed)
    assert not done.report.breaches, f"seed {seed}\n{done.report.quote()}"
    assert not done.problems()
