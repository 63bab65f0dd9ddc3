"""``/openapi.json`` (OpenAPI 3.1), made from the operations and the types that validate them."""

from __future__ import annotations

import enum
import re
import types
from collections.abc import Iterable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import attrs

from engine.core.rules import rules_of
from engine.core.task import HOPS_MAX, NOT_IN_BODIES

from .auth import Scope
from .naming import spelled
from .problems import TYPE_PREFIX
from .router import EventStream, Operation
from .structuring import BODY

_PRIMITIVES: Mapping[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer", "format": "int64"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
    type(None): {"type": "null"},
    Any: {},
}

_HEADERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Idempotency-Key": (
        "The same key with the same body gives the first answer again, for 24 hours.",
        {"type": "string", "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    ),
    "X-Task-Hops": (
        f"As the callback that led to this request carried it; at most {HOPS_MAX}.",
        {"type": "integer", "minimum": 0, "maximum": HOPS_MAX},
    ),
    "Prefer": ("wait=SECONDS, or respond-async (RFC 7240).", {"type": "string"}),
    "Last-Event-ID": (
        "Resume after the event with this id; goes before the parameter after.",
        {"type": "string"},
    ),
    "If-Match": (
        "The ETag the task must still have.",
        {"type": "string", "pattern": r'^(\*|"?[0-9]{1,18}"?)$'},
    ),
}

_PROBLEM = {
    "type": "object",
    "description": "What went wrong and what to do next (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri", "examples": [TYPE_PREFIX + "task-not-found"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "currentStatus": {"type": "string"},
        "allowed": {"type": "array", "items": {"type": "string"}},
        "currentVersion": {"type": "integer"},
    },
}


_SECURITY = {
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "rbk_ID_SECRET",
        "description": "An API key, as `ringback keys new` makes them. Each operation names the "
        f"scope that it needs; {' < '.join(scope.spelled for scope in Scope if scope)}, and each "
        "includes those before it. A server that has no keys, which it can only do on loopback "
        "unless it is told that this is meant, takes requests without one.",
    }
}


class _Schemas:
    """Collects the schemas of types, each once."""

    def __init__(self) -> None:
        self.components: dict[str, Any] = {"Problem": _PROBLEM}

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of a type; attrs classes by reference."""
        origin, args = get_origin(kind), get_args(kind)
        if origin is Annotated:
            schema = self.of(args[0])
            for rule in rules_of(kind):
                schema = {**schema, **rule.schema}
            return schema
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.of(part) for part in args]}
        if origin is list:
            return {"type": "array", "items": self.of(args[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(args[1])}
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return {"type": "string", "enum": [member.value for member in kind]}
        if isinstance(kind, type) and attrs.has(kind):
            return self._reference(kind)
        return dict(_PRIMITIVES[kind])

    def _reference(self, cls: type) -> dict[str, Any]:
        name = cls.__name__
        if name not in self.components:
            self.components[name] = {}  # a placeholder, should it refer to itself
            self.components[name] = self._object(cls)
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, cls: Any) -> dict[str, Any]:
        hints = get_type_hints(cls, include_extras=True)
        properties: dict[str, Any] = {}
        required: list[str] = []
        for field in attrs.fields(cls):
            if NOT_IN_BODIES in field.metadata:
                continue
            schema = self.of(hints[field.name])
            if field.default is attrs.NOTHING:
                required.append(spelled(field.name))
            elif "absent" in field.metadata:
                pass
            elif field.default is not None and not isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
                schema = {**schema, "default": BODY.unstructure(field.default)}
            properties[spelled(field.name)] = schema
        return {
            "type": "object",
            "description": (cls.__doc__ or "").split("\n\n")[0].replace("\n", " "),
            "properties": properties,
            **({"required": required} if required else {}),
            "additionalProperties": False,
        }


def document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """The OpenAPI document."""
    schemas = _Schemas()
    paths: dict[str, dict[str, Any]] = {}
    offered = list(operations)
    for operation in offered:
        described = _operation(operation, schemas)
        for status, kind in operation.answers.items():
            if kind is not None and attrs.has(kind) and "task_id" in attrs.fields_dict(kind):
                described["responses"][str(status)]["links"] = _links(operation, offered)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ringback",
            "version": version,
            "description": "A task engine that works by HTTP callback.",
        },
        "paths": paths,
        "components": {"schemas": schemas.components, "securitySchemes": _SECURITY},
    }


def _operation(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    result: dict[str, Any] = {
        "operationId": _name(operation),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [*_path_parameters(operation), *_others(operation, schemas)],
        "responses": _responses(operation, schemas),
        # Either a key with this scope, or none at all, as a server without keys wants none.
        "security": [{"apiKey": [operation.needs.spelled]}, {}] if operation.needs else [],
    }
    if operation.body is not None:
        result["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": schemas.of(operation.body)}},
        }
    return result


def _name(operation: Operation) -> str:
    return operation.handler.__name__ + ("_unversioned" if _is_unversioned(operation) else "")


def _is_unversioned(operation: Operation) -> bool:
    return "/api/tasks" in operation.path


def _links(operation: Operation, others: Iterable[Operation]) -> dict[str, Any]:
    """What can be done next with the task that this operation's answer names."""
    return {
        _name(other): {
            "operationId": _name(other),
            "parameters": {"id": "$response.body#/taskId"},
            "description": other.summary,
        }
        for other in others
        if "{id}" in other.path and _is_unversioned(other) is _is_unversioned(operation)
    }


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "format": "uuid"},
        }
        for name in re.findall(r"{(\w+)}", operation.path)
    ]


def _others(operation: Operation, schemas: _Schemas) -> list[dict[str, Any]]:
    parameters = [
        {"name": name, "in": "header", "description": text, "schema": schema}
        for name, (text, schema) in _HEADERS.items()
        if name in operation.headers
    ]
    if operation.query is not None:
        hints = get_type_hints(operation.query, include_extras=True)
        parameters += [
            {
                "name": spelled(field.name),
                "in": "query",
                "schema": schemas.of(_without_none(hints[field.name])),
            }
            for field in attrs.fields(operation.query)
        ]
    return parameters


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        return next(part for part in get_args(kind) if part is not type(None))
    return kind


def _door_problems(operation: Operation) -> Iterable[int]:
    """What any operation like this may be refused for before it is looked at."""
    yield from (400, 421)
    if operation.needs:
        yield from (401, 403, 429)
    if operation.method != "GET":
        yield 415
    if not operation.always:
        yield 503


def _responses(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, kind in operation.answers.items():
        answer: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if kind is str:
            answer["content"] = {"text/plain": {"schema": {"type": "string"}}}
        elif kind is EventStream:
            answer["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
        elif kind is dict:
            answer["content"] = {"application/json": {"schema": {"type": "object"}}}
        elif kind is not None:
            answer["content"] = {"application/json": {"schema": schemas.of(kind)}}
        responses[str(status)] = answer
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status in sorted({*operation.problems, *_door_problems(operation)}):
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": problem}
    return responses
