"""Operations: what a URL takes, gives and does, declared once.

A declaration serves the request (``api``) and describes it in ``/openapi.json``; so the two cannot
differ.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs

from engine import Engine

from .auth import Scope
from .settings import WebSettings


@attrs.frozen(kw_only=True)
class Call:
    """A request that has been parsed and checked."""

    engine: Engine
    settings: WebSettings
    path: Mapping[str, str]
    query: Any
    body: Any
    raw_body: bytes
    headers: Mapping[str, str]  # reads names in any case
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
    waits: bool  # whether it may wait for something to happen
    always: bool  # whether it is answered also when there are too many requests


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
        waits: bool = False,
        always: bool = False,
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
                    waits=waits,
                    always=always,
                )
            )
            return handler

        return keep
