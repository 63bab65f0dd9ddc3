"""Carries operations out: check, parse, call, render, whatever a request has come by."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import parse_qs

import cattrs
import trio
from quart.wrappers.response import ResponseBody
from werkzeug.http import parse_options_header

from engine import Engine
from engine.errors import EngineError, Overloaded

from . import strict_json
from .auth import ApiKey, authorise
from .overload import Overload
from .plain import Answer
from .problems import Problem, bad_request, invalid, problem_of
from .router import Call, EventStream, Operation, Reply
from .settings import WebSettings
from .structuring import BODY, QUERY, Invalid, structure

T = TypeVar("T")
_log = logging.getLogger("ringback.web")
_JSON = "application/json"
_JSON_KINDS = (_JSON, "*/*", "application/*", "+json")
_UTF8 = ("utf-8", "utf8")
_AS_QUART = "werkzeug.url_quote"  # what is no UTF-8 stays percent-encoded


class Request(Protocol):
    """A request for an operation, let in by the door."""

    @property
    def path(self) -> Mapping[str, str]:
        """What stands for the ``{names}`` in the operation's path."""

    @property
    def url(self) -> str:
        """Path and query."""

    @property
    def query(self) -> bytes:
        """The query as it came."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Reads names in any case; of several headers with one name, the first."""

    @property
    def content_length(self) -> int:
        """As it was announced, 0 if it was not."""

    @property
    def key(self) -> ApiKey:
        """Whose request this is."""

    async def read(self, most: int) -> bytes:
        """The body. Raises a 413 if it has more than ``most`` bytes."""


class Api:
    """The operations over one engine."""

    def __init__(self, engine: Engine, settings: WebSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._overload = Overload()

    async def answer(self, operation: Operation, request: Request) -> Answer:
        """Carry it out. What goes wrong on purpose is answered; other errors are raised."""
        if not operation.always and self._overload.refuses(trio.current_time()):
            return _refused()
        try:
            authorise(request.key, operation.needs)
            call = await self._parse(operation, request)
            # How long is up to the client: so it is with a body that drips in, which must not make
            # the server look busy. Else a hundred of them would shut everybody out.
            if operation.always or operation.waits or "prefer" in request.headers:
                return _render(await operation.handler(call))
            return _render(await self._carry_out(operation, call))
        except Problem as problem:
            return answer_to(problem)
        except EngineError as error:
            found = problem_of(error)
            if found.status == 500:
                _log.error("a request failed", exc_info=error)
            return answer_to(found)

    async def _carry_out(self, operation: Operation, call: Call) -> Reply:
        began = trio.current_time()
        self._overload.begin()
        try:
            return await operation.handler(call)
        finally:
            self._overload.end(began, trio.current_time())

    async def _parse(self, operation: Operation, request: Request) -> Call:
        settings = self._settings
        _check_accepted(operation, request)
        body: Any = None
        given, raw = frozenset[str](), b""
        if operation.body is not None:
            large = operation.large_body
            raw = await _read_body(
                request, settings.batch_bytes_max if large else settings.body_bytes_max
            )
            if raw or operation.body_required:
                document = _load(request, raw, settings)
                given = frozenset(document) if isinstance(document, dict) else frozenset()
                body = _structured(BODY, document, operation.body)
        elif operation.method != "GET":
            await _ignore_body(request, settings.body_bytes_max)
        query = operation.query
        return Call(
            engine=self._engine,
            settings=settings,
            path=request.path,
            query=None if query is None else check_query(request.query, query),
            body=body,
            raw_body=raw,
            headers=request.headers,
            key_id=request.key.id,
            url=request.url,
            given=given,
        )


def _check_accepted(operation: Operation, request: Request) -> None:
    accept = (request.headers.get("accept") or "*/*").lower()
    if accept == "*/*" or any(kind in accept for kind in _JSON_KINDS):
        return
    others = {None, str, EventStream}  # a page, metrics, a stream
    if not others.issuperset(operation.answers.values()):
        raise Problem(status=406, kind="not-acceptable", detail="this API answers application/json")


async def _read_body(request: Request, most: int) -> bytes:
    if request.content_length > most:
        raise too_large(most)
    raw = await request.read(most)
    if len(raw) > most:
        raise too_large(most)
    return raw


def too_large(most: int) -> Problem:
    """The body is larger than this."""
    return Problem(status=413, kind="too-large", detail=f"the body must have at most {most} bytes")


def _check_media_type(given: str) -> None:
    """JSON is UTF-8 (RFC 8259 §8.1): what names another charset would be read wrongly."""
    if given == _JSON:
        return
    kind, parameters = parse_options_header(given)
    if kind.lower() != _JSON or parameters.get("charset", "utf-8").lower() not in _UTF8:
        raise Problem(
            status=415,
            kind="unsupported-media-type",
            detail="send the body with Content-Type: application/json, in UTF-8",
        )


async def _ignore_body(request: Request, most: int) -> None:
    """For operations without a body: many clients send ``{}`` along, which does no harm, but what
    is not said to be JSON was meant for somebody else. It may also be empty, and chunked."""
    given = request.headers.get("content-type", "")
    if request.content_length or (given and request.headers.get("transfer-encoding")):
        _check_media_type(given)
    if 0 < request.content_length <= most:
        await request.read(most)  # what is left unread costs the client its connection


def _load(request: Request, raw: bytes, settings: WebSettings) -> Any:
    _check_media_type(request.headers.get("content-type", ""))
    try:
        return strict_json.loads(raw, settings.json_depth_max)
    except strict_json.BadJson as error:
        raise bad_request(f"the body {error}") from None


def _structured(converter: cattrs.Converter, value: Any, kind: type[T]) -> T:
    try:
        return structure(converter, value, kind)
    except Invalid as error:
        raise invalid(error.problems) from None


def check_query(query: bytes, kind: type[T]) -> T:
    """The query string as this type; raises a 400 that names every bad parameter."""
    found = parse_qs(query.decode(), keep_blank_values=True, errors=_AS_QUART) if query else {}
    twice = [(f"/{name}", "is given twice") for name, given in found.items() if len(given) > 1]
    if twice:
        raise invalid(twice)
    return _structured(QUERY, {name: given[0] for name, given in found.items()}, kind)


def _render(reply: Reply) -> Answer:
    headers = list(reply.headers.items())
    if reply.body is None:
        return Answer(reply.status, headers, b"")
    if "Content-Type" not in reply.headers:
        headers.append(("Content-Type", _JSON))
    if isinstance(reply.body, ResponseBody):
        return Answer(reply.status, headers, reply.body)
    text = reply.body if isinstance(reply.body, str) else encode(reply.body) + "\n"
    return Answer(reply.status, headers, text.encode())


def encode(view: Any) -> str:
    """An attrs object as the API's JSON."""
    return _ENCODER.encode(BODY.unstructure(view))


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def answer_to(problem: Problem) -> Answer:
    """The problem as an answer."""
    headers = [*problem.headers.items(), ("Content-Type", "application/problem+json")]
    return Answer(problem.status, headers, problem.text().encode())


def _refused() -> Answer:
    """That there are too many requests: written once, as it must cost next to nothing."""
    return Answer(503, list(_TOO_MANY.headers), _TOO_MANY.body)


_TOO_MANY: Final = answer_to(problem_of(Overloaded("more is asked of this server than it can do")))


def answer_to_unexpected(error: Exception) -> Answer:
    """A 500 that tells the client nothing, and the log everything."""
    _log.error("a request failed", exc_info=error)
    detail = "something went wrong here; the server's log says more"
    return answer_to(Problem(status=500, kind="internal-error", detail=detail))
