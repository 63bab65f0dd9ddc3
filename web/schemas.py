"""What the API takes and gives, as types. They validate, and make ``/openapi.json``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import attrs

from engine import (
    Attempt,
    CallbackResult,
    Dispatch,
    Method,
    RetryPolicy,
    Status,
)
from engine.core.breaker import BreakerState
from engine.core.retry import PlannedAttempt
from engine.core.rules import HTTP_URL, Rule, between, items, text
from engine.core.tally import Latency
from engine.core.task import Json

# -- bodies that come in ---------------------------------------------------------------------
# A task to create is engine.TaskSpec itself.


_ABSENT = {"absent": True}  # need not be given and has no default: nobody looks at the stand-in


@attrs.frozen(kw_only=True)
class TaskPatch:
    """Fields of a task that may change before it begins; what is absent stays as it is."""

    name: Annotated[str, text(1, 200)] = attrs.field(default="", metadata=_ABSENT)
    description: Annotated[str, text(0, 10_000)] | None = attrs.field(
        default=None, metadata=_ABSENT
    )
    payload: Json = attrs.field(default=None, metadata=_ABSENT)
    priority: Annotated[int, between(-100, 100)] = attrs.field(default=0, metadata=_ABSENT)
    callback_url: Annotated[str, HTTP_URL] = attrs.field(default="", metadata=_ABSENT)
    run_at: datetime | None = attrs.field(default=None, metadata=_ABSENT)


@attrs.frozen(kw_only=True)
class DequeueOptions:
    """How to dequeue."""

    lease_s: Annotated[float, between(1, 86_400)] | None = None


@attrs.frozen(kw_only=True)
class RedriveFilter:
    """Which dead letters to redrive: these, or the newest that match, or simply the newest."""

    task_ids: Annotated[list[str], items(1, 1000)] = attrs.field(factory=list)
    name: str | None = None
    priority: Annotated[int, between(-100, 100)] | None = None
    limit: Annotated[int, between(1, 1000)] = 100


@attrs.frozen(kw_only=True)
class UnversionedTask:
    """A task in the unversioned dialect."""

    callback_url: Annotated[str, HTTP_URL]
    task_data: Json = None
    priority: Annotated[int, between(-100, 100)] = 0


# -- query parameters ------------------------------------------------------------------------


def _described(**schema: str) -> Rule:
    """What is checked where the value is read, in ``paging``."""
    return Rule(lambda _: None, schema)


_METADATA: Final = _described(pattern="^([^:,]*:[^,]*(,[^:,]*:[^,]*)*)?$")
_CURSOR: Final = _described(format="uuid")


@attrs.frozen(kw_only=True)
class ListQuery:
    """Filters and paging of task lists: by ``page`` and ``size``, or by ``cursor`` and ``limit``."""

    status: Status | None = None
    name: str | None = None
    priority: Annotated[int, between(-100, 100)] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Annotated[str, _METADATA] | None = None
    page: Annotated[int, between(1, 1_000_000)] | None = None
    size: Annotated[int, between(1, 250)] | None = None
    cursor: Annotated[str, _CURSOR] | None = None
    limit: Annotated[int, between(1, 250)] | None = None


@attrs.frozen(kw_only=True)
class CancelQuery:
    """How to cancel."""

    in_flight: bool = False


@attrs.frozen(kw_only=True)
class EventsQuery:
    """Which events to stream."""

    after: Annotated[int, between(0, 2**62)] | None = None
    task_id: Annotated[str, text(1, 5000)] | None = None  # several separated by commas
    status: Annotated[str, text(1, 200)] | None = None
    name: Annotated[str, text(1, 5000)] | None = None
    snapshot: bool = False


# -- bodies that go out ----------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class TaskAccepted:
    """A task was accepted and is durable."""

    task_id: str
    status: Status
    created_at: datetime


@attrs.frozen(kw_only=True)
class BatchAccepted:
    """All tasks of a batch were accepted, in the order given."""

    tasks: list[TaskAccepted]


@attrs.frozen(kw_only=True)
class TaskDequeued:
    """A task leased to the client that dequeued it."""

    task_id: str
    name: str
    status: Status
    callback_url: str
    payload: Json
    lease_expires_at: datetime | None


@attrs.frozen(kw_only=True)
class TaskState:
    """Where a task stands."""

    task_id: str
    status: Status
    executed_at: datetime | None
    callback_result: CallbackResult | None


@attrs.frozen(kw_only=True)
class TaskView:
    """Everything known of a task. The values of its headers are not shown: each is ``***``."""

    task_id: str
    name: str
    status: Status
    version: int
    created_at: datetime
    updated_at: datetime
    callback_url: str
    description: str | None
    payload: Json
    priority: int
    dispatch: Dispatch | None
    run_at: datetime | None
    deadline: datetime | None
    timeout_s: float
    retry_policy: RetryPolicy
    method: Method
    headers: dict[str, str]
    metadata: dict[str, str]
    partition_key: str | None
    attempt: int
    attempts_used: int
    next_attempt_at: datetime | None
    planned_attempts: list[PlannedAttempt]
    lease_expires_at: datetime | None
    executed_at: datetime | None
    completed_at: datetime | None
    archived_at: datetime | None
    callback_result: CallbackResult | None
    reason: str | None


@attrs.frozen(kw_only=True)
class TaskPage:
    """A page of tasks, newest first. ``page`` is absent when paging by cursor."""

    tasks: list[TaskView]
    total_count: int
    page: int | None
    page_size: int
    next_cursor: str | None


@attrs.frozen(kw_only=True)
class ArchivedTask:
    """A finished task."""

    task_id: str
    name: str
    final_status: Status
    created_at: datetime
    completed_at: datetime | None
    archived_at: datetime | None
    attempt: int
    callback_url: str
    callback_result: CallbackResult | None
    reason: str | None


@attrs.frozen(kw_only=True)
class ArchivePage:
    """A page of finished tasks, newest first."""

    tasks: list[ArchivedTask]
    total_count: int
    page: int | None
    page_size: int
    next_cursor: str | None


@attrs.frozen(kw_only=True)
class AttemptList:
    """The attempts of a task, first one first."""

    attempts: list[Attempt]


@attrs.frozen(kw_only=True)
class EventView:
    """One change of status."""

    seq: int
    at: datetime
    task_id: str
    name: str
    from_: Status | None
    to: Status
    attempt: int
    reason: str | None
    callback_result: CallbackResult | None


@attrs.frozen(kw_only=True)
class EventList:
    """The history of a task, first event first."""

    events: list[EventView]


@attrs.frozen(kw_only=True)
class Redriven:
    """Which tasks got another round."""

    redriven: int
    task_ids: list[str]


@attrs.frozen(kw_only=True)
class ExplanationView:
    """Why a task is not running."""

    task_id: str
    status: Status
    cause: str
    sentence: str
    facts: dict[str, Any]


@attrs.frozen(kw_only=True)
class DestinationView:
    """How a destination of callbacks does. ``limit``: it is held to so many at once; ``slow``: of
    its recent attempts and those in flight. Attempts and failures are those of the last minute."""

    destination: str
    breaker: BreakerState
    limit: int | None
    in_flight: int
    attempts: int
    failures: int
    slow: int
    open_until: datetime | None
    last_error: str | None


@attrs.frozen(kw_only=True)
class StatsView:
    """How the engine does."""

    counts: dict[str, int]
    queue_depth: int
    oldest_waiting_s: float | None
    executors: int
    executors_busy: int
    attempts: int
    attempts_by_outcome: dict[str, int]
    attempt_latency: Latency
    success_rate: float | None
    destinations: list[DestinationView]
    destinations_total: int
    destinations_held: int
    breakers_open: int
    breakers_half_open: int
    breaker_openings: int
    late_results: int
    commits: int
    watchers: int
    newest_event: int


@attrs.frozen(kw_only=True)
class UnversionedAccepted:
    """A task was accepted (unversioned dialect)."""

    task_id: str
    status: str


@attrs.frozen(kw_only=True)
class UnversionedDequeued:
    """A dequeued task (unversioned dialect)."""

    task_id: str
    task_data: Json
    callback_url: str
    status: str


@attrs.frozen(kw_only=True)
class UnversionedExecuted:
    """What came of an execution (unversioned dialect)."""

    task_id: str
    status: str
    result: CallbackResult | None
    error: str | None


@attrs.frozen(kw_only=True)
class UnversionedView:
    """A task (unversioned dialect)."""

    task_id: str
    status: str
    task_data: Json
    callback_url: str
    created_at: datetime
    updated_at: datetime
    result: CallbackResult | None
