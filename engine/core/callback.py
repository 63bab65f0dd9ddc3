"""The request a callback gets, as bytes.

Headers follow Standard Webhooks: ``webhook-id`` is the task's id and the same on every attempt, so
that a receiver can deduplicate. The signature over ``id.timestamp.body`` belongs at the end of
``build_request``, where the exact bytes are known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

import attrs

from .task import Method, Task
from .times import rfc3339

_WITHOUT_BODY = frozenset({Method.GET, Method.DELETE})


@attrs.frozen(kw_only=True)
class CallbackRequest:
    """One HTTP request: exactly these bytes go out, within ``timeout_s`` for everything."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    timeout_s: float


def build_request(task: Task, now: datetime, span_id: str, user_agent: str) -> CallbackRequest:
    """The request for the attempt that ``task`` is in. ``span_id`` is 16 hexadecimal digits; the
    trace id is the task's id, so that all attempts share one trace (W3C Trace Context §3.2)."""
    spec = task.spec
    headers = {
        **spec.headers,
        "User-Agent": user_agent,
        "Accept-Encoding": "identity",
        "webhook-id": task.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "Idempotency-Key": task.id,
        "X-Task-Attempt": str(task.attempt),
        "X-Task-Max-Attempts": str(spec.retry_policy.max_attempts),
        "traceparent": f"00-{task.id.replace('-', '')}-{span_id}-01",
    }
    body = b""
    if spec.method not in _WITHOUT_BODY:
        headers["Content-Type"] = "application/json"
        body = _body(task, now)
    return CallbackRequest(
        method=spec.method,
        url=spec.callback_url,
        headers=headers,
        body=body,
        timeout_s=spec.timeout_s,
    )


def _body(task: Task, now: datetime) -> bytes:
    document = {
        "taskId": task.id,
        "taskName": task.spec.name,
        "payload": task.spec.payload,
        "executedAt": rfc3339(now),
        "attempt": task.attempt,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
