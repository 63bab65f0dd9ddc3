"""Every limit, size and time of the engine. Units stand in the names: ``_s`` seconds, ``_bytes``."""

from __future__ import annotations

from typing import Any

import attrs


def _positive(_instance: EngineConfig, attribute: attrs.Attribute[Any], value: float) -> None:
    if value <= 0:
        raise ValueError(f"{attribute.name} must be more than 0, not {value}")


def _limit(default: Any, doc: str) -> Any:
    return attrs.field(default=default, validator=_positive, metadata={"doc": doc})


@attrs.frozen(kw_only=True)
class EngineConfig:
    """Settings of one engine. Each has a safe default; a wrong one raises ``ValueError`` here."""

    executors: int = _limit(100, "callbacks in flight at once")
    dispatch: str = attrs.field(
        default="manual",
        validator=attrs.validators.in_(("manual", "auto")),
        metadata={
            "doc": "who takes a task that does not say: clients (manual) or executors (auto)"
        },
    )
    grace_s: float = _limit(30.0, "time running attempts get when the engine stops")
    ageing_s: float = _limit(600.0, "waiting time worth one level of priority")
    queue_max: int = _limit(5_000_000, "tasks that may wait; more are refused")
    window: int = _limit(2_000, "waiting tasks kept in memory per lane; the rest stay in the store")
    inbox: int = _limit(2_000, "messages an actor's inbox holds; more are refused")
    takers_max: int = _limit(1_000, "clients that may wait for a task at once")
    commit_batch: int = _limit(500, "commands in one transaction")
    dequeue_lease_s: float = _limit(300.0, "how long a dequeued task stays with its client")
    lease_margin_s: float = _limit(30.0, "lease of an attempt beyond its timeout")
    recoveries_max: int = _limit(3, "attempts lost in a row before a task is parked as Failed")
    sweep_interval_s: float = _limit(1.0, "how often leases and deadlines are looked at")
    connect_timeout_s: float = _limit(5.0, "time a callback's connection may take")
    answer_bytes_max: int = _limit(64 * 1024, "bytes kept of a callback's answer")
    retry_after_max_s: float = _limit(86_400.0, "longest Retry-After that is honoured")
    cleanup_timeout_s: float = _limit(5.0, "time to put a cut-off attempt back")
    store_retry_s: float = _limit(0.5, "pause before a failed write is tried again")
    watchers_max: int = _limit(2_000, "open watchers of the status stream")
    watcher_buffer: int = _limit(1_000, "events a watcher may lag behind")
    event_page: int = _limit(500, "events read from the store at once")
    idempotency_s: float = _limit(86_400.0, "how long an idempotency key is remembered")
    event_retention_s: float = _limit(7 * 86_400.0, "how long events are kept")
    archive_retention_s: float = _limit(30 * 86_400.0, "how long finished tasks are kept")
    prune_interval_s: float = _limit(60.0, "how often old records are removed")
    prune_batch: int = _limit(1_000, "records removed in one transaction")
    latency_window: int = _limit(2_000, "recent attempts the latency figures speak of")
