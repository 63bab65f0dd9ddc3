"""A full disk costs refusals, never a task: reads go on, and all is well when there is space."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.murder.disk import SPINS_AT
from tests.murder.disk_causes import Cause, PageLimit, SizeLimit, small_file_system
from tests.murder.disk_run import Starved, starve

FULL_S = 0.3
pytestmark = [pytest.mark.proof, pytest.mark.slow]


def check(seen: Starved) -> None:
    assert seen.problems() == [], seen
    assert seen.cpu_share < SPINS_AT, seen


@pytest.mark.parametrize("cause", [PageLimit(), SizeLimit()], ids=lambda cause: cause.name)
async def test_a_full_disk_costs_refusals_and_no_task(tmp_path: Path, cause: Cause) -> None:
    check(await starve(cause, tmp_path, FULL_S))


async def test_so_does_a_full_file_system(tmp_path: Path) -> None:
    try:
        with small_file_system(tmp_path / "small") as cause:
            check(await starve(cause, tmp_path, FULL_S))
    except PermissionError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
