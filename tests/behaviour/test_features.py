"""What the features of ``tests/features`` say, over REST against a real server and receiver."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from pytest_bdd import given, parsers, scenarios, then, when

from tests.support.app import NOBODY, V1
from tests.support.live import Live, live_server

scenarios("creating.feature", "queue.feature", "executing.feature", "cancelling.feature")

pytestmark = pytest.mark.slow  # each scenario starts a server

PAYLOAD = {"order": 7, "lines": ["a", None]}


@attrs.frozen
class Dialect:
    """How one of the two dialects spells the calls."""

    prefix: str
    dequeue: str  # the method
    payload: str  # the field
    has_name: bool


DIALECTS = {
    "versioned": Dialect(V1, "POST", "payload", has_name=True),
    "unversioned": Dialect("/api", "GET", "taskData", has_name=False),
}


class Story:
    """What has happened so far: a client, its last answer, its task."""

    def __init__(self, live: Live, http: httpx.Client) -> None:
        self.live = live
        self.http = http
        self.dialect = DIALECTS["versioned"]
        self.answers: list[httpx.Response] = []
        self.task_id = ""

    @property
    def answer(self) -> httpx.Response:
        return self.answers[-1]

    def send(self, method: str, path: str, **how: Any) -> httpx.Response:
        self.answers.append(self.http.request(method, path, **how))
        return self.answer

    def body(self, path: str, **fields: Any) -> dict[str, Any]:
        body = {
            "callbackUrl": self.live.receiver.url + path,
            self.dialect.payload: PAYLOAD,
            **fields,
        }
        return {"name": "order", **body} if self.dialect.has_name else body

    def create(self, path: str, **fields: Any) -> None:
        answer = self.send("POST", f"{self.dialect.prefix}/tasks", json=self.body(path, **fields))
        self.task_id = answer.json().get("taskId", "")

    def url(self, part: str = "") -> str:
        return f"{self.dialect.prefix}/tasks/{self.task_id}{part}"

    def get(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()

    def calls(self) -> list[Any]:
        return self.live.ask(self.live.receiver.all_calls)

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait for something outside of this thread."""
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline, f"never: {what}"
            time.sleep(0.01)  # noqa: TID251 - not an async test


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with live_server(f"sqlite:///{tmp_path}/tasks.db") as live:
        with httpx.Client(base_url=live.url, timeout=30) as http:
            yield Story(live, http)


# -- given -----------------------------------------------------------------------------------


@given(parsers.parse("a client of the {dialect} API"))
def _(story: Story, dialect: str) -> None:
    story.dialect = DIALECTS[dialect]


@given(parsers.parse('a task that calls "{path}"'))
def _(story: Story, path: str) -> None:
    story.create(path)
    assert story.answer.status_code == 201


@given(parsers.re(r'a task that calls "(?P<path>\S+)" with (?P<attempts>\d+) attempts?'))
def _(story: Story, path: str, attempts: str) -> None:
    policy = {"maxAttempts": int(attempts), "initialIntervalSeconds": 0.01, "jitter": False}
    story.create(path, retryPolicy=policy)
    assert story.answer.status_code == 201


@given("the task has been taken")
def _(story: Story) -> None:
    answer = story.send(story.dialect.dequeue, f"{story.dialect.prefix}/tasks/dequeue")
    assert answer.json()["taskId"] == story.task_id


@given("the task is running")
def _(story: Story) -> None:
    story.send("POST", story.url("/dequeue"))
    story.send("POST", story.url("/execute"), headers={"Prefer": "respond-async"})
    story.until("the call arrives", lambda: len(story.calls()) == 1)


# -- when ------------------------------------------------------------------------------------


@when(parsers.parse('it creates a task that calls "{path}"'))
def _(story: Story, path: str) -> None:
    story.create(path)


@when(parsers.parse('it creates a task that calls "{path}" and is dispatched automatically'))
def _(story: Story, path: str) -> None:
    story.create(path, dispatch="auto")


@when(parsers.parse('it creates a task without "{field}"'))
def _(story: Story, field: str) -> None:
    body = story.body("/good")
    del body[field]
    story.send("POST", f"{story.dialect.prefix}/tasks", json=body)


@when(parsers.parse('it creates a batch of 3 tasks of which the 2nd lacks "{field}"'))
def _(story: Story, field: str) -> None:
    tasks = [story.body("/good") for _ in range(3)]
    del tasks[1][field]
    story.send("POST", f"{V1}/tasks/batch", json={"tasks": tasks})


@when("it creates the same task twice with one idempotency key")
def _(story: Story) -> None:
    for _ in range(2):
        headers = {"Idempotency-Key": "order 7"}
        story.send("POST", f"{V1}/tasks", json=story.body("/good"), headers=headers)


@when("it asks for the next task")
def _(story: Story) -> None:
    story.send(story.dialect.dequeue, f"{story.dialect.prefix}/tasks/dequeue")


