"""From the engine's records to what the API shows."""

from __future__ import annotations

from datetime import datetime, timedelta

import attrs

from engine import (
    Event,
    Stats,
    Status,
    Task,
    TaskSpec,
)
from engine.core.destinations import DestinationFigures
from engine.core.redact import MASK
from engine.core.retry import planned_attempts
from engine.core.task import NOT_IN_BODIES

from .schemas import ArchivedTask, DestinationView, EventView, StatsView, TaskState, TaskView


def task_view(task: Task) -> TaskView:
    """Everything known of a task."""
    spec = task.spec
    waits_for_attempt = task.status is Status.RETRYING
    return TaskView(
        task_id=task.id,
        status=task.status,
        version=task.version,
        created_at=task.created_at,
        updated_at=task.updated_at,
        run_at=spec.run_at
        or (task.due_at if spec.delay_s is not None and not task.attempt else None),
        attempt=task.attempt,
        attempts_used=task.failures,
        next_attempt_at=task.due_at if waits_for_attempt else None,
        planned_attempts=planned_attempts(task),
        lease_expires_at=task.expires_at
        if task.status in (Status.PENDING, Status.PROCESSING)
        else None,
        executed_at=task.executed_at,
        completed_at=task.completed_at,
        archived_at=task.archived_at,
        callback_result=task.result,
        reason=task.reason,
        headers=dict.fromkeys(spec.headers, MASK),  # the values may be credentials
        **{name: getattr(spec, name) for name in _SPEC_FIELDS},
    )


_SPEC_FIELDS = tuple(
    field.name
    for field in attrs.fields(TaskSpec)
    if field.name not in ("run_at", "delay_s", "headers") and NOT_IN_BODIES not in field.metadata
)


def archived_view(task: Task) -> ArchivedTask:
    """A finished task."""
    return ArchivedTask(
        task_id=task.id,
        name=task.spec.name,
        final_status=task.status,
        created_at=task.created_at,
        completed_at=task.completed_at,
        archived_at=task.archived_at,
        attempt=task.attempt,
        callback_url=task.spec.callback_url,
        callback_result=task.result,
        reason=task.reason,
    )


def event_view(event: Event) -> EventView:
    """One change of status."""
    return EventView(
        seq=event.seq,
        at=event.at,
        task_id=event.task_id,
        name=event.name,
        from_=event.from_status,
        to=event.to_status,
        attempt=event.attempt,
        reason=event.reason,
        callback_result=event.result,
    )


def state_view(task: Task) -> TaskState:
    """Where a task stands."""
    return TaskState(
        task_id=task.id,
        status=task.status,
        executed_at=task.executed_at,
        callback_result=task.result,
    )


def _destination_view(figures: DestinationFigures, at: datetime) -> DestinationView:
    open_for_s = figures.open_for_s
    return DestinationView(
        destination=figures.destination,
        breaker=figures.breaker,
        limit=figures.limit,
        in_flight=figures.in_flight,
        attempts=figures.attempts,
        failures=figures.failures,
        slow=figures.slow,
        open_until=None if open_for_s is None else at + timedelta(seconds=open_for_s),
        last_error=figures.last_error,
    )


def stats_view(stats: Stats) -> StatsView:
    """How the engine does."""
    attempts, destinations = stats.attempts, stats.destinations
    return StatsView(
        counts={str(status): count for status, count in stats.counts.items()},
        queue_depth=stats.queue_depth,
        oldest_waiting_s=stats.oldest_waiting_s,
        executors=stats.executors,
        executors_busy=stats.executors_busy,
        attempts=attempts.total,
        attempts_by_outcome=attempts.by_outcome,
        attempt_latency=attempts.latency,
        success_rate=attempts.success_rate,
        destinations=[_destination_view(one, stats.at) for one in destinations.worst],
        destinations_total=destinations.known,
        destinations_held=destinations.held,
        breakers_open=destinations.open,
        breakers_half_open=destinations.half_open,
        breaker_openings=destinations.openings,
        late_results=stats.late_results,
        commits=stats.commits,
        watchers=stats.watchers,
        newest_event=stats.newest_event,
    )
