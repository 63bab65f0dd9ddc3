"""Every limit, size and time of the engine. Units stand in the names: ``_s`` seconds, ``_bytes``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, TypeAlias

import attrs

from .secret import Secret, parse_secrets

Network: TypeAlias = IPv4Network | IPv6Network


def parse_networks(value: str | Iterable[Network | str]) -> tuple[Network, ...]:
    """Networks from a text with commas or blanks between them, or from a sequence.
    Raises ``ValueError``, which says which of them is wrong and how."""
    entries = value.replace(",", " ").split() if isinstance(value, str) else value
    networks = []
    for entry in entries:
        try:
            networks.append(ip_network(entry))
        except ValueError as error:
            raise ValueError(
                f"{error}: write an allowed network as 10.1.0.0/16 or fd12::/32"
            ) from None
    return tuple(networks)


def _positive(_instance: EngineConfig, attribute: attrs.Attribute[Any], value: float) -> None:
    if value <= 0:
        raise ValueError(f"{attribute.name} must be more than 0, not {value}")


def _one_of(*choices: str) -> Callable[[EngineConfig, attrs.Attribute[Any], str], None]:
    def check(_instance: EngineConfig, attribute: attrs.Attribute[Any], value: str) -> None:
        if value not in choices:
            raise ValueError(f"{attribute.name} must be {' or '.join(choices)}, not {value!r}")

    return check


def _limit(default: Any, doc: str) -> Any:
    return attrs.field(default=default, validator=_positive, metadata={"doc": doc})


@attrs.frozen(kw_only=True)
class EngineConfig:
    """Settings of one engine. Each has a safe default; a wrong one raises ``ValueError`` here."""

    executors: int = _limit(100, "callbacks in flight at once")
    dispatch: str = attrs.field(
        default="manual",
        validator=_one_of("manual", "auto"),
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
    recoveries_max: int = _limit(4, "attempts lost in a row before a task is parked as Failed")
    sweep_interval_s: float = _limit(1.0, "how often leases and deadlines are looked at")
    connect_timeout_s: float = _limit(5.0, "time a callback's connection may take")
    signing_secrets: tuple[Secret, ...] = attrs.field(
        default=(),
        converter=parse_secrets,
        repr=False,
        metadata={
            "doc": "secrets that callbacks are signed with: whsec_…, newest first, commas between",
            "default": "none: callbacks are not signed",
            "file": True,
        },
    )
    egress: str = attrs.field(
        default="internal",
        validator=_one_of("internal", "public"),
        metadata={
            "doc": "addresses callbacks may go to: also private ones (internal) or global ones only (public)",
            "default": "`internal` while `--host` is loopback, else `public`",
        },
    )
    allow_network: tuple[Network, ...] = attrs.field(
        default=(),
        converter=parse_networks,
        metadata={
            "doc": "networks callbacks may go to although egress is public, commas between",
            "default": "none",
        },
    )
    answer_bytes_max: int = _limit(64 * 1024, "bytes kept of a callback's answer")
    breaker_ratio: float = _limit(
        0.5, "share of failed attempts that opens a destination's breaker; above 1 none opens"
    )
    breaker_window_s: float = _limit(60.0, "how far back a destination's attempts count")
    breaker_attempts_min: int = _limit(10, "attempts without which nothing is said against it")
    breaker_open_s: float = _limit(30.0, "how long an open breaker lets no attempt begin")
    slow_s: float = _limit(5.0, "an attempt that takes longer is slow")
    unhealthy_limit: int = _limit(
        20, "callbacks in flight to a destination that answers badly; at most half the executors"
    )
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
