"""The request a callback gets, byte by byte."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from engine.core.callback import CallbackRequest, build_request
from engine.core.task import Method, RetryPolicy, Status, Task, TaskSpec

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
TASK_ID = "019b7d2e-1c00-7000-8000-000000000001"


def build(**fields: Any) -> CallbackRequest:
    described: dict[str, Any] = {"name": "ship", "callback_url": "http://h/p?q=1", **fields}
    task = Task(
        id=TASK_ID, spec=TaskSpec(**described), status=Status.PROCESSING, version=1,
        created_at=NOW - timedelta(hours=1), updated_at=NOW, due_at=NOW, rank=0, attempt=2,
    )  # fmt: skip
    return build_request(task, NOW, "00f067aa0ba902b7", "Ringback/1.0", secrets=())


def test_the_body_says_what_is_to_be_done() -> None:
    assert build(payload={"a": [1, "ü"]}).body == (
        b'{"taskId":"019b7d2e-1c00-7000-8000-000000000001","taskName":"ship",'
        b'"payload":{"a":[1,"\xc3\xbc"]},"executedAt":"2026-01-02T03:04:05.000678Z","attempt":2}'
    )


def test_the_request_goes_where_the_task_says() -> None:
    found = build(method=Method.PUT, timeout_s=3.5)
    assert (found.method, found.url, found.timeout_s) == ("PUT", "http://h/p?q=1", 3.5)


def test_the_headers_are_complete() -> None:
    assert build(retry_policy=RetryPolicy(max_attempts=7)).headers == {
        "User-Agent": "Ringback/1.0",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "webhook-id": TASK_ID,
        "webhook-timestamp": str(int(NOW.timestamp())),
        "Idempotency-Key": TASK_ID,
        "X-Task-Attempt": "2",
        "X-Task-Max-Attempts": "7",
        "X-Task-Hops": "1",
        "traceparent": "00-019b7d2e1c0070008000000000000001-00f067aa0ba902b7-01",
    }


def test_a_callback_carries_one_hop_more_than_its_task_has() -> None:
    assert build(hops=5).headers["X-Task-Hops"] == "6"


def test_headers_of_the_task_go_along_but_cannot_replace_ours() -> None:
    found = build(headers={"Authorization": "Bearer x", "User-Agent": "other"})
    assert found.headers["Authorization"] == "Bearer x"
    assert found.headers["User-Agent"] == "Ringback/1.0"


@pytest.mark.parametrize("method", list(Method))
def test_get_and_delete_have_no_body(method: Method) -> None:
    found = build(method=method)
    bare = method in (Method.GET, Method.DELETE)
    assert (found.body == b"") is bare
    assert ("Content-Type" not in found.headers) is bare


values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)


@given(values)
def test_any_payload_arrives_as_it_was(payload: Any) -> None:
    assert json.loads(build(payload=payload).body)["payload"] == payload
