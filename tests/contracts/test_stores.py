"""Every store keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.adapters.storage import open_store

SUITES = ("store", "store_searches", "store_prune", "store_flows", "store_calls")
for suite in SUITES:
    pytest.register_assert_rewrite(f"tests.contracts.{suite}")

from tests.contracts.store import *  # noqa: E402, F403
from tests.contracts.store_calls import *  # noqa: E402, F403
from tests.contracts.store_flows import *  # noqa: E402, F403
from tests.contracts.store_prune import *  # noqa: E402, F403
from tests.contracts.store_searches import *  # noqa: E402, F403

URLS = {"memory": "memory:", "sqlite": "sqlite:///{folder}/tasks.db"}


@pytest.fixture(params=sorted(URLS))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new store of each kind may be."""
    return URLS[request.param].format(folder=tmp_path)


@pytest.fixture
async def store(url: str):
    """An empty store of each kind."""
    async with open_store(url) as opened:
        yield opened
