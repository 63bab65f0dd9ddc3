"""The short form of ``python -m tests.attack herd``."""

from __future__ import annotations

import pytest

from tests.attack.herd import EXECUTORS, LIMIT, SHARE_MAX, run


@pytest.mark.proof
@pytest.mark.timeout(400)
async def test_a_herd_of_failures_is_spread_and_its_host_is_not_flooded() -> None:
    herd = await run(1_500, interval_s=300.0, to_the_end=False)
    assert 1_200 < herd.planned.total() <= 1_500
    assert len(herd.planned) > 100
    assert 0 < herd.fullest(herd.planned) < SHARE_MAX
    assert 1 < herd.host.peak <= EXECUTORS
    assert 1 < herd.host.peak_known <= LIMIT
