"""The attacks in their short forms. What depends on how busy the machine is, the long forms judge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from tests.attack import bytes as hostile_bytes, descriptors, loris, storm, watchers
from tests.attack.verdict import Came

pytestmark = [pytest.mark.slow, pytest.mark.proof]

ATTACKS: dict[str, Callable[[], Awaitable[Came]]] = {
    "hostile bytes": partial(hostile_bytes.attack, manners=1),
    "slow-loris": partial(
        loris.attack, loris.Size(headers=75, bodies=150, idle=75, seconds=4.0, body_timeout_s=3.0)
    ),
    "watchers that never read": partial(
        watchers.attack,
        watchers.Size(readers=45, deaf=15, events_per_s=1000, seconds=5.0, rounds=1, tasks=300),
    ),
    "disconnect storm": partial(storm.attack, clients=500),
    "descriptor exhaustion": partial(descriptors.attack, seconds=5.0),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_the_server_withstands(name: str) -> None:
    came = await ATTACKS[name]()
    assert came.misses == [], came
