"""Pages of tasks: by number, or by a cursor that stays right while tasks come and go."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import attrs

from engine import Kept, Status, Task, TaskId, TaskQuery

from .naming import spelled
from .problems import Problem, bad_request, invalid
from .router import Call, Reply
from .schemas import ListQuery

_TAG = re.compile(r'"?([0-9]{1,18})"?')


def task_id_of(text: str) -> TaskId:
    """The id in its one spelling; an id that cannot exist is simply not found."""
    try:
        return str(UUID(text))
    except ValueError:
        raise Problem(
            status=404, kind="task-not-found", detail=f"no task has the id {text[:100]}"
        ) from None


def if_match(value: str | None) -> int | None:
    """The version in an ``If-Match`` header (RFC 9110 §13.1.1): ``"7"``, or ``*`` for any."""
    if value is None or value.strip() == "*":
        return None
    tag = _TAG.fullmatch(value.strip())
    if tag is None:
        raise bad_request('If-Match must be an ETag this API gave, such as "7"')
    return int(tag[1])


def query_of(given: ListQuery, kept: Kept, statuses: frozenset[Status]) -> TaskQuery:
    """The engine's query for a list request."""
    before = None
    if given.cursor is not None:
        try:
            before = str(UUID(given.cursor))
        except ValueError:
            raise invalid([("/cursor", "is not a cursor this API gave")]) from None
    metadata: dict[str, str] = {}
    for pair in (given.metadata or "").split(",") if given.metadata else ():
        key, colon, value = pair.partition(":")
        if not colon:
            raise invalid([("/metadata", "must be key:value, several separated by commas")])
        metadata[key] = value
    return TaskQuery(
        statuses=frozenset({given.status}) if given.status is not None else statuses,
        names=frozenset({given.name}) if given.name is not None else frozenset(),
        priority=given.priority,
        created_after=given.created_after,
        created_before=given.created_before,
        metadata=metadata,
        kept=kept,
        before=before,
    )


async def page_of(
    call: Call,
    kept: Kept,
    *,
    path: str,
    view: Callable[[Task], Any],
    page_type: Callable[..., Any],
    statuses: frozenset[Status] = frozenset(),
) -> Reply:
    """One page of what the request's query asks for, among the ``statuses`` of this list: numbered
    if ``page`` is given or nothing is; else after ``cursor``."""
    engine, given = call.engine, call.query
    query = query_of(given, kept, statuses)
    by_cursor = given.cursor is not None or given.limit is not None
    if by_cursor and (given.page is not None or given.size is not None):
        raise invalid([("/cursor", "page and size cannot be mixed with cursor and limit")])
    size = (given.limit if by_cursor else given.size) or call.settings.page_size
    number = None if by_cursor else given.page or 1
    offset = 0 if number is None else (number - 1) * size
    found = await engine.list_tasks(query, size + 1, offset)
    more = len(found) > size
    found = found[:size]
    next_cursor = found[-1].id if more and found else None
    headers = {}
    if next_cursor is not None:
        url = _next_url(path, given, next_cursor, size, number)
        headers["Link"] = f'<{url}>; rel="next"'
    body = page_type(
        tasks=[view(task) for task in found],
        total_count=await engine.count(attrs.evolve(query, before=None)),
        page=number,
        page_size=size,
        next_cursor=next_cursor,
    )
    return Reply(body=body, headers=headers)


def _next_url(path: str, given: ListQuery, cursor: str, size: int, number: int | None) -> str:
    paging = (
        {"cursor": cursor, "limit": size} if number is None else {"page": number + 1, "size": size}
    )
    filters = {
        spelled(field.name): value if isinstance(value, str | int) else value.isoformat()
        for field in attrs.fields(ListQuery)
        if field.name not in ("page", "size", "cursor", "limit")
        and (value := getattr(given, field.name)) is not None
    }
    return f"{path}?{urlencode({**filters, **paging})}"
