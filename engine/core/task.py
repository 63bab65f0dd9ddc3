"""The records everything speaks of: a task, its description, its attempts and its events."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias, TypeVar

import attrs

from engine.errors import InvalidTask

from .rules import HEADERS, HTTP_URL, Path, between, problems_of, string_map, text

TaskId: TypeAlias = str
"""A UUIDv7 (RFC 9562 §5.7) in its 36-character form: ids sort by time of creation."""

Json: TypeAlias = Any
"""Any JSON value as Python's ``json`` gives it."""


class Status(enum.StrEnum):
    """Where a task is in its life; ``lifecycle`` holds how it moves."""

    QUEUED = "Queued"
    PENDING = "Pending"
    PROCESSING = "Processing"
    RETRYING = "Retrying"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class Dispatch(enum.StrEnum):
    """Who drives a task: clients (``manual``) or the engine's executors (``auto``)."""

    MANUAL = "manual"
    AUTO = "auto"


class Method(enum.StrEnum):
    """HTTP methods a callback may use. GET and DELETE are sent without a body."""

    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    GET = "GET"
    DELETE = "DELETE"


class Lane(enum.StrEnum):
    """Who a waiting task waits for: an executor (``run``) or a client's dequeue (``take``)."""

    RUN = "run"
    TAKE = "take"


class Wait(enum.StrEnum):
    """Why a waiting task waits."""

    READY = "ready"  # for a taker of its lane
    SCHEDULED = "scheduled"  # for its time
    BLOCKED = "blocked"  # for an earlier task of its partition key


class ErrorClass(enum.StrEnum):
    """What went wrong in an attempt."""

    HTTP_STATUS = "http_status"
    REDIRECT = "redirect"
    DNS = "dns"
    EGRESS_DENIED = "egress_denied"  # the address is one we may not connect to
    REFUSED = "refused"
    TLS = "tls"
    CONNECT_TIMEOUT = "connect_timeout"
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"
    PROTOCOL = "protocol"
    INVALID_REQUEST = "invalid_request"
    CRASHED = "crashed"
    SHORTAGE = "shortage"  # of descriptors, ports or memory on our side
    INTERRUPTED = "interrupted"
    LOST = "lost"
    CANCELLED = "cancelled"


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """When to try again: ``initial * multiplier**(n-1)`` seconds after the n-th failure, at most
    ``max``; with jitter a random part of that (full jitter)."""

    max_attempts: Annotated[int, between(1, 100)] = 3
    initial_interval_s: Annotated[float, between(0, 86_400)] = 2.0
    max_interval_s: Annotated[float, between(0, 86_400)] = 30.0
    multiplier: Annotated[float, between(1, 100)] = 2.0
    jitter: bool = True


HOPS_MAX = 5
"""How many callbacks in a row may each create the next task."""

NOT_IN_BODIES = "not in bodies"
"""Marks a field that clients cannot give as a field: it comes from somewhere else."""


def names_of(headers: Mapping[str, str]) -> str:
    """How headers show in a ``repr``: their values may be credentials."""
    return repr(list(headers))


