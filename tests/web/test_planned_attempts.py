"""The attempts that a task still has before it, as the API shows them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.core.outcome import Answer
from tests.support.app import HOOK, V1, Api, open_api
from tests.support.fakes import Held, ScriptedNet

POLICY = {
    "maxAttempts": 4,
    "initialIntervalSeconds": 10,
    "maxIntervalSeconds": 60,
    "jitter": False,
}


@pytest.fixture
def net() -> ScriptedNet:
    return ScriptedNet()


@pytest.fixture
async def api(net: ScriptedNet) -> AsyncIterator[Api]:
    async with open_api(net=net) as opened:
        yield opened


async def plan(api: Api, task_id: str) -> list[tuple[int, str, str]]:
    """Attempt, and its earliest and latest time in minutes and whole seconds."""
    task = await api.task(task_id)
    return [
        (one["attempt"], one["notBefore"][14:19], one["notAfter"][14:19])
        for one in task["plannedAttempts"]
    ]


async def test_the_plan_of_a_task_goes_on_with_its_attempts(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    net.script(
        HOOK, Answer(status_code=500), Held(Answer(status_code=500)), Answer(status_code=410)
    )
    task_id = await api.create(dispatch="auto", delaySeconds=10, timeoutSeconds=1000, retryPolicy=POLICY)  # fmt: skip
    first = [(1, "04:15", "04:15"), (2, "04:25", "04:25"), (3, "04:45", "04:45")]
    assert await plan(api, task_id) == [*first, (4, "05:25", "05:25")]
    await trio.sleep(15)
    assert (await api.task(task_id))["nextAttemptAt"][14:19] == "04:25"
    assert await plan(api, task_id) == [*first[1:], (4, "05:25", "05:25")]
    await trio.sleep(15)  # attempt 2 is running
    assert await plan(api, task_id) == [(3, "04:45", "04:45"), (4, "05:25", "05:25")]
    await trio.sleep(15)
    net.let_go()  # later than planned, so what follows is later too
    await trio.sleep(1)
    assert await plan(api, task_id) == [(3, "05:10", "05:10"), (4, "05:50", "05:50")]
    await trio.sleep(60)
    task = await api.task(task_id)
    assert task["status"] == "Failed"
    assert task["plannedAttempts"] == []
    assert task["nextAttemptAt"] is None


async def test_with_jitter_a_plan_has_room(api: Api, autojump_clock: MockClock) -> None:
    task_id = await api.create(retryPolicy={**POLICY, "jitter": True})
    assert await plan(api, task_id) == [
        *((1, "04:05", "04:05"), (2, "04:05", "04:15")),
        *((3, "04:05", "04:35"), (4, "04:05", "05:15")),
    ]


async def test_a_retry_after_moves_the_plan(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    net.script(HOOK, Answer(status_code=429, headers={"retry-after": "120"}))
    task_id = await api.create(dispatch="auto", retryPolicy=POLICY)
    await trio.sleep(1)
    assert (await plan(api, task_id))[:2] == [(2, "06:05", "06:05"), (3, "06:25", "06:25")]


async def test_a_task_that_has_ended_plans_nothing(api: Api, autojump_clock: MockClock) -> None:
    for task_id in (await api.executed(), await _cancelled(api)):
        assert await plan(api, task_id) == []


async def _cancelled(api: Api) -> str:
    task_id = await api.create()
    assert (await api.delete(f"{V1}/tasks/{task_id}")).status == 204
    return task_id


async def test_another_round_is_planned_anew(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    net.script(HOOK, Answer(status_code=410), Held())
    task_id = await api.executed(retryPolicy=POLICY)
    assert await plan(api, task_id) == []
    await api.post(f"{V1}/tasks/{task_id}/retry")
    await trio.sleep(1)
    assert [attempt for attempt, *_ in await plan(api, task_id)] == [3, 4, 5]


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999Z"])
async def test_the_last_day_of_the_calendar_can_be_planned_for(api: Api, moment: str) -> None:
    fields: dict[str, Any] = {"runAt": moment, "retryPolicy": POLICY}
    task = await api.task(await api.create(**fields))
    assert all(one["notAfter"] <= "9999-12-31T23:59:59.999999Z" for one in task["plannedAttempts"])
