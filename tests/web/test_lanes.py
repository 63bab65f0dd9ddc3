"""The express lane answers as Quart does, byte for byte, apart from ids and times."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from engine import Engine
from engine.errors import StoreUnavailable
from tests.support.app import HOOK, NOBODY, V1, open_api
from tests.support.fakes import ScriptedNet
from web.app import App, create_app
from web.auth import Scope, key_text, known_as
from web.plain import Answer, Plain, ReadBody
from web.server import serve
from web.settings import ServerConfig, WebSettings

WRITER, READER = key_text("writer", bytes(32)), key_text("reader", bytes(32))
KEYS = ",".join(
    [known_as(WRITER, Scope.WRITE).entry(), known_as(READER, Scope.READ).entry()]
)  # fmt: skip
GOOD = {"name": "invoice", "callbackUrl": HOOK, "metadata": {"a": "b"}, "payload": [1, "ž", None]}
_VARYING = re.compile(
    rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|\d{4}-\d\d-\d\dT[\d:.]+Z|\"seq\":\d+|date: [^\r]+GMT"
    rb"|content-length: \d+"
)


@attrs.define
class CountingLane:
    """An app's express lane, and how many it has answered."""

    app: App
    answered: int = 0

    async def answer(self, plain: Plain, read: ReadBody, /) -> Answer | None:
        answer = await self.app.express.answer(plain, read)
        self.answered += answer is not None
        return answer


@attrs.frozen
class Lanes:
    """Two servers over one engine, of which one has an express lane."""

    engine: Engine
    express: CountingLane
    ports: tuple[int, int]

    async def ask(self, *asked: str | bytes) -> tuple[bytes, bytes, bool]:
        """What is answered to this by the express lane and by Quart; and whether by these. What is
        asked twice may stand there twice."""
        before = self.express.answered
        answers = [
            await exchange(port, one) for port, one in zip(self.ports, asked * 2, strict=False)
        ]
        return answers[0], answers[1], self.express.answered > before

    async def create(self) -> str:
        answer, _, _ = await self.ask(request("POST", f"{V1}/tasks", GOOD))
        return str(json.loads(answer.partition(b"\r\n\r\n")[2])["taskId"])


async def exchange(port: int, asked: str | bytes) -> bytes:
    with trio.fail_after(10):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(asked.encode() if isinstance(asked, str) else asked)
            received = b""
            while data := await stream.receive_some():
                received += data
    return received


def request(method: str, path: str, body: Any = None, *lines: str, key: str = WRITER) -> str:
    """A request after which the connection is closed."""
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    if key:
        head.append(f"Authorization: Bearer {key}")
    text = body if isinstance(body, str) else json.dumps(body) if body is not None else ""
    if body is not None:
        head.append(f"Content-Length: {len(text.encode())}")
        if not any(line.lower().startswith("content-type") for line in lines):
            head.append("Content-Type: application/json")
    return "\r\n".join([*head, *lines, "", text])


