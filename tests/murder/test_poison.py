"""A task whose callback kills the server is parked; the tasks beside it complete."""

from __future__ import annotations

import pytest

from tests.murder.poison import OTHERS, RECOVERIES_MAX, poison

pytestmark = [pytest.mark.slow, pytest.mark.proof]


@pytest.mark.parametrize("executors", [1, 100])
async def test_a_task_that_kills_the_server_is_parked_and_the_others_complete(tmp_path, executors):
    done = await poison(tmp_path, executors)
    assert done.kills == RECOVERIES_MAX
    assert done.status == "Failed"
    assert done.reason == "4 attempts in a row were lost: the server stopped during the attempt"
    assert done.others == {"Completed": OTHERS}
