"""What the API refuses, and how it says so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import trio

from engine.adapters.storage import open_store
from engine.errors import StoreError, StoreFull, StoreUnavailable, TaskDamaged
from tests.support.app import HOOK, NOBODY, V1, Api, open_api
from tests.support.fakes import FaultyStores, ScriptedNet
from web.settings import WebSettings

TASK = {"name": "invoice", "callbackUrl": HOOK}
MIB = 1024 * 1024


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with open_api(net=ScriptedNet()) as opened:
        yield opened


def with_payload(payload: str) -> bytes:
    """The bytes of a task with this payload, as it stands."""
    return json.dumps(TASK)[:-1].encode() + b', "payload": ' + payload.encode() + b"}"


# -- size ------------------------------------------------------------------------------------


async def test_a_body_of_a_mebibyte_is_taken_and_one_byte_more_is_not(api: Api) -> None:
    room = MIB - len(with_payload('""'))
    fits = await api.call("POST", f"{V1}/tasks", data=with_payload('"' + "x" * room + '"'))
    assert fits.status == 201
    more = await api.call("POST", f"{V1}/tasks", data=with_payload('"' + "x" * (room + 1) + '"'))
    assert (more.status, more.kind) == (413, "too-large")
    assert "1048576" in more.json["detail"]
    assert await api.count() == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", f"/tasks/{NOBODY}"),
        ("POST", "/tasks/dequeue"),
        ("POST", f"/tasks/{NOBODY}/dequeue"),
        ("POST", "/dead-letters/redrive"),
    ],
)
async def test_every_body_has_that_limit(api: Api, method: str, path: str) -> None:
    answer = await api.call(method, V1 + path, data=b" " * (MIB + 1))
    assert answer.status == 413


async def test_a_batch_may_be_larger_but_not_endless() -> None:
    settings = WebSettings(body_bytes_max=1000, batch_bytes_max=3000)
    async with open_api(net=ScriptedNet(), settings=settings) as api:
        body = {"tasks": [{**TASK, "description": "x" * 800}] * 2}
        assert (await api.post(f"{V1}/tasks/batch", body)).status == 201
        body = {"tasks": [{**TASK, "description": "x" * 800}] * 4}
        answer = await api.post(f"{V1}/tasks/batch", body)
        assert (answer.status, answer.kind) == (413, "too-large")
        assert "3000" in answer.json["detail"]
        assert await api.count() == 2


@pytest.mark.parametrize("size", [1500, 4000])
async def test_a_body_without_a_length_is_limited_while_it_comes(size: int) -> None:
    settings = WebSettings(body_bytes_max=1000, batch_bytes_max=3000)
    async with open_api(net=ScriptedNet(), settings=settings) as api:
        client = api.app.test_client()
        headers = {"Content-Type": "application/json"}
        request = client.request(f"{V1}/tasks", method="POST", headers=headers)
        async with request as connection:
            await connection.send(b" " * size)
            await connection.send_complete()
        response = await connection.as_response()
        assert response.status_code == 413
        assert response.mimetype == "application/problem+json"
        assert await api.count() == 0


# -- JSON ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ("NaN", "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("1e999", "too large"),
        ("9223372036854775808", "64 bits"),
        ('"\\ud800"', "surrogate"),
        ('{"\\udc00": 1}', "surrogate"),
        ('"\\u0000"', "NUL"),
        ('{"a": 1, "a": 2}', "twice"),
        ("[" * 64 + "]" * 64, "deeper than 64"),
        ("[" * 50_000, "deeper than 64"),
        ("tru", "is not JSON"),
    ],
)
async def test_json_that_would_hurt_later_is_refused_and_nothing_stored(
    api: Api, payload: str, says: str
) -> None:
    for path, data in (
        (f"{V1}/tasks", with_payload(payload)),
        (f"{V1}/tasks/batch", b'{"tasks": [' + with_payload(payload) + b"]}"),
        ("/api/tasks", f'{{"callbackUrl": "{HOOK}", "taskData": {payload}}}'.encode()),
    ):
        answer = await api.call("POST", path, data=data)
        assert (answer.status, answer.kind) == (400, "invalid-request")
        assert says in answer.json["detail"]
    assert await api.count() == 0


async def test_json_at_the_limits_is_kept_exactly(api: Api) -> None:
    payload: Any = [2**63 - 1, -(2**63), 1.7976931348623157e308, 5e-324, "\U0001f600\x01", {"": ""}]
    for _ in range(61):
        payload = [payload]
    task = await api.task(await api.create(payload=payload))
    assert task["payload"] == payload


# -- negotiation -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "json"])
async def test_a_body_that_is_not_said_to_be_json_is_refused(api: Api, kind: str) -> None:
    answer = await api.call(
        "POST",
        f"{V1}/tasks",
        data=json.dumps(TASK).encode(),
        headers={"Content-Type": kind},
    )
    assert (answer.status, answer.kind) == (415, "unsupported-media-type")
    assert await api.count() == 0


async def test_a_charset_behind_the_media_type_does_no_harm(api: Api) -> None:
    answer = await api.call(
        "POST",
        f"{V1}/tasks",
        data=json.dumps(TASK).encode(),
        headers={"Content-Type": "Application/JSON; charset=utf-8"},
    )
    assert answer.status == 201


@pytest.mark.parametrize("accept", ["text/html", "image/*", "text/plain;q=1"])
async def test_a_client_that_takes_no_json_is_told_so(api: Api, accept: str) -> None:
    answer = await api.get(f"{V1}/tasks", Accept=accept)
    assert (answer.status, answer.kind) == (406, "not-acceptable")


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/json",
        "Application/JSON",
        "text/html, application/*;q=0.5",
        "application/problem+json",
    ],
)
async def test_a_client_that_takes_json_gets_it(api: Api, accept: str) -> None:
    assert (await api.get(f"{V1}/tasks", Accept=accept)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/api/v1/tasks", {"GET", "POST"}),
        ("PUT", f"/api/v1/tasks/{NOBODY}", {"GET", "PATCH", "DELETE"}),
        ("POST", "/api/v1/stats", {"GET"}),
        ("GET", "/api/v1/dead-letters/redrive", {"POST"}),
        ("POST", "/api/tasks/dequeue", {"GET"}),
        ("DELETE", "/healthz", {"GET"}),
        ("POST", "/api/v1/events", {"GET"}),
    ],
)
async def test_a_wrong_method_is_told_which_are_right(
    api: Api, method: str, path: str, allowed: set[str]
) -> None:
    answer = await api.call(method, path)
    assert (answer.status, answer.kind) == (405, "method-not-allowed")
    named = set(answer.headers["Allow"].split(", "))
    assert allowed == named - {"HEAD", "OPTIONS"}


@pytest.mark.parametrize("path", ["/", "/api", "/api/v2/tasks", "/api/v1/tasks/", "/static/x"])
async def test_an_unknown_url_is_not_found(api: Api, path: str) -> None:
    answer = await api.get(path)
    assert (answer.status, answer.kind) == (404, "not-found")


# -- trouble inside --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (StoreUnavailable("the disk is busy"), 503, "store-unavailable"),
        (StoreFull("no space is left"), 507, "store-full"),
    ],
)
async def test_a_store_in_trouble_is_told_and_nothing_is_accepted(
    fault: StoreError, status: int, kind: str
) -> None:
    stores = FaultyStores(partial(open_store, "memory:"))
    async with open_api(net=ScriptedNet(), store=stores) as api:
        stores.faults["transact"] = fault
        answer = await api.post(f"{V1}/tasks", TASK)
        assert (answer.status, answer.kind) == (status, kind)
        assert (await api.get("/readyz")).status in (503, 507)
        assert (await api.get("/healthz")).status == 200
        stores.faults.clear()
        assert await api.count() == 0
        await api.create()
        with trio.fail_after(10):  # a while without trouble, as a full disk takes some things in
            while (await api.get("/readyz")).status != 200:  # noqa: ASYNC110 - asked over HTTP
                await trio.sleep(0.2)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (StoreError("secret: /var/lib/x"), "internal-error"),
        (RuntimeError("secret: /var/lib/x"), "internal-error"),
        (TaskDamaged(NOBODY, "secret: /var/lib/x"), "task-damaged"),
    ],
)
async def test_an_unexpected_error_shows_nothing_of_the_inside(
    fault: Exception, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    stores = FaultyStores(partial(open_store, "memory:"))
    async with open_api(net=ScriptedNet(), store=stores) as api:
        stores.faults["get"] = fault
        answer = await api.call("GET", f"{V1}/tasks/{NOBODY}", documented=False)
        assert (answer.status, answer.kind) == (500, kind)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert "secret" not in answer.text
        assert "secret" in caplog.text  # but the log tells
        assert (await api.get("/healthz")).status == 200
