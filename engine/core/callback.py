"""The request a callback gets, as bytes.

Headers follow Standard Webhooks: ``webhook-id`` is the task's id and the same on every attempt, so
that a receiver can deduplicate. ``webhook-signature`` is made last, when the exact bytes of the
body are known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

import attrs

from engine.secret import Secret

from .signing import signature
from .task import Method, Task, names_of
from .times import rfc3339

_WITHOUT_BODY = frozenset({Method.GET, Method.DELETE})
_to_json = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, separators=(",", ":")
).encode  # made once: ``json.dumps`` would make one for each call


@attrs.frozen(kw_only=True)
class CallbackRequest:
    """One HTTP request: exactly these bytes go out, within ``timeout_s`` for everything."""

    method: str
    url: str
    headers: Mapping[str, str] = attrs.field(repr=names_of)
    body: bytes = attrs.field(repr=False)
    timeout_s: float


def build_request(
    task: Task, now: datetime, span_id: str, user_agent: str, *, secrets: Sequence[Secret]
) -> CallbackRequest:
    """The request for the attempt that ``task`` is in, signed unless there are no ``secrets``.

    ``span_id`` is 16 hexadecimal digits; the trace id is the task's id, so that all attempts share
    one trace (W3C Trace Context §3.2).
    """
    spec = task.spec
    timestamp = str(int(now.timestamp()))
    headers = {
        **spec.headers,
        "User-Agent": user_agent,
        "Accept-Encoding": "identity",
        "webhook-id": task.id,
        "webhook-timestamp": timestamp,
        "Idempotency-Key": task.id,
        "X-Task-Attempt": str(task.attempt),
        "X-Task-Max-Attempts": str(spec.retry_policy.max_attempts),
        "X-Task-Hops": str(spec.hops + 1),
        "traceparent": f"00-{task.id.replace('-', '')}-{span_id}-01",
    }
    body = b""
    if spec.method not in _WITHOUT_BODY:
        headers["Content-Type"] = "application/json"
        body = _body(task, now)
    if secrets:
        headers["webhook-signature"] = signature(task.id, timestamp, body, secrets)
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
    return _to_json(document).encode()