def same(answer: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Status line, headers in any order, body: without what differs from one to the next."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\ncontent-length: %d\r\n" % len(body) in head
    head, _, body = _VARYING.sub(b"?", answer).partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    return line, sorted(header.lower() for header in headers), body


@asynccontextmanager
async def open_lanes(settings: WebSettings) -> AsyncIterator[Lanes]:
    async with open_api(net=ScriptedNet()) as api, trio.open_nursery() as nursery:
        app = create_app(api.engine, settings)
        express = CountingLane(app)
        ports = []
        for lane in (express, None):
            start = partial(
                serve,
                app,
                ServerConfig(port=0, grace_s=0.1),
                express=lane,
                shutdown_trigger=trio.sleep_forever,
            )
            (url,) = await nursery.start(start)
            ports.append(int(url.rpartition(":")[2]))
        yield Lanes(api.engine, express, (ports[0], ports[1]))
        nursery.cancel_scope.cancel()


@pytest.fixture
async def lanes() -> AsyncIterator[Lanes]:
    settings = WebSettings(api_keys=KEYS, body_bytes_max=2000, batch_bytes_max=5000)
    async with open_lanes(settings) as opened:
        yield opened


CREATE = partial(request, "POST", f"{V1}/tasks")
ASKED: dict[str, str] = {
    "create": CREATE(GOOD),
    "create with everything": CREATE(
        {
            **GOOD,
            "description": "d",
            "priority": 3,
            "dispatch": "auto",
            "runAt": "2099-01-02T03:04:05+02:00",
            "deadline": "2099-02-02T03:04:05Z",
            "timeoutSeconds": 3,
            "retryPolicy": {"maxAttempts": 1, "jitter": False},
            "method": "PUT",
            "headers": {"X-A": "b"},
            "partitionKey": "p",
        }
    ),
    "create with a bad key": CREATE(GOOD, "Idempotency-Key: "),
    "create after hops": CREATE(GOOD, "X-Task-Hops: 2"),
    "create after too many hops": CREATE(GOOD, "X-Task-Hops: 6"),
    "create with a query": request("POST", f"{V1}/tasks?x=1", GOOD),
    "create in other words": CREATE(GOOD, "Content-Type: Application/JSON; charset=UTF-8"),
    "create without a type": CREATE(GOOD, "Content-Type: "),
    "create as text": CREATE(GOOD, "Content-Type: text/plain"),
    "create in another charset": CREATE(GOOD, "Content-Type: application/json;charset=x"),
    "create nothing": CREATE({}),
    "create without a body": CREATE(),
    "create of an empty body": CREATE(""),
    "create what is no JSON": CREATE("{"),
    "create a key twice": CREATE('{"name":"a","name":"b"}'),
    "create NaN": CREATE('{"payload":NaN}'),
    "create a list": CREATE([]),
    "create with many faults": CREATE({"name": 1, "x": 2, "callbackUrl": "x"}),
    "create for nowhere": CREATE({**GOOD, "callbackUrl": "http://[::1"}),
    "create with both times": CREATE({**GOOD, "delaySeconds": 1, "runAt": "2099-01-02T03:04:05Z"}),
    "create what is too large": CREATE({**GOOD, "payload": "x" * 2000}),
    "create without a key to the API": CREATE(GOOD, key=""),
    "create with a key to read": CREATE(GOOD, key=READER),
    "create with an unknown key": CREATE(GOOD, key=WRITER[:-1] + "x"),
    "create by a foreign page": CREATE(GOOD, "Origin: https://evil.example"),
    "create by a page of ours": CREATE(GOOD, "Origin: http://localhost"),
    "create for XML": CREATE(GOOD, "Accept: text/xml"),
    "create for any": CREATE(GOOD, "Accept: text/xml, */*;q=0.1"),
    "create elsewhere": CREATE(GOOD).replace("Host: localhost", "Host: evil.example"),
    "create at no host": CREATE(GOOD).replace("Host: localhost", "Host: a b"),
    "batch": request("POST", f"{V1}/tasks/batch", {"tasks": [GOOD, GOOD]}),
    "batch larger than one": request(
        "POST", f"{V1}/tasks/batch", {"tasks": [{**GOOD, "payload": "x" * 1500}] * 2}
    ),
    "batch of nothing": request("POST", f"{V1}/tasks/batch", {"tasks": []}),
    "batch with a fault": request("POST", f"{V1}/tasks/batch", {"tasks": [GOOD, {}]}),
    "batch too large": request("POST", f"{V1}/tasks/batch", {"tasks": "x" * 5000}),
    "nobody": request("GET", f"{V1}/tasks/{NOBODY}"),
    "no id of 36": request("GET", f"{V1}/tasks/{'-' * 36}"),
    "retry nobody": request("POST", f"{V1}/tasks/{NOBODY}/retry"),
    "retry with a body": request("POST", f"{V1}/tasks/{NOBODY}/retry", {}),
    "retry with a text": request(
        "POST", f"{V1}/tasks/{NOBODY}/retry", "x", "Content-Type: text/plain"
    ),
    "cancel nobody": request("DELETE", f"{V1}/tasks/{NOBODY}?inFlight=true"),
    "cancel badly": request("DELETE", f"{V1}/tasks/{NOBODY}?inFlight=x"),
    "cancel with no ETag": request("DELETE", f"{V1}/tasks/{NOBODY}", None, "If-Match: x"),
    "patch nothing": request("PATCH", f"{V1}/tasks/{NOBODY}", {}),
    "patch nobody": request("PATCH", f"{V1}/tasks/{NOBODY}", {"priority": 1}),
    "list": request("GET", f"{V1}/tasks?name=none&size=2"),
    "list badly": request("GET", f"{V1}/tasks?size=0&colour=red"),
    "list twice": request("GET", f"{V1}/tasks?size=1&size=2"),
    "list what is no UTF-8": request("GET", f"{V1}/tasks?name=%ff+%20"),
    "list with an empty query": request("GET", f"{V1}/tasks?"),
    "archive": request("GET", f"{V1}/archive"),
    "archived nobody": request("GET", f"{V1}/archive/{NOBODY}"),
    "dead letters": request("GET", f"{V1}/dead-letters"),
    "redrive": request("POST", f"{V1}/dead-letters/redrive", {}),
    "healthz": request("GET", "/healthz", key=""),
    "readyz": request("GET", "/readyz", key=""),
    "openapi": request("GET", "/openapi.json", key=""),
    "docs": request("GET", "/docs", key=""),
    "unversioned": request("POST", "/api/tasks", {"callbackUrl": HOOK, "taskData": 1}),
    "unversioned nobody": request("GET", f"/api/tasks/{NOBODY}"),
    "unversioned dequeue by an image": request(
        "GET", "/api/tasks/dequeue", None, "Sec-Fetch-Site: cross-site"
    ),
}


@pytest.mark.slow
async def test_both_lanes_give_the_same_answer(lanes: Lanes) -> None:
    for name, asked in ASKED.items():
        express, quart, was_express = await lanes.ask(asked)
        assert was_express, name
        assert same(express) == same(quart), name
        assert b"\r\nx-content-type-options: nosniff\r\n" in express


@pytest.mark.slow
async def test_both_lanes_show_and_drive_tasks_alike(lanes: Lanes) -> None:
    requests: list[Callable[[str], str]] = [
        lambda task: request("GET", f"{V1}/tasks/{task}"),
        lambda task: request("GET", f"{V1}/tasks/{task.upper()}"),
        lambda task: request("GET", f"{V1}/tasks/{task}/events"),
        lambda task: request("GET", f"{V1}/tasks/{task}/attempts"),
        lambda task: request("GET", f"{V1}/tasks/{task}/explain"),
        lambda task: request("GET", f"/api/tasks/{task}"),
        lambda task: request("PATCH", f"{V1}/tasks/{task}", {"priority": 9}),
        lambda task: request("PATCH", f"{V1}/tasks/{task}", {"priority": 9}, 'If-Match: "7"'),
        lambda task: request("POST", f"{V1}/tasks/{task}/dequeue", {"leaseSeconds": 5}),
        lambda task: request("POST", f"{V1}/tasks/{task}/release"),
        lambda task: request("POST", f"{V1}/tasks/{task}/retry"),
        lambda task: request("DELETE", f"{V1}/tasks/{task}"),
    ]
    for ask in requests:
        express, quart, was_express = await lanes.ask(
            ask(await lanes.create()), ask(await lanes.create())
        )
        assert was_express
        assert same(express) == same(quart)
    for _ in range(2):  # those that are left, and at last none
        express, quart, _ = await lanes.ask(request("POST", f"{V1}/tasks/dequeue"))
        assert same(express) == same(quart)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request("POST", f"{V1}/tasks/{NOBODY}/execute"), 404),
        (request("POST", f"/api/tasks/{NOBODY}/execute"), 404),
        (request("POST", f"{V1}/tasks/dequeue", None, "Prefer: wait=0"), 404),
        (request("POST", f"{V1}/tasks", GOOD, "Expect: 100-continue"), 100),
        (request("POST", f"{V1}/tasks", GOOD, "X-A: b", "x-a: b"), 201),
        (request("GET", f"{V1}/tasks/nothing"), 404),
        (request("GET", f"{V1}/tasks/{{id}}"), 404),
        (request("GET", f"{V1}/tasks/{NOBODY}/"), 404),
        (request("GET", f"{V1}/%74asks"), 200),
        (request("GET", f"{V1}/events?after=x"), 400),
        (request("GET", "/"), 404),
        (request("PUT", f"{V1}/tasks", {}), 405),
        (request("HEAD", f"{V1}/tasks"), 200),
        (request("OPTIONS", f"{V1}/tasks"), 200),
    ],
)
async def test_the_rest_takes_the_other_lane(lanes: Lanes, asked: str, status: int) -> None:
    express, quart, was_express = await lanes.ask(asked)
    assert not was_express
    assert express.startswith(b"HTTP/1.1 %d " % status)
    assert quart.startswith(b"HTTP/1.1 %d " % status)


