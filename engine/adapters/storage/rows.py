"""Records as rows, and back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from engine.adapters.codec import (
    decode_receipts,
    decode_result,
    decode_spec,
    encode_receipts,
    encode_result,
)
from engine.core.commands import IdempotencyKey, StoredAnswer
from engine.core.destination import destination_of
from engine.core.lifecycle import ENDED
from engine.core.task import Attempt, Event, Lane, Status, Task, Wait

from .schema import archive, task as live

Values: TypeAlias = dict[str, Any]

TASK_COLUMNS = tuple(column.name for column in live.columns if column.name in archive.c)
"""The order in which ``task_from`` takes a row; an archived one has ``archived_at`` behind."""

HOLDS = "holds"
BLOCKED = "blocked"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_STATUS = {status.value: status for status in Status}
_LANE: dict[str | None, Lane | None] = {None: None, **{lane.value: lane for lane in Lane}}
_WAIT: dict[str | None, Wait | None] = {None: None, **{wait.value: wait for wait in Wait}}


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """The time so many microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=value)


def _moment(value: int | None) -> datetime | None:
    return None if value is None else _EPOCH + timedelta(microseconds=value)


def turn_of(task: Task) -> str | None:
    """What the task is to its partition key."""
    if task.spec.partition_key is None or task.status in ENDED:
        return None
    return BLOCKED if task.wait is Wait.BLOCKED else HOLDS


def state_values(task: Task) -> Values:
    """The columns that change while the spec stays as it is."""
    return {
        "status": task.status.value,
        "version": task.version,
        "updated_at": micros(task.updated_at),
        "due_at": micros(task.due_at),
        "rank": task.rank,
        "lane": task.lane and task.lane.value,
        "wait": task.wait and task.wait.value,
        "turn": turn_of(task),
        "attempt": task.attempt,
        "failures": task.failures,
        "recoveries": task.recoveries,
        "owner": task.owner,
        "expires_at": _micros(task.expires_at),
        "executed_at": _micros(task.executed_at),
        "completed_at": _micros(task.completed_at),
        "result": encode_result(task.result),
        "reason": task.reason,
    }


def task_values(task: Task, spec_text: str) -> Values:
    """Every column that live and archived tasks have."""
    values = state_values(task)
    values["id"] = task.id
    values["created_at"] = micros(task.created_at)
    return values | spec_values(task, spec_text)


def spec_values(task: Task, spec_text: str) -> Values:
    """The columns that come from the spec."""
    spec = task.spec
    return {
        "name": spec.name,
        "priority": spec.priority,
        "partition_key": spec.partition_key,
        "spec": spec_text,
    }


def live_values(task: Task) -> Values:
    """What a live task has beyond an archived one: it follows from the spec, and is searched for."""
    return {"destination": destination_of(task.spec.callback_url)}


def archived_values(task: Task) -> Values:
    """What an archived task has beyond a live one."""
    return {"archived_at": _micros(task.archived_at)}


def task_from(row: Sequence[Any]) -> Task:
    """The task of a row of ``TASK_COLUMNS``."""
    return Task(
        id=row[0],
        spec=decode_spec(row[4], row[1], row[2], row[3]),
        status=_STATUS[row[5]],
        version=row[6],
        created_at=moment(row[7]),
        updated_at=moment(row[8]),
        due_at=moment(row[9]),
        rank=row[10],
        lane=_LANE[row[11]],
        wait=_WAIT[row[12]],  # 13 is the turn, which follows from the rest
        attempt=row[14],
        failures=row[15],
        recoveries=row[16],
        owner=row[17],
        expires_at=_moment(row[18]),
        executed_at=_moment(row[19]),
        completed_at=_moment(row[20]),
        result=decode_result(row[21]),
        reason=row[22],
        archived_at=_moment(row[23]) if len(row) > 23 else None,
    )


def event_values(event: Event, seq: int) -> Values:
    """The columns of an event."""
    return {
        "seq": seq,
        "at": micros(event.at),
        "task_id": event.task_id,
        "name": event.name,
        "from_status": event.from_status and event.from_status.value,
        "to_status": event.to_status.value,
        "attempt": event.attempt,
        "reason": event.reason,
        "result": encode_result(event.result),
    }


def event_from(row: Sequence[Any]) -> Event:
    """The event of a row, columns as in the table."""
    seq, at, task_id, name, from_status, to_status, attempt, reason, result = row
    return Event(
        seq=seq,
        at=moment(at),
        task_id=task_id,
        name=name,
        from_status=None if from_status is None else _STATUS[from_status],
        to_status=_STATUS[to_status],
        attempt=attempt,
        reason=reason,
        result=decode_result(result),
    )


def attempt_values(attempt: Attempt) -> Values:
    """The columns of an attempt."""
    return {
        "task_id": attempt.task_id,
        "number": attempt.number,
        "started_at": micros(attempt.started_at),
        "finished_at": micros(attempt.finished_at),
        "duration_s": attempt.duration_s,
        "method": attempt.method,
        "url": attempt.url,
        "counted": attempt.counted,
        "result": encode_result(attempt.result),
    }


def attempt_from(row: Sequence[Any]) -> Attempt:
    """The attempt of a row, columns as in the table."""
    task_id, number, started_at, finished_at, duration_s, method, url, counted, result = row
    found = decode_result(result)
    assert found is not None  # noqa: S101  # the column is NOT NULL
    return Attempt(
        task_id=task_id,
        number=number,
        started_at=moment(started_at),
        finished_at=moment(finished_at),
        duration_s=duration_s,
        method=method,
        url=url,
        counted=bool(counted),
        result=found,
    )


def answer_values(answer: StoredAnswer) -> Values:
    """The columns of an answer."""
    return {
        "hash": answer.key.hash,
        "fingerprint": answer.key.fingerprint,
        "receipts": encode_receipts(answer.receipts),
        "created_at": micros(answer.created_at),
    }


def answer_from(row: Sequence[Any]) -> StoredAnswer:
    """The answer of a row, columns as in the table."""
    key_hash, fingerprint, receipts, created_at = row
    key = IdempotencyKey(key_hash, fingerprint)
    return StoredAnswer(key, decode_receipts(receipts), moment(created_at))
