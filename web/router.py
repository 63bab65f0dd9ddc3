"""Operations: what a URL takes, gives and does, declared once.

A declaration serves the request (parse, check, call, render) and describes it in
``/openapi.json``; so the two cannot differ.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

import attrs
import cattrs
from quart import Blueprint, Response, request
from quart.wrappers.response import ResponseBody
from werkzeug.exceptions import HTTPException

from engine import Engine
from engine.errors import EngineError

from . import strict_json
from .auth import KEY, VISITOR, ApiKey, Scope, authorise
from .problems import Problem, bad_request, invalid, problem_of
from .settings import WebSettings
from .structuring import BODY, QUERY, Invalid, structure

T = TypeVar("T")
_log = logging.getLogger("ringback.web")
_JSON_KINDS = ("application/json", "*/*", "application/*", "+json")


@attrs.frozen(kw_only=True)
class Call:
    """A request that has been parsed and checked."""

    engine: Engine
    settings: WebSettings
    path: Mapping[str, str]
    query: Any
    body: Any
    raw_body: bytes
    headers: Mapping[str, str]
    key_id: str  # of the API key, or nothing
    url: str
    given: frozenset[str]  # the names in the body that were given


class EventStream:
    """Stands for an answer that is a stream of server-sent events."""


@attrs.frozen(kw_only=True)
class Reply:
    """An answer: an attrs object to be shown as JSON, a text or a stream as it is, or nothing."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = attrs.field(factory=dict)


Handler = Callable[[Call], Awaitable[Reply]]


@attrs.frozen(kw_only=True)
class Operation:
    """One method of one URL."""

    method: str
    path: str  # with {names}
    handler: Handler
    summary: str
    tag: str
    needs: Scope
    body: type | None
    body_required: bool
    large_body: bool  # whether the limit for batches holds, not that for plain bodies
    query: type | None
    headers: tuple[str, ...]
    answers: Mapping[int, type | None]
    problems: tuple[int, ...]


class Router:
    """Collects operations of one part of the API."""

    def __init__(self, tag: str, prefix: str = "") -> None:
        self._tag = tag
        self._prefix = prefix
        self.operations: list[Operation] = []

    def add(
        self,
        method: str,
        path: str,
        summary: str,
        *,
        answers: Mapping[int, type | None],
        needs: Scope | None = None,
        body: type | None = None,
        body_required: bool = True,
        large_body: bool = False,
        query: type | None = None,
        headers: tuple[str, ...] = (),
        problems: tuple[int, ...] = (),
    ) -> Callable[[Handler], Handler]:
        """Declare the operation that the decorated function carries out. What an API key needs
        for it is, if not said, to read for GET and to write for others."""
        by_method = Scope.READ if method == "GET" else Scope.WRITE

        def keep(handler: Handler) -> Handler:
            self.operations.append(
                Operation(
                    method=method,
                    path=self._prefix + path,
                    handler=handler,
                    summary=summary,
                    tag=self._tag,
                    needs=by_method if needs is None else needs,
                    body=body,
                    body_required=body_required,
                    large_body=large_body,
                    query=query,
                    headers=headers,
                    answers=answers,
                    problems=problems,
                )
            )
            return handler

        return keep


def blueprint(operations: list[Operation], engine: Engine, settings: WebSettings) -> Blueprint:
    """The operations as a Quart blueprint."""
    result = Blueprint("api", __name__)
    for operation in operations:
        result.add_url_rule(
            operation.path.replace("{", "<").replace("}", ">"),
            endpoint=f"{operation.method} {operation.path}".replace(".", "_"),
            view_func=_view(operation, engine, settings),
            methods=[operation.method],
        )
    return result


def _view(
    operation: Operation, engine: Engine, settings: WebSettings
) -> Callable[..., Awaitable[Response]]:
    async def view(**path: str) -> Response:
        try:
            authorise(_key(), operation.needs)
            call = await _parse(operation, engine, settings, path)
            return _render(await operation.handler(call))
        except Problem as problem:
            return problem.response()
        except EngineError as error:
            return _problem_response(error)

    return view


def _problem_response(error: EngineError) -> Response:
    problem = problem_of(error)
    if problem.status == 500:
        _log.error("a request failed", exc_info=error)
    return problem.response()


