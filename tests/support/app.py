"""The whole API in one process, without sockets: a real engine, the real app, a client.

Every answer the client sees is held against ``/openapi.json``: its status must be documented, its
media type and body must be those of the operation; and a body that was accepted must conform too.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any

import attrs
import jsonschema  # type: ignore[import-untyped]
import trio
from quart_trio import QuartTrio
from werkzeug.datastructures import Headers

from engine import Engine, EngineConfig, Ports, open_engine
from engine.adapters.brokers.local import LocalBroker
from engine.adapters.http import HttpCallbackNet
from engine.adapters.storage import open_store
from engine.adapters.system import SystemClock, SystemIds, TrioClock
from engine.ports.callback_net import CallbackNet
from engine.ports.store import StoreOpener
from tests.support.builders import NOW
from tests.support.fakes import ScriptedNet
from tests.support.secrets import PLANTED
from web.app import create_app, operations
from web.metrics import Metrics
from web.openapi import document
from web.settings import WebSettings

V1 = "/api/v1"
HOOK = "http://receiver.test/hook"
NOBODY = "01900000-0000-7000-8000-000000000000"  # an id no task has
_LEFT_OUT: Any = object()


# -- the description of the API, as a check --------------------------------------------------


@cache
def description() -> dict[str, Any]:
    """The OpenAPI document."""
    return document(operations(Metrics()), "0")


def _operation(method: str, path: str) -> dict[str, Any] | None:
    """What is documented for a method of a URL; ``None`` if the API has no such thing."""
    for template, methods in sorted(
        description()["paths"].items(), key=lambda item: "{" in item[0]
    ):
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in methods:
            found: dict[str, Any] = methods[method.lower()]
            return found
    return None


def conform(value: Any, schema: Mapping[str, Any]) -> None:
    """Fail unless the value conforms to a schema of the document."""
    whole = {**schema, "components": description()["components"]}
    jsonschema.validate(
        value,
        whole,
        jsonschema.Draft202012Validator,
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    )


_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def check_answer(method: str, path: str, sent: Any, answer: Answer) -> None:
    """Fail unless the answer is one that is documented for this call."""
    operation = _operation(method, path)
    if operation is None:
        assert answer.status in (404, 405), f"{method} {path} is not documented"
        content = _PROBLEM
    else:
        assert str(answer.status) in operation["responses"], (
            f"{answer.status} is not documented for {method} {path}: {answer.text}"
        )
        content = operation["responses"][str(answer.status)].get("content", {})
        if sent is not _LEFT_OUT and answer.status < 300:
            conform(sent, operation["requestBody"]["content"]["application/json"]["schema"])
    media_type = answer.headers.get("Content-Type", "").partition(";")[0]
    if content:
        assert media_type in content, f"{method} {path} answers {media_type}"
    if media_type.endswith("json") and media_type in content:
        conform(answer.json, content[media_type]["schema"])


# -- HTTP ------------------------------------------------------------------------------------


@attrs.frozen
class Answer:
    """An answer of the API."""

    status: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def pointers(self) -> list[str]:
        """The fields a problem names."""
        return [error["pointer"] for error in self.json.get("errors", [])]

    @property
    def kind(self) -> str:
        """The type of a problem, without what all have in common."""
        return str(self.json["type"]).removeprefix("urn:ringback:problem:")


class Api:
    """A running engine with its app, and a client for both."""

    def __init__(self, engine: Engine, app: QuartTrio) -> None:
        self.engine = engine
        self.app = app
        self._client: Any = app.test_client()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = _LEFT_OUT,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        documented: bool = True,
    ) -> Answer:
        """One request; ``body`` is sent as JSON, ``data`` as it is."""
        sent = Headers(dict(headers or {}))
        if body is not _LEFT_OUT:
            data = json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
            sent.setdefault("Content-Length", str(len(data)))
        with trio.fail_after(60):
            response = await self._client.open(path, method=method, headers=sent, data=data)
            raw = await response.get_data(as_text=False)
        answer = Answer(response.status_code, response.headers, raw)
        assert "Traceback" not in answer.text
        assert 'File "' not in answer.text
        assert PLANTED not in answer.text
        if documented:
            check_answer(method, path.partition("?")[0], body, answer)
        return answer

    async def get(self, path: str, **headers: str) -> Answer:
        """GET; underscores in names of headers stand for hyphens."""
        return await self.call("GET", path, headers=_spelled(headers))

    async def post(self, path: str, body: Any = _LEFT_OUT, **headers: str) -> Answer:
        """POST, with a JSON body if one is given."""
        return await self.call("POST", path, body, headers=_spelled(headers))

    async def patch(self, path: str, body: Any, **headers: str) -> Answer:
        """PATCH with a JSON body."""
        return await self.call("PATCH", path, body, headers=_spelled(headers))

    async def delete(self, path: str, **headers: str) -> Answer:
        """DELETE."""
        return await self.call("DELETE", path, headers=_spelled(headers))

    # -- what many tests begin with ----------------------------------------------------------

    async def create(self, name: str = "invoice", **fields: Any) -> str:
        """A task; its id."""
        body = {"name": name, "callbackUrl": HOOK, "headers": {"X-Planted": PLANTED}, **fields}
        answer = await self.post(f"{V1}/tasks", body)
        assert answer.status == 201, answer.text
        return str(answer.json["taskId"])

    async def pending(self, **fields: Any) -> str:
        """A task that a client has dequeued; its id."""
        task_id = await self.create(**fields)
        answer = await self.post(f"{V1}/tasks/{task_id}/dequeue")
        assert answer.status == 200, answer.text
        return task_id

    async def executed(self, **fields: Any) -> str:
        """A task that has been executed to its end; its id."""
        task_id = await self.pending(**fields)
        answer = await self.post(f"{V1}/tasks/{task_id}/execute")
        assert answer.status == 200, answer.text
        return task_id

    async def task(self, task_id: str) -> Any:
        """The task as GET shows it."""
        answer = await self.get(f"{V1}/tasks/{task_id}")
        assert answer.status == 200, answer.text
        return answer.json

    async def status(self, task_id: str) -> str:
        """The task's status."""
        return str((await self.task(task_id))["status"])

    async def count(self) -> int:
        """How many tasks there are."""
        return int((await self.get(f"{V1}/tasks?size=1")).json["totalCount"])

    async def until(self, task_id: str, *statuses: str) -> Any:
        """The task as soon as it has one of these statuses."""
        with trio.fail_after(60):
            while (task := await self.task(task_id))["status"] not in statuses:  # noqa: ASYNC110
                await trio.sleep(0.01)
        return task

    # -- streams -----------------------------------------------------------------------------

    @asynccontextmanager
    async def event_source(self, query: str = "", **headers: str) -> AsyncIterator[EventSource]:
        """A reader of the event stream; at the end of the block it leaves."""
        client = EventSource()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run, self.app, query, _spelled(headers))
            await client.opened.wait()
            yield client
            client.leave()

    @asynccontextmanager
    async def websocket(
        self, path: str = f"{V1}/tasks/stream", **headers: str
    ) -> AsyncIterator[Websocket]:
        """A websocket; at the end of the block the client leaves."""
        client = Websocket()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run, self.app, path, _spelled(headers))
            await client.opened.wait()
            yield client
            client.leave()


