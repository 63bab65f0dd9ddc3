"""Whatever JSON is sent, it is accepted and stored, or refused and not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from engine import EngineConfig
from tests.support.app import HOOK, V1, open_api
from tests.support.fakes import ScriptedNet

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
_moments = st.sampled_from(["2026-01-02T03:04:05Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
_numbers = st.integers(-200, 2000) | st.floats()
_maps = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)
_fields = {
    "?name": st.text(max_size=300),  # in place of the good one
    "?callbackUrl": st.sampled_from([HOOK, "http://[::1]:1/", "http://[", "https://a.b:99999/"]),
    "description": st.none() | st.text(max_size=20),
    "payload": _json,
    "priority": _numbers,
    "dispatch": st.sampled_from(["manual", "auto", "other"]),
    "runAt": st.none() | _moments,
    "delaySeconds": st.none() | _numbers,
    "deadline": st.none() | _moments,
    "timeoutSeconds": _numbers,
    "retryPolicy": st.fixed_dictionaries(
        {}, optional={"maxAttempts": _numbers, "multiplier": _numbers, "jitter": st.booleans()}
    ),
    "method": st.sampled_from(["POST", "GET", "TRACE"]),
    "headers": _maps,
    "metadata": _maps,
    "partitionKey": st.text(max_size=10),
}
# Half of the documents are nearly right: each field is well meant or any JSON at all.
_tasks = st.fixed_dictionaries(
    {"name": st.just("n"), "callbackUrl": st.just(HOOK)},
    optional={name: meant | _json for name, meant in _fields.items()},
).map(lambda task: {name.removeprefix("?"): value for name, value in task.items()})


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(documents=st.lists(_json | _tasks, min_size=4, max_size=12))
async def test_any_document_is_stored_or_refused_and_never_breaks_the_server(
    documents: list[Any],
) -> None:
    async with open_api(net=ScriptedNet(), config=EngineConfig(executors=1)) as api:
        stored = 0
        for document in documents:
            answer = await api.call("POST", f"{V1}/tasks", data=json.dumps(document).encode())
            assert answer.status in (201, 400)
            stored += answer.status == 201
            assert await api.count() == stored


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    bodies=st.lists(st.binary(max_size=50) | _json.map(json.dumps).map(str.encode), min_size=4),
    path=st.sampled_from(["/tasks", "/tasks/batch", "/tasks/dequeue", "/dead-letters/redrive"]),
)
async def test_any_bytes_are_refused_politely(bodies: list[bytes], path: str) -> None:
    async with open_api(net=ScriptedNet(), config=EngineConfig(executors=1)) as api:
        for body in bodies:
            answer = await api.call("POST", V1 + path, data=body)
            assert answer.status < 500
        assert await api.count() == 0