async def test_a_body_that_is_ignored_may_come_late(lanes: Lanes) -> None:
    head, end, body = request("POST", f"{V1}/tasks/{NOBODY}/retry", {}).partition("\r\n\r\n")
    kept = head.replace("Connection: close\r\n", "") + end
    async with await trio.open_tcp_stream("127.0.0.1", lanes.ports[0]) as stream:
        await stream.send_all(kept.encode())
        await trio.sleep(0.02)
        await stream.send_all(body.encode())
        answer = await stream.receive_some()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"connection: close" not in answer
    assert lanes.express.answered == 1


async def test_an_idempotency_key_is_one_in_both_lanes(lanes: Lanes) -> None:
    asked = request("POST", f"{V1}/tasks?x=%20", GOOD, "Idempotency-Key: once")
    express, quart, _ = await lanes.ask(asked)
    assert b"idempotency-replayed" not in express
    assert b"\r\nidempotency-replayed: true\r\n" in quart
    assert express.partition(b"\r\n\r\n")[2] == quart.partition(b"\r\n\r\n")[2]


async def test_errors_are_answered_alike(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_lanes(WebSettings()) as lanes:
        for error, status in ((ValueError("boom"), 500), (StoreUnavailable("gone"), 503)):

            async def fail(*_args: Any, error: Exception = error, **_named: Any) -> None:
                raise error

            monkeypatch.setattr(lanes.engine, "submit", fail)
            express, quart, was_express = await lanes.ask(request("POST", f"{V1}/tasks", GOOD))
            assert was_express
            assert express.startswith(b"HTTP/1.1 %d " % status)
            assert same(express) == same(quart)
            assert b"boom" not in express
    assert caplog.messages.count("a request failed") == 2


async def test_a_key_that_asks_too_often_is_told_so() -> None:
    settings = WebSettings(api_keys=KEYS, key_requests_per_second=1)
    async with open_lanes(settings) as lanes:
        asked = request("GET", f"{V1}/tasks")
        first, second, was_express = await lanes.ask(asked)
        assert was_express
        assert first.startswith(b"HTTP/1.1 200 ")
        assert second.startswith(b"HTTP/1.1 429 ")