@when("it asks for that task")
def _(story: Story) -> None:
    story.send("POST", story.url("/dequeue"))


@when("it gives the task back")
def _(story: Story) -> None:
    story.send("POST", story.url("/release"))


@when("it executes the task")
def _(story: Story) -> None:
    story.send("POST", story.url("/execute"))


@when("it executes a task that does not exist")
def _(story: Story) -> None:
    story.task_id = NOBODY
    story.send("POST", story.url("/execute"))


@when("it cancels the task")
def _(story: Story) -> None:
    story.send("DELETE", story.url())


@when("it cancels the task and has the call cut off")
def _(story: Story) -> None:
    story.send("DELETE", story.url("?inFlight=true"))


# -- then ------------------------------------------------------------------------------------


@then(parsers.parse("the answer is {status:d}"))
def _(story: Story, status: int) -> None:
    assert story.answer.status_code == status, story.answer.text


@then(parsers.parse('it is told the task\'s id and that it is "{status}"'))
def _(story: Story, status: str) -> None:
    assert story.task_id
    assert story.answer.json()["status"] == status


@then(parsers.parse('it is told that the task is "{status}"'))
def _(story: Story, status: str) -> None:
    told = story.answer.json()
    assert told.get("currentStatus", told["status"]) == status


@then(parsers.parse('it is given the task, with its payload, as "{status}"'))
def _(story: Story, status: str) -> None:
    task = story.answer.json()
    assert task["taskId"] == story.task_id
    assert task["status"] == status
    assert task[story.dialect.payload] == PAYLOAD
    assert task["callbackUrl"].startswith(story.live.receiver.url)


@then(parsers.parse('the task is found as "{status}"'))
def _(story: Story, status: str) -> None:
    assert story.get(story.url())["status"] == status


@then(parsers.parse('the task comes to be "{status}"'))
def _(story: Story, status: str) -> None:
    story.until(status, lambda: story.get(story.url())["status"] == status)


@then(parsers.parse('the task is in the archive as "{status}"'))
def _(story: Story, status: str) -> None:
    assert story.get(f"{V1}/archive/{story.task_id}")["finalStatus"] == status
    assert story.get(f"{V1}/archive")["totalCount"] == 1


@then("the task is among the dead letters")
def _(story: Story) -> None:
    (task,) = story.get(f"{V1}/dead-letters")["tasks"]
    assert task["taskId"] == story.task_id


@then(parsers.parse('the field "{pointer}" is named as missing'))
def _(story: Story, pointer: str) -> None:
    assert story.answer.headers["Content-Type"] == "application/problem+json"
    assert story.answer.json()["errors"] == [{"pointer": pointer, "detail": "is missing"}]


@then(parsers.parse('the problem is "{kind}"'))
def _(story: Story, kind: str) -> None:
    assert story.answer.json()["type"] == f"urn:ringback:problem:{kind}"


@then("no task has been stored")
def _(story: Story) -> None:
    assert story.get(f"{V1}/tasks")["totalCount"] == 0


@then("1 task has been stored")
def _(story: Story) -> None:
    assert story.get(f"{V1}/tasks")["totalCount"] == 1


@then("both answers name the same task")
def _(story: Story) -> None:
    first, second = story.answers
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"


@then(parsers.re(r"the callback has been called (?P<count>\d+) times?"))
def _(story: Story, count: str) -> None:
    calls = story.calls()
    assert [call.attempt for call in calls] == list(range(1, int(count) + 1))
    assert {call.task_id for call in calls} <= {story.task_id}


@then("the call carried the task's id, name and payload")
def _(story: Story) -> None:
    (call,) = story.calls()
    body = json.loads(call.body)
    assert (body["taskId"], body["payload"], body["attempt"]) == (story.task_id, PAYLOAD, 1)
    assert body["taskName"] == story.get(f"{V1}/tasks/{story.task_id}")["name"]
    assert call.headers["x-task-attempt"] == "1"


@then(parsers.parse('the error is recorded as "{error}"'))
def _(story: Story, error: str) -> None:
    result = story.get(f"{V1}/tasks/{story.task_id}")["callbackResult"]
    assert (result["error"], result["errorClass"]) == (error, "http_status")
    told = story.answer.json()
    assert told.get("error", error) == error
    assert told.get("callbackResult", result) == result


@then(parsers.parse("every attempt is logged with status {status:d}"))
def _(story: Story, status: int) -> None:
    log = story.get(story.url("/attempts"))["attempts"]
    assert len(log) == len(story.calls())
    assert {attempt["result"]["statusCode"] for attempt in log} == {status}


@then(parsers.parse('the history is "{statuses}"'))
def _(story: Story, statuses: str) -> None:
    events = story.get(story.url("/events"))["events"]
    assert [event["to"] for event in events] == statuses.split(", ")


@then("the callback's connection is closed")
def _(story: Story) -> None:
    story.until("the call ends", lambda: all(call.ended is not None for call in story.calls()))
