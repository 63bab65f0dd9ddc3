"""Errors as RFC 9457 problem details: one table from the engine's errors to HTTP."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import attrs

from engine.core.redact import masked
from engine.errors import (
    ClaimLost,
    CursorExpired,
    EngineError,
    EngineStopping,
    IdempotencyConflict,
    IllegalTransition,
    InvalidTask,
    NotTakeable,
    Overloaded,
    QueueEmpty,
    StoreError,
    StoreFull,
    StoreRejected,
    StoreUnavailable,
    TaskDamaged,
    TaskNotFound,
    VersionMismatch,
    WatcherLagged,
)

from .naming import camel, pointer

TYPE_PREFIX = "urn:ringback:problem:"


@attrs.frozen(kw_only=True)
class FieldProblem:
    """What is wrong with one field. ``pointer`` is a JSON Pointer (RFC 6901) into the body, or
    the name of a query parameter or header."""

    pointer: str
    detail: str


@attrs.define(kw_only=True)
class Problem(Exception):
    """An answer that says what went wrong and what to do next."""

    status: int
    kind: str
    detail: str
    errors: Sequence[FieldProblem] = ()
    extra: Mapping[str, Any] = attrs.field(factory=dict)
    headers: Mapping[str, str] = attrs.field(factory=dict)

    def document(self) -> dict[str, Any]:
        """The members of the problem details object."""
        document: dict[str, Any] = {
            "type": TYPE_PREFIX + self.kind,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [attrs.asdict(error) for error in self.errors]
        return document | dict(self.extra)

    def text(self) -> str:
        """The body of the answer. It repeats words of the request; people paste keys anywhere."""
        return masked(json.dumps(self.document(), ensure_ascii=False)) + "\n"


def bad_request(detail: str, errors: Sequence[FieldProblem] = ()) -> Problem:
    """The request is malformed or invalid."""
    return Problem(status=400, kind="invalid-request", detail=detail, errors=errors)


_KINDS: tuple[tuple[type[EngineError], int, str], ...] = (
    (TaskNotFound, 404, "task-not-found"),
    (QueueEmpty, 404, "queue-empty"),
    (IllegalTransition, 409, "illegal-transition"),
    (NotTakeable, 409, "not-takeable"),
    (ClaimLost, 409, "claim-lost"),
    (VersionMismatch, 412, "version-mismatch"),
    (IdempotencyConflict, 422, "idempotency-conflict"),
    (CursorExpired, 410, "cursor-expired"),
    (WatcherLagged, 503, "watcher-lagged"),
    (EngineStopping, 503, "stopping"),
    (Overloaded, 503, "overloaded"),
    (StoreFull, 507, "store-full"),
    (StoreUnavailable, 503, "store-unavailable"),
    (StoreRejected, 400, "invalid-request"),
    (TaskDamaged, 500, "task-damaged"),
    (StoreError, 500, "internal-error"),
)


_INTERNAL = {
    "internal-error": "something went wrong in the store; the server's log says what",
    "task-damaged": "what is stored of this task is damaged, so it does not run; the server's log "
    "says what was found. Restore the database from a backup",
}
"""What is said instead of the error, which tells of files."""


def problem_of(error: EngineError) -> Problem:
    """The problem an engine error is shown as."""
    if isinstance(error, InvalidTask):
        return invalid([(pointer(map(camel_part, path)), text) for path, text in error.problems])
    status, kind = next((s, k) for cls, s, k in _KINDS if isinstance(error, cls))
    detail = _INTERNAL.get(kind) or str(error)
    problem = Problem(status=status, kind=kind, detail=detail)
    match error:
        case IllegalTransition():
            problem.extra = {"currentStatus": error.status, "allowed": list(error.allowed)}
        case VersionMismatch():
            problem.extra = {"currentVersion": error.actual}
        case Overloaded():
            problem.headers = {"Retry-After": str(math.ceil(error.retry_after_s))}
        case QueueEmpty():
            problem.headers = {"Cache-Control": "no-store"}  # a GET may ask, and a 404 be cached
        case StoreUnavailable():
            problem.headers = {"Retry-After": "5"}
        case _:
            pass
    return problem


def camel_part(part: str | int) -> str | int:
    """One step of a path as the API spells it."""
    return camel(part) if isinstance(part, str) else part


def invalid(problems: Sequence[tuple[str, str]]) -> Problem:
    """One or more fields are wrong; the detail repeats the first few for people."""
    shown = "; ".join(f"{where or 'body'}: {text}" for where, text in problems[:5])
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    errors = [FieldProblem(pointer=where, detail=text) for where, text in problems]
    return bad_request(shown + more, errors)