def _spelled(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


# -- streams, straight on ASGI: Quart's test client cannot leave in the middle of one ---------


def _scope(kind: str, path: str) -> dict[str, Any]:
    return {
        "type": kind,
        "asgi": {"spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "ws" if kind == "websocket" else "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "extensions": {},
    }


@attrs.frozen
class Closed(Exception):
    """The server has closed the websocket."""

    code: int
    reason: str


class Websocket:
    """A client of a websocket. Its server's sends wait while it does not receive."""

    def __init__(self) -> None:
        self.opened = trio.Event()
        self.refusal = Answer(0, Headers(), b"")  # to the handshake
        self._to_app, self._app_receive = trio.open_memory_channel[dict[str, Any]](10)
        self._app_send, self._from_app = trio.open_memory_channel[dict[str, Any]](0)

    async def run(self, app: QuartTrio, path: str, headers: Mapping[str, str]) -> None:
        """The server's side."""
        named = {"host": "localhost", **{k.lower(): v for k, v in headers.items()}}
        scope: Any = {
            **_scope("websocket", path),
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in named.items()],
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
        }
        await self._to_app.send({"type": "websocket.connect"})
        await app(scope, self._app_receive.receive, self._send)  # type: ignore[arg-type]
        self.opened.set()

    async def _send(self, event: Any) -> None:
        if event["type"] == "websocket.accept":
            self.opened.set()
        elif event["type"] == "websocket.http.response.start":
            headers = Headers([(k.decode(), v.decode()) for k, v in event["headers"]])
            self.refusal = Answer(event["status"], headers, b"")
        elif event["type"] == "websocket.http.response.body":
            self.refusal = attrs.evolve(self.refusal, body=event["body"])
        else:
            await self._app_send.send(event)

    async def send(self, message: Any) -> None:
        """A message: text and bytes as they are, anything else as JSON."""
        event: dict[str, Any] = {"type": "websocket.receive", "bytes": None, "text": None}
        if isinstance(message, bytes):
            event["bytes"] = message
        else:
            event["text"] = message if isinstance(message, str) else json.dumps(message)
        await self._to_app.send(event)

    async def receive(self) -> Any:
        """The next message; raises ``Closed``."""
        with trio.fail_after(60):
            event = await self._from_app.receive()
        if event["type"] == "websocket.close":
            raise Closed(event.get("code", 1000), event.get("reason") or "")
        assert PLANTED not in event["text"]
        return json.loads(event["text"])

    async def subscribe(self, **wanted: Any) -> Any:
        """Subscribe; the server's confirmation."""
        await self.send({"subscribe": wanted})
        return await self.receive()

    async def events(self, count: int) -> list[Any]:
        """The next events, heartbeats left out."""
        found: list[Any] = []
        while len(found) < count:
            message = await self.receive()
            if "heartbeat" not in message:
                found.append(message)
        return found

    def leave(self) -> None:
        """Go away, without a closing handshake."""
        self._to_app.send_nowait({"type": "websocket.disconnect", "code": 1006})


# -- server-sent events ----------------------------------------------------------------------


class EventSource:
    """A reader of an event stream. Its server's sends wait while it does not read."""

    def __init__(self) -> None:
        self.opened = trio.Event()
        self.status = 0
        self.headers = Headers()
        self._gone = trio.Event()
        self._asked = False
        self._buffer = b""
        self._app_send, self._from_app = trio.open_memory_channel[bytes](0)

    async def run(self, app: QuartTrio, query: str, headers: Mapping[str, str]) -> None:
        """The server's side."""
        named = {"host": "localhost", **{k.lower(): v for k, v in headers.items()}}
        scope: Any = {
            **_scope("http", f"{V1}/events"),
            "method": "GET",
            "query_string": query.removeprefix("?").encode(),
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in named.items()],
        }
        async with self._app_send:
            await app(scope, self._receive, self._send)

    async def _receive(self) -> Any:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: Any) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self.headers = Headers([(k.decode(), v.decode()) for k, v in event["headers"]])
            self.opened.set()
        elif event["body"]:
            await self._app_send.send(event["body"])

    async def frame(self) -> dict[str, str]:
        """The fields of the next frame; a comment has an empty name."""
        with trio.fail_after(60):
            while b"\n\n" not in self._buffer:
                self._buffer += await self._from_app.receive()
        frame, _, self._buffer = self._buffer.partition(b"\n\n")
        assert PLANTED not in frame.decode()
        return dict(line.split(": ", 1) for line in frame.decode().split("\n"))

    async def events(self, count: int) -> list[Any]:
        """The next events, heartbeats left out; each frame carries its ``seq`` as id."""
        found: list[Any] = []
        while len(found) < count:
            frame = await self.frame()
            if "" not in frame:
                assert frame["event"] == "status"
                found.append(json.loads(frame["data"]))
                assert frame["id"] == str(found[-1]["seq"])
        return found

    def leave(self) -> None:
        """Go away."""
        self._gone.set()