async def _parse(
    operation: Operation, engine: Engine, settings: WebSettings, path: dict[str, str]
) -> Call:
    accept = (request.headers.get("Accept") or "*/*").lower()
    if _answers_json(operation) and not any(kind in accept for kind in _JSON_KINDS):
        raise Problem(status=406, kind="not-acceptable", detail="this API answers application/json")
    body: Any = None
    given, raw = frozenset[str](), b""
    if operation.body is not None:
        large = operation.large_body
        raw = await _read_body(settings.batch_bytes_max if large else settings.body_bytes_max)
        if raw or operation.body_required:
            document = _load(raw, settings)
            given = frozenset(document) if isinstance(document, dict) else frozenset()
            body = _structured(BODY, document, operation.body)
    elif operation.method != "GET":
        _check_unread_body()
    query = check_query(operation.query) if operation.query is not None else None
    return Call(
        engine=engine,
        settings=settings,
        path=path,
        query=query,
        body=body,
        raw_body=raw,
        headers=cast("Mapping[str, str]", request.headers),  # reads names in any case
        key_id=_key().id,
        url=request.full_path.rstrip("?"),
        given=given,
    )


def _key() -> ApiKey:
    """Whose request this is, as the door has found out; without a door nobody's."""
    return cast("ApiKey", request.scope.get(KEY, VISITOR))


def _answers_json(operation: Operation) -> bool:
    others = {None, str, EventStream}  # a page, metrics, a stream
    return not others.issuperset(operation.answers.values())


async def _read_body(most: int) -> bytes:
    too_large = Problem(
        status=413, kind="too-large", detail=f"the body must have at most {most} bytes"
    )
    if (request.content_length or 0) > most:
        raise too_large
    try:
        raw = cast("bytes", await request.get_data(cache=False, as_text=False))
    except HTTPException as error:
        if error.code == 413:
            raise too_large from None
        raise
    if len(raw) > most:
        raise too_large
    return raw


def _check_media_type() -> None:
    """JSON is UTF-8 (RFC 8259 §8.1): what names another charset would be read wrongly."""
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.mimetype != "application/json" or charset not in ("utf-8", "utf8"):
        raise Problem(
            status=415,
            kind="unsupported-media-type",
            detail="send the body with Content-Type: application/json, in UTF-8",
        )


def _check_unread_body() -> None:
    """For operations without a body: many clients send ``{}`` along, which does no harm, but what
    is not said to be JSON was meant for somebody else. It may also be empty, and chunked."""
    chunked_and_typed = request.mimetype and request.headers.get("Transfer-Encoding")
    if request.content_length or chunked_and_typed:
        _check_media_type()


def _load(raw: bytes, settings: WebSettings) -> Any:
    _check_media_type()
    try:
        return strict_json.loads(raw, settings.json_depth_max)
    except strict_json.BadJson as error:
        raise bad_request(f"the body {error}") from None


def _structured(converter: cattrs.Converter, value: Any, kind: type[T]) -> T:
    try:
        return structure(converter, value, kind)
    except Invalid as error:
        raise invalid(error.problems) from None


def check_query(kind: type[T]) -> T:
    """The query string as this type; raises a 400 that names every bad parameter."""
    return _structured(QUERY, _query_values(), kind)


def _query_values() -> dict[str, str]:
    values = request.args.to_dict(flat=False)
    twice = [(f"/{name}", "is given twice") for name, given in values.items() if len(given) > 1]
    if twice:
        raise invalid(twice)
    return {name: given[0] for name, given in values.items()}


def _render(reply: Reply) -> Response:
    headers = dict(reply.headers)
    if reply.body is None:
        empty = Response("", status=reply.status, headers=headers)
        empty.headers.pop("Content-Type", None)
        return empty
    if isinstance(reply.body, ResponseBody):
        streamed = Response(reply.body, status=reply.status, headers=headers)
        streamed.timeout = None
        return streamed
    text = reply.body if isinstance(reply.body, str) else encode(reply.body) + "\n"
    headers.setdefault("Content-Type", "application/json")
    return Response(text, status=reply.status, headers=headers)


def encode(view: Any) -> str:
    """An attrs object as the API's JSON."""
    return json.dumps(BODY.unstructure(view), ensure_ascii=False, separators=(",", ":"))
