"""Records as rows, and back."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache, wraps
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar

from engine.adapters.codec import (
    decode_receipts,
    decode_result,
    decode_spec,
    encode_receipts,
    encode_result,
    encode_spec,
)
from engine.core.commands import IdempotencyKey, StoredAnswer
from engine.core.lifecycle import ENDED
from engine.core.suspects import queued_for
from engine.core.task import Attempt, CallbackResult, Event, Lane, Status, Task, TaskSpec, Wait
from engine.errors import StoreDamaged, StoreRejected, TaskDamaged

from .schema import archive, task as live

Row: TypeAlias = tuple[Any, ...]
T = TypeVar("T")

SEAL = "seal"
TASK_COLUMNS = tuple(one.name for one in live.columns if one.name in archive.c and one.name != SEAL)
"""What live and archived tasks have in common."""

READ_COLUMNS = (*TASK_COLUMNS, SEAL, "destination", "archived_at")
"""The order in which ``task_from`` takes a row. Of the last two, one is always NULL."""

_FIXED = ("id", "name", "priority", "partition_key", "spec", "created_at")
_CHANGING = tuple(n for n, name in enumerate(TASK_COLUMNS) if name not in _FIXED)
_changing = itemgetter(*_CHANGING)
CHANGED_COLUMNS = (*_changing(TASK_COLUMNS), "destination", SEAL)
"""What changes while the spec stays as it is."""

_UNSEALED = ("id", "spec", "result", "wait", "turn")
"""The first is written differently by dialects and stands in every index, the next two have a seal
of their own, ``wait`` is also changed by SQL alone, and ``turn`` is never read."""
_sealed_values = itemgetter(
    *(n for n, name in enumerate(TASK_COLUMNS) if name not in _UNSEALED),
)

_TEXT_SEAL = '"crc32":"'
"""The last member of a text, with the checksum of the text without it: databases do not notice a
flipped bit in a URL or a payload."""

HOLDS = "holds"
BLOCKED = "blocked"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_STATUS = {status.value: status for status in Status}
_TEXT: dict[object, str | None] = {
    None: None,
    **{member: member.value for kind in (Status, Lane, Wait) for member in kind},
}
"""Plain strings: drivers take long to look through what only derives from them."""
_LANE: dict[str | None, Lane | None] = {None: None, **{lane.value: lane for lane in Lane}}
_WAIT: dict[str | None, Wait | None] = {None: None, **{wait.value: wait for wait in Wait}}


def _damage_named(read: Callable[[Sequence[Any]], T]) -> Callable[[Sequence[Any]], T]:
    """Whoever reads a row that we cannot have written is told which."""

    @wraps(read)
    def read_or_refuse(row: Sequence[Any]) -> T:
        try:
            return read(row)
        except Exception as error:  # whatever a damaged byte leads to
            raise StoreDamaged(f"the row of {row[0]!r} cannot be read: {error!r}") from error

    return read_or_refuse


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    if moment.tzinfo is not UTC:  # of two that are equal, one may be an hour later: see its fold
        return (moment - _EPOCH) // _MICROSECOND
    return _micros_of_utc(moment)


@lru_cache(maxsize=1024)  # one moment is in many columns
def _micros_of_utc(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """The time so many microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=value)


def _moment(value: int | None) -> datetime | None:
    return None if value is None else _EPOCH + timedelta(microseconds=value)


def spec_text(spec: TaskSpec) -> str:
    """The column of a spec."""
    return _sealed_text(encode_spec(spec))


def result_text(result: CallbackResult | None) -> str | None:
    """The column of a result."""
    text = encode_result(result)
    return None if text is None else _sealed_text(text)


def _sealed_text(text: str) -> str:
    comma = "," if len(text) > len("{}") else ""
    try:
        checksum = zlib.crc32(text.encode())
    except UnicodeEncodeError as error:
        raise StoreRejected(str(error)) from error
    return f'{text[:-1]}{comma}{_TEXT_SEAL}{checksum:08x}"}}'


def _intact(text: str) -> str:
    """The text; raises ``ValueError`` if it is not as it was written. Earlier versions wrote none
    of our checksums."""
    if text[-19:-10] == _TEXT_SEAL:
        content = text[:-19].removesuffix(",").encode()
        if f"{zlib.crc32(b'}', zlib.crc32(content)):08x}" != text[-10:-2]:
            raise ValueError("its checksum is wrong")
    return text


def turn_of(task: Task) -> str | None:
    """What the task is to its partition key."""
    if task.spec.partition_key is None or task.status in ENDED:
        return None
    return BLOCKED if task.wait is Wait.BLOCKED else HOLDS


