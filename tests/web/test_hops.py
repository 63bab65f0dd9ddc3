"""``X-Task-Hops``: tasks that create tasks come to an end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine import RetryPolicy, TaskSpec
from engine.adapters.codec import decode_spec, encode_spec
from engine.core.outcome import Answer as CallbackAnswer
from tests.support.app import HOOK, V1, Api, open_api
from tests.support.fakes import ScriptedNet

TASK = {"name": "invoice", "callbackUrl": HOOK, "dispatch": "auto"}
CREATE: dict[str, Any] = {
    f"{V1}/tasks": TASK,
    f"{V1}/tasks/batch": {"tasks": [TASK, TASK]},
    "/api/tasks": {"taskData": 1, "callbackUrl": HOOK},
}


@pytest.fixture
def net() -> ScriptedNet:
    return ScriptedNet()


@pytest.fixture
async def api(net: ScriptedNet) -> AsyncIterator[Api]:
    async with open_api(net=net) as opened:
        yield opened


async def hops_of(api: Api, answer: Any) -> list[int]:
    ids = [task["taskId"] for task in answer.json.get("tasks", [answer.json])]
    return [(await api.engine.get(task_id)).spec.hops for task_id in ids]


@pytest.mark.parametrize("path", CREATE)
async def test_the_hops_of_a_request_are_those_of_its_tasks(
    api: Api, path: str, autojump_clock: MockClock
) -> None:
    for header, hops in ({}, 0), ({"X_Task_Hops": "0"}, 0), ({"X_Task_Hops": "5"}, 5):
        answer = await api.post(path, CREATE[path], **header)
        assert answer.status == 201
        assert set(await hops_of(api, answer)) == {hops}


@pytest.mark.parametrize("path", CREATE)
@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("6", "number 6; if this is no loop, leave the header out"),
        ("999999", "at most 5 callbacks in a row"),
        ("1000000", "must be a number from 0 to 5"),
        ("-1", "must be a number"),
        ("+1", "must be a number"),
        ("1.0", "must be a number"),
        ("1, 1", "must be a number"),
        ("", "must be a number"),
        ("two", "must be a number"),
        ("²", "must be a number"),
    ],
)
async def test_too_many_hops_or_nonsense_is_refused(
    api: Api, path: str, value: str, part: str, autojump_clock: MockClock
) -> None:
    answer = await api.call("POST", path, CREATE[path], headers={"X-Task-Hops": value})
    assert answer.status == 400
    (error,) = answer.json["errors"]
    assert error["pointer"] == "X-Task-Hops"
    assert part in error["detail"]
    assert (await api.get(f"{V1}/tasks")).json["totalCount"] == 0


async def test_hops_are_no_field_of_a_body(api: Api, autojump_clock: MockClock) -> None:
    answer = await api.post(f"{V1}/tasks", {**TASK, "hops": 0})
    assert answer.status == 400
    assert answer.json["errors"] == [{"pointer": "/hops", "detail": "is not a known field"}]
    schemas = (await api.get("/openapi.json")).json["components"]["schemas"]
    assert "hops" not in schemas["TaskSpec"]["properties"]


async def test_the_header_is_documented_where_tasks_are_created(
    api: Api, autojump_clock: MockClock
) -> None:
    paths = (await api.get("/openapi.json")).json["paths"]
    for path in CREATE:
        names = [parameter["name"] for parameter in paths[path]["post"]["parameters"]]
        assert "X-Task-Hops" in names


async def test_a_chain_of_tasks_that_create_tasks_ends(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    """The receiver answers each callback by creating the next task, as one in a loop does."""
    statuses, headers = [], dict[str, str]()
    for calls in range(1, 20):
        answer = await api.call("POST", f"{V1}/tasks", TASK, headers=headers)
        statuses.append(answer.status)
        if answer.status != 201:
            break
        with trio.fail_after(60):
            await net.wait_for_calls(calls)
        headers = {"X-Task-Hops": net.seen[-1].headers["X-Task-Hops"]}
    assert statuses == [201, 201, 201, 201, 201, 201, 400]


async def test_every_attempt_of_a_task_carries_the_same_hops(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    net.script(HOOK, CallbackAnswer(status_code=500), CallbackAnswer(status_code=200))
    await api.post(f"{V1}/tasks", TASK, X_Task_Hops="2")
    with trio.fail_after(600):
        await net.wait_for_calls(2)
    assert [request.headers["X-Task-Hops"] for request in net.seen] == ["3", "3"]


def test_a_task_that_was_stored_before_there_were_hops_has_none() -> None:
    spec = TaskSpec(name="a", callback_url=HOOK, hops=4, retry_policy=RetryPolicy(max_attempts=7))
    text = encode_spec(spec)
    assert decode_spec(text, "a", 0, None) == spec
    assert '"hops":4' in text
    assert decode_spec(text.replace(',"hops":4', ""), "a", 0, None).hops == 0
