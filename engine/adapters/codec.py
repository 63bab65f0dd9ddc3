"""Records as JSON text, for stores. Compact, not escaped, and only what JSON can say: no NaN.

What is nothing (no value, no header, no label) is left out. Everything else is written, so that no
stored task changes when a default does. Written by hand, because it is done for every task: cattrs
takes several times as long.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

from engine.core.commands import Receipt
from engine.core.task import CallbackResult, Dispatch, ErrorClass, Method, RetryPolicy, TaskSpec
from engine.errors import StoreRejected

T = TypeVar("T")
V = TypeVar("V")

COLUMNS = ("name", "priority", "partition_key")
"""Fields of a spec that stores keep beside the text, because they search for them."""

_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_DECODE = json.JSONDecoder().decode


def _text(value: Any) -> str:
    try:
        return _ENCODE(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreRejected(f"this cannot be written as JSON: {error}") from error


def _each(function: Callable[[V], T], value: V | None) -> T | None:
    return None if value is None else function(value)


def encode_spec(spec: TaskSpec) -> str:
    """Everything but ``COLUMNS``. Raises ``StoreRejected`` for what JSON cannot say."""
    parts = [
        f'{{"callback_url":{_text(spec.callback_url)}',
        _manner(spec.dispatch, spec.method, spec.timeout_s, spec.retry_policy),
    ]
    if spec.payload is not None:
        parts.append(f'"payload":{_text(spec.payload)}')
    if rest := _rest(spec):
        parts.append(_text(rest)[1:-1])
    return ",".join(parts) + "}"


@lru_cache(maxsize=256)
def _manner(
    dispatch: Dispatch | None, method: Method, timeout_s: float, policy: RetryPolicy
) -> str:
    """What is the same in most specs, without the braces."""
    retry_policy = {
        "max_attempts": policy.max_attempts,
        "initial_interval_s": policy.initial_interval_s,
        "max_interval_s": policy.max_interval_s,
        "multiplier": policy.multiplier,
        "jitter": policy.jitter,
    }
    fields: dict[str, Any] = {
        "method": method,
        "timeout_s": timeout_s,
        "retry_policy": retry_policy,
    }
    if dispatch is not None:
        fields["dispatch"] = dispatch
    return _text(fields)[1:-1]


def _rest(spec: TaskSpec) -> dict[str, Any]:
    """What most specs do not have."""
    fields: dict[str, Any] = {}
    if spec.description is not None:
        fields["description"] = spec.description
    if spec.run_at is not None:
        fields["run_at"] = spec.run_at.isoformat()
    if spec.delay_s is not None:
        fields["delay_s"] = spec.delay_s
    if spec.deadline is not None:
        fields["deadline"] = spec.deadline.isoformat()
    if spec.headers:
        fields["headers"] = spec.headers
    if spec.metadata:
        fields["metadata"] = spec.metadata
    if spec.hops:
        fields["hops"] = spec.hops
    return fields


def decode_spec(text: str, name: str, priority: int, partition_key: str | None) -> TaskSpec:
    """The spec of a text and its ``COLUMNS``."""
    fields = _DECODE(text)
    field = fields.get
    return TaskSpec(
        name=name,
        callback_url=fields["callback_url"],
        description=field("description"),
        payload=field("payload"),
        priority=priority,
        dispatch=_each(Dispatch, field("dispatch")),
        run_at=_each(datetime.fromisoformat, field("run_at")),
        delay_s=field("delay_s"),
        deadline=_each(datetime.fromisoformat, field("deadline")),
        timeout_s=fields["timeout_s"],
        retry_policy=RetryPolicy(**fields["retry_policy"]),
        method=Method(fields["method"]),
        headers=field("headers", {}),
        metadata=field("metadata", {}),
        partition_key=partition_key,
        hops=field("hops", 0),
    )


def encode_result(result: CallbackResult | None) -> str | None:
    """Raises ``StoreRejected`` for what JSON cannot say."""
    if result is None:
        return None
    fields: list[str] = []
    if result.status_code is not None:
        fields.append(f'"status_code":{result.status_code}')
    if result.body is not None:
        fields.append(f'"body":{_text(result.body)}')
    if result.truncated:
        fields.append('"truncated":true')
    if result.error_class is not None:
        fields.append(f'"error_class":{_text(result.error_class)}')
    if result.error is not None:
        fields.append(f'"error":{_text(result.error)}')
    return f"{{{','.join(fields)}}}"


def decode_result(text: str | None) -> CallbackResult | None:
    """The opposite of ``encode_result``."""
    if text is None:
        return None
    field = _DECODE(text).get
    return CallbackResult(
        status_code=field("status_code"),
        body=field("body"),
        truncated=field("truncated", False),
        error_class=_each(ErrorClass, field("error_class")),
        error=field("error"),
    )


def encode_receipts(receipts: tuple[Receipt, ...]) -> str:
    """Raises ``StoreRejected`` for what JSON cannot say."""
    return _text(
        [{"task_id": one.task_id, "created_at": one.created_at.isoformat()} for one in receipts]
    )


def decode_receipts(text: str) -> tuple[Receipt, ...]:
    """The opposite of ``encode_receipts``."""
    return tuple(
        Receipt(one["task_id"], datetime.fromisoformat(one["created_at"])) for one in _DECODE(text)
    )
