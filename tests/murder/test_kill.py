"""A server that is killed twenty times under load loses nothing it accepted."""

from __future__ import annotations

import random

import pytest

from tests.murder.kill import EXECUTORS, PATIENT_S, murder

pytestmark = [pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(300)]

ROUNDS = 20


async def test_a_server_that_is_killed_under_load_loses_nothing_it_accepted(tmp_path):
    seed = random.SystemRandom().randrange(2**32)
    done = await murder(tmp_path, ROUNDS, seed, longest_s=1.0, stuck_s=PATIENT_S)
    assert not done.report.breaches, f"seed {seed}\n{done.report.quote()}"
    assert not done.problems()  # however many POST/s this machine allows
    assert len(done.report.repeats) == ROUNDS
    assert sum(done.report.repeats) <= ROUNDS * EXECUTORS
