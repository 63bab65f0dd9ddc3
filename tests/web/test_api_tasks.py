"""Tasks come in: one by one, in batches, once and only once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine import EngineConfig
from engine.core.times import parse_rfc3339
from tests.support.app import HOOK, V1, Answer, Api, open_api
from tests.support.builders import NOW
from tests.support.fakes import ScriptedNet

TASK = {"name": "invoice", "callbackUrl": HOOK}
FULL: dict[str, Any] = {
    **TASK,
    "description": "what it is for",
    "payload": {"amount": 12.5, "lines": [1, "zwei", None, {"☃": True}]},
    "priority": 7,
    "dispatch": "manual",
    "runAt": "2026-01-03T00:00:00.000000Z",
    "deadline": "2026-01-04T00:00:00.000000Z",
    "timeoutSeconds": 3.5,
    "retryPolicy": {
        "maxAttempts": 5,
        "initialIntervalSeconds": 1.0,
        "maxIntervalSeconds": 9.0,
        "multiplier": 3.0,
        "jitter": False,
    },
    "method": "PUT",
    "headers": {"X-Tenant": "a"},
    "metadata": {"customer": "7"},
    "partitionKey": "customer 7",
}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with open_api(net=ScriptedNet()) as opened:
        yield opened


# -- create ----------------------------------------------------------------------------------


async def test_a_created_task_is_answered_with_its_id_and_where_it_is(
    api: Api, autojump_clock: MockClock
) -> None:
    answer = await api.post(f"{V1}/tasks", TASK)
    assert answer.status == 201
    assert set(answer.json) == {"taskId", "status", "createdAt"}
    assert answer.json["status"] == "Queued"
    assert parse_rfc3339(answer.json["createdAt"]) == NOW
    assert answer.headers["Location"] == f"{V1}/tasks/{answer.json['taskId']}"
    found = await api.get(answer.headers["Location"])
    assert found.json["taskId"] == answer.json["taskId"]


async def test_a_task_is_shown_as_it_was_created(api: Api) -> None:
    task_id = await api.create(**FULL)
    task = await api.task(task_id)
    assert {name: task[name] for name in FULL} == {**FULL, "headers": {"X-Tenant": "***"}}
    assert (await api.engine.get(task_id)).spec.headers == FULL["headers"]  # only not shown


async def test_a_delay_is_shown_as_the_time_it_ends(api: Api, autojump_clock: MockClock) -> None:
    task = await api.task(await api.create(delaySeconds=90))
    assert parse_rfc3339(task["runAt"]) == NOW + timedelta(seconds=90)


async def test_younger_tasks_have_greater_ids(api: Api) -> None:
    ids = [await api.create() for _ in range(5)]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, {"/name", "/callbackUrl"}),
        ({"name": "x"}, {"/callbackUrl"}),
        ({**TASK, "priority": 1000, "colour": "red"}, {"/priority", "/colour"}),
        ({**TASK, "retryPolicy": {"maxAttempts": 0}}, {"/retryPolicy/maxAttempts"}),
        ({**TASK, "headers": {"X": "a\r\nHost: evil"}}, {"/headers"}),
        ({**TASK, "runAt": "2026-01-03T00:00:00Z", "delaySeconds": 1}, {"/delaySeconds"}),
        ([], {""}),
        (None, {""}),
    ],
)
async def test_a_bad_task_is_refused_and_every_wrong_field_named(
    api: Api, body: Any, pointers: set[str]
) -> None:
    answer = await api.post(f"{V1}/tasks", body)
    assert (answer.status, answer.kind) == (400, "invalid-request")
    assert set(answer.pointers) == pointers
    assert all(where in answer.json["detail"] for where in pointers)
    assert await api.count() == 0


async def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    config = EngineConfig(executors=1, queue_max=2)
    async with open_api(net=ScriptedNet(), config=config) as api:
        await api.create()
        await api.create()
        answer = await api.post(f"{V1}/tasks", TASK)
        assert (answer.status, answer.kind) == (503, "overloaded")
        assert int(answer.headers["Retry-After"]) >= 1
        assert await api.count() == 2


async def test_a_stopping_engine_takes_no_tasks(api: Api) -> None:
    api.engine.stop()
    answer = await api.post(f"{V1}/tasks", TASK)
    assert (answer.status, answer.kind) == (503, "stopping")
    assert "Retry-After" in answer.headers


# -- batches ---------------------------------------------------------------------------------


async def test_a_batch_is_answered_in_its_order(api: Api) -> None:
    tasks = [{**TASK, "name": f"task {n}"} for n in range(1000)]
    answer = await api.post(f"{V1}/tasks/batch", {"tasks": tasks})
    assert answer.status == 201
    accepted = answer.json["tasks"]
    assert len({one["taskId"] for one in accepted}) == 1000
    assert {one["status"] for one in accepted} == {"Queued"}
    for n in (0, 999):
        assert (await api.task(accepted[n]["taskId"]))["name"] == f"task {n}"
    assert await api.count() == 1000


async def test_a_batch_with_bad_items_names_each_and_keeps_none(api: Api) -> None:
    tasks: list[Any] = [{**TASK, "name": f"task {n}"} for n in range(6)]
    tasks[1] = {"name": "no url"}
    tasks[3] = {**TASK, "priority": 101, "extra": 1}
    tasks[4] = "no object"
    answer = await api.post(f"{V1}/tasks/batch", {"tasks": tasks})
    assert answer.status == 400
    assert set(answer.pointers) == {
        "/tasks/1/callbackUrl",
        "/tasks/3/priority",
        "/tasks/3/extra",
        "/tasks/4",
    }
    assert await api.count() == 0


async def test_rules_between_fields_of_a_batch_are_named_by_index_too(api: Api) -> None:
    both = {**TASK, "runAt": "2026-01-03T00:00:00Z", "delaySeconds": 1}
    answer = await api.post(f"{V1}/tasks/batch", {"tasks": [TASK, both]})
    assert answer.status == 400
    assert answer.pointers == ["/tasks/1/delaySeconds"]
    assert await api.count() == 0


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_has_between_one_and_a_thousand_tasks(api: Api, count: int) -> None:
    answer = await api.post(f"{V1}/tasks/batch", {"tasks": [TASK] * count})
    assert answer.status == 400
    assert answer.pointers == ["/tasks"]
    assert await api.count() == 0


async def test_a_batch_that_does_not_fit_is_refused_whole() -> None:
    config = EngineConfig(executors=1, queue_max=5)
    async with open_api(net=ScriptedNet(), config=config) as api:
        answer = await api.post(f"{V1}/tasks/batch", {"tasks": [TASK] * 6})
        assert answer.status == 503
        assert await api.count() == 0


# -- idempotency -----------------------------------------------------------------------------


async def test_the_same_key_and_body_give_the_first_answer_again(api: Api) -> None:
    first = await api.post(f"{V1}/tasks", TASK, Idempotency_Key="abc")
    again = await api.post(f"{V1}/tasks", TASK, Idempotency_Key="abc")
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Location"] == first.headers["Location"]
    assert await api.count() == 1


async def test_a_batch_is_replayed_as_a_whole(api: Api) -> None:
    body = {"tasks": [TASK, TASK, TASK]}
    first = await api.post(f"{V1}/tasks/batch", body, Idempotency_Key="abc")
    again = await api.post(f"{V1}/tasks/batch", body, Idempotency_Key="abc")
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json == first.json
    assert await api.count() == 3


async def test_the_same_key_with_another_body_is_refused(api: Api) -> None:
    await api.post(f"{V1}/tasks", TASK, Idempotency_Key="abc")
    answer = await api.post(f"{V1}/tasks", {**TASK, "priority": 1}, Idempotency_Key="abc")
    assert (answer.status, answer.kind) == (422, "idempotency-conflict")
    assert await api.count() == 1


async def test_a_key_belongs_to_one_url(api: Api) -> None:
    await api.post(f"{V1}/tasks", TASK, Idempotency_Key="abc")
    answer = await api.post(f"{V1}/tasks/batch", {"tasks": [TASK]}, Idempotency_Key="abc")
    assert answer.status == 201
    assert await api.count() == 2


async def test_a_refused_task_does_not_use_its_key_up(api: Api) -> None:
    assert (await api.post(f"{V1}/tasks", {"name": "x"}, Idempotency_Key="abc")).status == 400
    assert (await api.post(f"{V1}/tasks", TASK, Idempotency_Key="abc")).status == 201


async def test_a_key_is_forgotten_after_its_time(autojump_clock: MockClock) -> None:
    config = EngineConfig(executors=1, idempotency_s=60)
    async with open_api(net=ScriptedNet(), config=config) as api:
        await api.post(f"{V1}/tasks", TASK, Idempotency_Key="abc")
        await trio.sleep(59)
        answer = await api.post(f"{V1}/tasks", TASK, Idempotency_Key="abc")
        assert answer.headers["Idempotency-Replayed"] == "true"
        await trio.sleep(2)
        answer = await api.post(f"{V1}/tasks", TASK, Idempotency_Key="abc")
        assert "Idempotency-Replayed" not in answer.headers
        assert await api.count() == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "smörgås", "tab\there"])
async def test_a_key_that_is_no_short_ascii_text_is_refused(api: Api, key: str) -> None:
    answer = await api.call("POST", f"{V1}/tasks", TASK, headers={"Idempotency-Key": key})
    assert answer.status == 400
    assert "Idempotency-Key" in answer.json["detail"]
    assert await api.count() == 0


@pytest.mark.slow
async def test_one_key_sent_twenty_times_at_once_makes_one_task(tmp_path: Path) -> None:
    answers: list[Answer] = []
    database = f"sqlite:///{tmp_path}/tasks.db"
    async with open_api(net=ScriptedNet(), database=database) as api:

        async def send() -> None:
            answers.append(await api.post(f"{V1}/tasks", TASK, Idempotency_Key="abc"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(send)
        assert {answer.status for answer in answers} == {201}
        assert len({answer.body for answer in answers}) == 1
        replayed = [answer for answer in answers if "Idempotency-Replayed" in answer.headers]
        assert len(replayed) == 19
        assert await api.count() == 1
