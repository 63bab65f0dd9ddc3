"""The short form of ``python -m tests.attack idempotent``."""

from __future__ import annotations

import pytest

from tests.attack.idempotent import TOGETHER, run


@pytest.mark.proof
@pytest.mark.timeout(300)
async def test_one_task_for_each_key_whatever_gets_lost_and_whoever_is_killed() -> None:
    sent = await run(100)
    assert sent.misses(100) == []
    assert sent.total == 100
    assert sent.answered == 100 * TOGETHER
    assert sent.dropped > 100