# -- putting it together ---------------------------------------------------------------------


def ports_for_tests(
    database: str = "memory:", net: CallbackNet | None = None, store: StoreOpener | None = None
) -> Ports:
    """Ports for a test. Over the memory store time follows Trio's clock; others use threads."""
    clock = TrioClock(NOW) if database == "memory:" else SystemClock()
    rng = random.Random(20260102)
    return Ports(
        store=store or partial(open_store, database),
        net=net or HttpCallbackNet(body_bytes_max=64 * 1024, connect_timeout_s=5),
        clock=clock,
        rng=rng,
        ids=SystemIds(clock, rng),
        broker=LocalBroker(2000),
    )


@asynccontextmanager
async def open_api(
    *,
    config: EngineConfig | None = None,
    settings: WebSettings | None = None,
    database: str = "memory:",
    net: CallbackNet | None = None,
    store: StoreOpener | None = None,
) -> AsyncIterator[Api]:
    """The API over a running engine. Without ``net`` callbacks are made over real HTTP."""
    metrics = Metrics()
    async with open_engine(
        config or EngineConfig(executors=4),
        ports=ports_for_tests(database, net, store),
        observe_attempt=metrics.observe,
    ) as engine:
        try:
            yield Api(engine, create_app(engine, settings, metrics))
        finally:
            if isinstance(net, ScriptedNet):
                net.let_go()  # else stopping would wait for the timeout of what is held