@attrs.frozen(kw_only=True, slots=False)  # see evolved
class TaskSpec:
    """What a client asks for. Breaking a rule raises ``InvalidTask`` when it is submitted.

    ``hops`` counts the callbacks that led to this task, one creating the next; a limit ends loops.
    """

    name: Annotated[str, text(1, 200)]
    callback_url: Annotated[str, HTTP_URL]
    description: Annotated[str, text(0, 10_000)] | None = None
    payload: Json = attrs.field(default=None, repr=False)
    priority: Annotated[int, between(-100, 100)] = 0
    dispatch: Dispatch | None = None
    run_at: datetime | None = None
    delay_s: Annotated[float, between(0, 366 * 86_400)] | None = None
    deadline: datetime | None = None
    timeout_s: Annotated[float, between(0.1, 1800)] = 10.0
    retry_policy: RetryPolicy = RetryPolicy()
    method: Method = Method.POST
    headers: Annotated[dict[str, str], HEADERS] = attrs.field(factory=dict, repr=names_of)
    metadata: Annotated[dict[str, str], string_map(20, 500)] = attrs.field(factory=dict)
    partition_key: Annotated[str, text(1, 200)] | None = None
    hops: Annotated[int, between(0, HOPS_MAX)] = attrs.field(
        default=0, metadata={NOT_IN_BODIES: True}
    )

    def problems(self) -> list[tuple[Path, str]]:
        """Every broken rule, as ``(path, detail)`` pairs."""
        found = list(problems_of(self))
        if self.run_at is not None and self.delay_s is not None:
            found.append((("delay_s",), "cannot be given together with runAt"))
        for name in ("run_at", "deadline"):
            moment = getattr(self, name)
            if moment is None:
                continue
            if moment.tzinfo is None:
                found.append(((name,), "must carry a time zone"))
            elif not _UTC_MIN <= moment <= _UTC_MAX:
                found.append(((name,), "is not a time of the years 1 to 9999 in UTC"))
        for name, kind in _EXACT.items():
            value = getattr(self, name)
            if value is not None and type(value) is not kind:
                found.append(((name,), f"must be of type {kind.__name__}, and none that derives"))
        return found

    def check(self) -> None:
        """Raise ``InvalidTask`` with every broken rule, or do nothing."""
        if found := self.problems():
            raise InvalidTask(found)


_EXACT = {
    "name": str,
    "partition_key": str,
    "priority": int,
    "dispatch": Dispatch,
    "method": Method,
}
"""What decides where a task waits, and is a column of its own: it must be read as it was written."""

_UTC_MIN, _UTC_MAX = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@attrs.frozen(kw_only=True)
class CallbackResult:
    """What the last attempt brought: a status and body, or a class of error and its text."""

    status_code: int | None = None
    body: str | None = None
    truncated: bool = False
    error_class: ErrorClass | None = None
    error: str | None = None


@attrs.frozen(kw_only=True, slots=False)  # see evolved
class Task:
    """One task as it is stored. ``version`` grows with every change of the row.

    ``attempt`` is the number of the last attempt that began: it only grows and fences late
    results. ``failures`` counts the attempts that used up the retry budget.
    """

    id: TaskId
    spec: TaskSpec
    status: Status
    version: int
    created_at: datetime
    updated_at: datetime
    due_at: datetime  # not to be taken before: runAt, or the time of the next attempt
    rank: int  # order in its lane, smallest first; see ``backlog.rank_of``
    lane: Lane | None = None
    wait: Wait | None = None
    attempt: int = 0
    failures: int = 0
    recoveries: int = 0  # attempts lost in a row
    owner: str | None = None  # who holds the lease: one process start, or a dequeuing client
    expires_at: datetime | None = None  # end of the lease, or the deadline while waiting
    executed_at: datetime | None = None  # when the last attempt began
    completed_at: datetime | None = None
    archived_at: datetime | None = None
    result: CallbackResult | None = None
    reason: str | None = None  # why it is in this status, where that is not plain


@attrs.frozen(kw_only=True, slots=False)  # see evolved
class Attempt:
    """One call of the callback, as it is logged. ``counted``: it used up the retry budget."""

    task_id: TaskId
    number: int
    started_at: datetime
    finished_at: datetime
    duration_s: float
    method: str
    url: str
    counted: bool
    result: CallbackResult


@attrs.frozen(kw_only=True, slots=False)  # see evolved
class Event:
    """One change of status. ``seq`` has no gaps and only grows; 0 until it is stored."""

    seq: int = 0
    at: datetime
    task_id: TaskId
    name: str
    from_status: Status | None
    to_status: Status
    attempt: int
    reason: str | None = None
    result: CallbackResult | None = None


R = TypeVar("R", Task, TaskSpec, Event)


def evolved(record: R, **changes: Any) -> R:
    """A copy with these attributes changed. As ``attrs.evolve``, but it does not check the names.

    Every command makes several records. Without slots they are made in half the time, and copied
    in a quarter of it.
    """
    attributes = record.__dict__.copy()
    attributes.update(changes)
    copy: R = object.__new__(type(record))
    object.__setattr__(copy, "__dict__", attributes)
    return copy