def _seal_of(row: Sequence[Any], destination: str | None, archived_at: int | None) -> int:
    """The checksum of a row that begins with ``TASK_COLUMNS``, to be kept beside it: most databases
    notice a flipped bit in an index at best."""
    return zlib.crc32(ascii((_sealed_values(row), destination, archived_at)).encode())


def task_row(task: Task, spec: str, result: str | None) -> Row:
    """The columns that live and archived tasks have: ``TASK_COLUMNS``. The texts are given."""
    described = task.spec
    return (
        task.id,
        described.name,
        described.priority,
        described.partition_key,
        spec,
        _TEXT[task.status],
        task.version,
        micros(task.created_at),
        micros(task.updated_at),
        micros(task.due_at),
        task.rank,
        _TEXT[task.lane],
        _TEXT[task.wait],
        turn_of(task),
        task.attempt,
        task.failures,
        task.recoveries,
        task.owner,
        None if task.expires_at is None else micros(task.expires_at),
        None if task.executed_at is None else micros(task.executed_at),
        None if task.completed_at is None else micros(task.completed_at),
        result,
        task.reason,
    )


def changed_row(task: Task, result: str | None) -> Row:
    """What an update writes: ``CHANGED_COLUMNS``. A task may become a suspect, or cease to be."""
    row = task_row(task, "", result)
    destination = queued_for(task)
    return (*_changing(row), destination, _seal_of(row, destination, None))


def live_row(task: Task, spec: str, result: str | None) -> Row:
    """The columns of a live task. Its destination follows from the spec, and is searched for."""
    row = task_row(task, spec, result)
    destination = queued_for(task)
    return (*row, destination, _seal_of(row, destination, None))


def archived_row(task: Task, spec: str, result: str | None) -> Row:
    """The columns of an archived task."""
    row = task_row(task, spec, result)
    archived_at = None if task.archived_at is None else micros(task.archived_at)
    return (*row, archived_at, _seal_of(row, None, archived_at))


def _result_from(text: str | None) -> CallbackResult | None:
    return None if text is None else decode_result(_intact(text))


def task_from(row: Sequence[Any]) -> Task:
    """The task of a row of ``READ_COLUMNS``; raises ``TaskDamaged``."""
    try:
        return _task_from(row)
    except StoreDamaged as damaged:
        raise TaskDamaged(str(row[0]), str(damaged)) from damaged


@_damage_named
def _task_from(row: Sequence[Any]) -> Task:
    """Earlier versions wrote no seal."""
    seal, destination, archived_at = row[23:]
    if seal is not None and seal != _seal_of(row, destination, archived_at):
        raise ValueError("its checksum is wrong")
    return Task(
        id=row[0],
        spec=decode_spec(_intact(row[4]), row[1], row[2], row[3]),
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
        result=_result_from(row[21]),
        reason=row[22],
        archived_at=_moment(archived_at),
    )


def event_row(event: Event, seq: int, result: str | None) -> Row:
    """The columns of an event. The text of its result is given."""
    return (
        seq,
        micros(event.at),
        event.task_id,
        event.name,
        _TEXT[event.from_status],
        _TEXT[event.to_status],
        event.attempt,
        event.reason,
        result,
    )


@_damage_named
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
        result=_result_from(result),
    )


def attempt_row(attempt: Attempt, result: str | None) -> Row:
    """The columns of an attempt. The text of its result is given."""
    return (
        attempt.task_id,
        attempt.number,
        micros(attempt.started_at),
        micros(attempt.finished_at),
        attempt.duration_s,
        str(attempt.method),
        attempt.url,
        attempt.counted,
        result,
    )


@_damage_named
def attempt_from(row: Sequence[Any]) -> Attempt:
    """The attempt of a row, columns as in the table."""
    task_id, number, started_at, finished_at, duration_s, method, url, counted, result = row
    found = _result_from(result)
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


def answer_row(answer: StoredAnswer) -> Row:
    """The columns of an answer."""
    return (
        answer.key.hash,
        answer.key.fingerprint,
        encode_receipts(answer.receipts),
        micros(answer.created_at),
    )


@_damage_named
def answer_from(row: Sequence[Any]) -> StoredAnswer:
    """The answer of a row, columns as in the table."""
    key_hash, fingerprint, receipts, created_at = row
    if not receipts.isascii():
        raise ValueError("it was written in ASCII")
    key = IdempotencyKey(key_hash, fingerprint)
    return StoredAnswer(key, decode_receipts(receipts), moment(created_at))
