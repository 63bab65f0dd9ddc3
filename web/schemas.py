"""What the API takes and gives, as types. They validate, render, and make ``/openapi.json``."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.v import format_exception as cattrs_text

from engine import (
    Attempt,
    CallbackResult,
    Dispatch,
    ErrorClass,
    Event,
    Method,
    RetryPolicy,
    Status,
    Task,
    TaskSpec,
)
from engine.core.rules import HTTP_URL, between, rules_of, text
from engine.core.task import Json
from engine.core.times import parse_rfc3339, rfc3339

from .naming import camel, pointer

T = TypeVar("T")
_INTEGER = re.compile(r"-?[0-9]{1,19}")

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

    task_ids: list[str] = attrs.field(factory=list)
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


@attrs.frozen(kw_only=True)
class ListQuery:
    """Filters and paging of task lists: by ``page`` and ``size``, or by ``cursor`` and ``limit``."""

    status: Status | None = None
    name: str | None = None
    priority: Annotated[int, between(-100, 100)] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: str | None = None  # key:value, several separated by commas
    page: Annotated[int, between(1, 1_000_000)] | None = None
    size: Annotated[int, between(1, 250)] | None = None
    cursor: Annotated[str, text(1, 100)] | None = None
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
    """Everything known of a task."""

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
class LatencyView:
    """Seconds; null as long as nothing was measured."""

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


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
    attempt_latency: LatencyView
    success_rate: float | None
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


# -- the converter ---------------------------------------------------------------------------


class Invalid(ValueError):
    """Values that break rules: ``(pointer, what is wrong)`` for each."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{where or 'all of it'} {text}" for where, text in problems))


def spelled(name: str) -> str:
    """An attribute's name in the API."""
    return "from" if name == "from_" else camel(name)


def _exactly(kind: type, wanted: str) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is kind or (kind is float and type(value) is int):
            return value
        raise ValueError(f"must be {wanted}")

    return structure


def _moment(value: Any, _: Any) -> datetime:
    if not isinstance(value, str):
        raise ValueError("must be text, a date and time such as 2026-01-02T03:04:05Z")  # noqa: TRY004
    return parse_rfc3339(value)


def _choice(value: Any, kind: Any) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"must be one of {', '.join(kind)}") from None


def _string_map(value: Any, _: Any) -> dict[str, str]:
    if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return value
    raise ValueError("must be an object whose values are all text")


def _make_converter(*, from_text: bool) -> cattrs.Converter:
    """``from_text``: values come as text, from a query string."""
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    strict: list[tuple[type, str]] = [
        (str, "text"), (int, "an integer"), (float, "a number"), (bool, "true or false")
    ]  # fmt: skip
    for kind, wanted in strict:
        converter.register_structure_hook(
            kind, _parsed(kind, wanted) if from_text else _exactly(kind, wanted)
        )
    converter.register_structure_hook(datetime, _moment)
    converter.register_unstructure_hook(datetime, rfc3339)
    converter.register_structure_hook_func(lambda kind: kind == dict[str, str], _string_map)
    converter.register_structure_hook_factory(
        _is_list,
        lambda kind: _listed(converter, kind),
    )
    for choice in (Status, Dispatch, Method, ErrorClass):
        converter.register_structure_hook(choice, _choice)
    converter.register_structure_hook_factory(
        _has_rules,
        lambda kind: _ruled(converter, kind),
    )
    converter.register_structure_hook_factory(attrs.has, lambda cls: _structured(converter, cls))
    converter.register_unstructure_hook_factory(
        attrs.has,
        lambda cls: make_dict_unstructure_fn(cls, converter, **_spellings(cls)),
    )
    return converter


def _has_rules(kind: Any) -> bool:
    return get_origin(kind) is Annotated and bool(rules_of(kind))


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is list


def _spellings(cls: Any) -> dict[str, Any]:
    return {field.name: override(rename=spelled(field.name)) for field in attrs.fields(cls)}


def _parsed(kind: type, wanted: str) -> Callable[[Any, Any], Any]:
    words: dict[str, bool] = {"true": True, "1": True, "false": False, "0": False}

    def structure(value: str, _: Any) -> Any:
        if kind is int and not _INTEGER.fullmatch(value):  # int() would take 1_000 and ３ as well
            raise ValueError(f"must be {wanted}")
        try:
            return words[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            raise ValueError(f"must be {wanted}") from None

    return structure


def _ruled(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    inner, rules = get_args(kind)[0], rules_of(kind)

    def structure(value: Any, _: Any) -> Any:
        result = converter.structure(value, inner)
        for rule in rules:
            if problem := rule.broken(result):
                raise ValueError(problem)
        return result

    return structure


def _listed(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    structure = list_structure_factory(kind, converter)

    def checked(value: Any, kind: Any) -> Any:
        if not isinstance(value, list):  # texts and objects can be iterated over, too
            raise ValueError("must be a list")  # noqa: TRY004
        return structure(value, kind)

    return checked


def _structured(converter: cattrs.Converter, cls: type) -> Callable[[Any, Any], Any]:
    structure: Callable[[Any, Any], Any] = make_dict_structure_fn(cls, converter, **_spellings(cls))

    def checked(value: Any, kind: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("must be an object")  # noqa: TRY004
        return structure(value, kind)

    return checked


BODY = _make_converter(from_text=False)
QUERY = _make_converter(from_text=True)


def structure(converter: cattrs.Converter, value: Any, kind: type[T]) -> T:
    """The value as this type; raises ``Invalid`` naming every field that is wrong."""
    try:
        return converter.structure(value, kind)
    except (cattrs.BaseValidationError, ValueError) as error:
        raise Invalid([(pointer(path), text) for path, text in _problems(error, ())]) from None


def _problems(error: BaseException, path: tuple[str | int, ...]) -> list[tuple[Any, str]]:
    """Every leaf of cattrs' tree of errors, with its path as the API spells it."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return [((*path, key), "is not a known field") for key in sorted(error.extra_fields)]
    if isinstance(error, cattrs.ClassValidationError):
        noted, bare = error.group_exceptions()
        found = [p for e, note in noted for p in _problems(e, (*path, spelled(note.name)))]
    elif isinstance(error, cattrs.IterableValidationError):
        items, bare = error.group_exceptions()
        found = [p for e, note in items for p in _problems(e, (*path, note.index))]
    elif isinstance(error, KeyError):
        return [(path, "is missing")]
    else:
        return [(path, str(error) if isinstance(error, ValueError) else cattrs_text(error, None))]
    return found + [p for e in bare for p in _problems(e, path)]


# -- from the engine's records ---------------------------------------------------------------


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
        lease_expires_at=task.expires_at
        if task.status in (Status.PENDING, Status.PROCESSING)
        else None,
        executed_at=task.executed_at,
        completed_at=task.completed_at,
        archived_at=task.archived_at,
        callback_result=task.result,
        reason=task.reason,
        **{name: getattr(spec, name) for name in _SPEC_FIELDS},
    )


_SPEC_FIELDS = tuple(
    field.name for field in attrs.fields(TaskSpec) if field.name not in ("run_at", "delay_s")
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
