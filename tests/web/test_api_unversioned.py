"""The unversioned dialect: other names for the same engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from engine.core.outcome import Answer as CallbackAnswer
from tests.support.app import HOOK, NOBODY, V1, Api, open_api
from tests.support.fakes import Held, ScriptedNet
from web.settings import WebSettings

TASK = {"taskData": {"n": [1, None]}, "callbackUrl": HOOK, "priority": 3}


@pytest.fixture
def net() -> ScriptedNet:
    return ScriptedNet()


@pytest.fixture
async def api(net: ScriptedNet) -> AsyncIterator[Api]:
    async with open_api(net=net, settings=WebSettings(wait_default_s=1)) as opened:
        yield opened


async def create(api: Api) -> str:
    answer = await api.post("/api/tasks", TASK)
    assert answer.status == 201
    return str(answer.json["taskId"])


async def test_a_task_is_created_and_found_in_both_dialects(api: Api) -> None:
    answer = await api.post("/api/tasks", TASK)
    task_id = answer.json["taskId"]
    assert answer.json == {"taskId": task_id, "status": "Queued"}
    assert answer.headers["Location"] == f"/api/tasks/{task_id}"
    shown = (await api.get(f"/api/tasks/{task_id}")).json
    assert shown["createdAt"] == shown["updatedAt"]
    assert (shown["status"], shown["taskData"], shown["callbackUrl"], shown["result"]) == (
        "Queued",
        {"n": [1, None]},
        HOOK,
        None,
    )
    task = await api.task(task_id)
    assert (task["payload"], task["priority"], task["dispatch"]) == ({"n": [1, None]}, 3, "manual")


async def test_a_dequeued_task_is_called_dequeued_and_never_cached(api: Api) -> None:
    task_id = await create(api)
    answer = await api.get("/api/tasks/dequeue")
    assert answer.json == {
        "taskId": task_id,
        "taskData": {"n": [1, None]},
        "callbackUrl": HOOK,
        "status": "Dequeued",
    }
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await api.get(f"/api/tasks/{task_id}")).json["status"] == "Dequeued"
    assert await api.status(task_id) == "Pending"


async def test_an_empty_queue_is_not_found_and_never_cached(api: Api) -> None:
    answer = await api.get("/api/tasks/dequeue")
    assert (answer.status, answer.kind) == (404, "queue-empty")
    assert answer.headers["Cache-Control"] == "no-store"


async def test_execute_gives_result_and_error(api: Api, net: ScriptedNet) -> None:
    net.script(HOOK, CallbackAnswer(status_code=200, body=b"fine"))
    task_id = await create(api)
    await api.get("/api/tasks/dequeue")
    answer = await api.post(f"/api/tasks/{task_id}/execute")
    assert (answer.status, answer.json["status"], answer.json["error"]) == (200, "Completed", None)
    assert answer.json["result"]["body"] == "fine"
    assert (await api.get(f"/api/tasks/{task_id}")).json["result"] == answer.json["result"]


async def test_execute_of_a_failing_task_gives_the_error(api: Api, net: ScriptedNet) -> None:
    net.script(HOOK, CallbackAnswer(status_code=422, body=b"never"))
    task_id = await create(api)
    await api.get("/api/tasks/dequeue")
    answer = await api.post(f"/api/tasks/{task_id}/execute")
    assert (answer.status, answer.json["status"]) == (200, "Failed")
    assert answer.json["error"] == "the callback answered 422"


async def test_a_task_between_two_attempts_is_called_retry(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    net.script(HOOK, CallbackAnswer(status_code=503, headers={"retry-after": "60"}))
    task_id = await create(api)
    await api.get("/api/tasks/dequeue")
    answer = await api.post(f"/api/tasks/{task_id}/execute")
    assert (answer.status, answer.json["status"]) == (202, "Retry")
    assert answer.json["error"] == "the callback answered 503"
    assert (await api.get(f"/api/tasks/{task_id}")).json["status"] == "Retry"


async def test_execute_answers_before_a_slow_callback_does(
    api: Api, net: ScriptedNet, autojump_clock: MockClock
) -> None:
    net.script(HOOK, Held())
    task_id = await create(api)
    await api.get("/api/tasks/dequeue")
    answer = await api.post(f"/api/tasks/{task_id}/execute")
    assert (answer.status, answer.json["status"], answer.json["result"]) == (
        202,
        "Processing",
        None,
    )
    again = await api.post(f"/api/tasks/{task_id}/execute")
    assert (again.status, again.json["currentStatus"]) == (409, "Processing")


async def test_only_a_dequeued_task_is_executed(api: Api) -> None:
    answer = await api.post(f"/api/tasks/{await create(api)}/execute")
    assert (answer.status, answer.kind) == (409, "illegal-transition")


@pytest.mark.parametrize("task_id", [NOBODY, "nonsense"])
async def test_an_unknown_task_is_not_found(api: Api, task_id: str) -> None:
    assert (await api.get(f"/api/tasks/{task_id}")).status == 404
    assert (await api.post(f"/api/tasks/{task_id}/execute")).status == 404


async def test_bad_input_is_named_as_this_dialect_spells_it(api: Api) -> None:
    answer = await api.post("/api/tasks", {"priority": 1000, "payload": 1})
    assert answer.status == 400
    assert set(answer.pointers) == {"/callbackUrl", "/priority", "/payload"}
    assert await api.count() == 0


async def test_a_task_of_one_dialect_can_be_driven_in_the_other(api: Api) -> None:
    task_id = await api.create(payload="x")
    assert (await api.get("/api/tasks/dequeue")).json["taskData"] == "x"
    answer = await api.post(f"{V1}/tasks/{task_id}/execute")
    assert answer.json["status"] == "Completed"
    assert (await api.get(f"/api/tasks/{task_id}")).json["status"] == "Completed"
