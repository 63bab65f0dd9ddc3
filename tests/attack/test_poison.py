"""The short form of ``python -m tests.attack poison``."""

from __future__ import annotations

import pytest

from tests.attack.poison import EXECUTORS, HARMFUL, run


@pytest.mark.proof
@pytest.mark.timeout(400)
async def test_hostile_tasks_end_with_a_reason_and_harm_no_good_one_and_no_executor() -> None:
    found = await run(good=500, poison=100)
    assert found.wrong == []
    assert len({name for name, _ in found.hostile.values()}) == len(HARMFUL) + 1
    assert found.refused.total() >= 20
    assert {"tls", "timeout", "protocol", "refused", "disconnected", "dns"} <= set(found.reasons)
    assert found.alive == EXECUTORS
