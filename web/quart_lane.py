"""The operations as routes of a Quart app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, cast

import attrs
from quart import Blueprint, Response, request
from quart.wrappers.response import ResponseBody
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from .api import Api, too_large
from .auth import KEY, VISITOR, ApiKey
from .plain import Answer
from .router import Operation


def blueprint(operations: Iterable[Operation], api: Api) -> Blueprint:
    """The operations as a Quart blueprint."""
    result = Blueprint("api", __name__)
    for operation in operations:
        result.add_url_rule(
            operation.path.replace("{", "<").replace("}", ">"),
            endpoint=f"{operation.method} {operation.path}".replace(".", "_"),
            view_func=_view(operation, api),
            methods=[operation.method],
        )
    return result


def _view(operation: Operation, api: Api) -> Callable[..., Awaitable[Response]]:
    async def view(**path: str) -> Response:
        return response(await api.answer(operation, _QuartRequest(path)))

    return view


@attrs.frozen
class _QuartRequest:
    """Quart's current request."""

    path: Mapping[str, str]

    @property
    def url(self) -> str:
        return request.full_path.rstrip("?")

    @property
    def query(self) -> bytes:
        return request.query_string

    @property
    def headers(self) -> Mapping[str, str]:
        return cast("Mapping[str, str]", request.headers)  # reads names in any case

    @property
    def content_length(self) -> int:
        return request.content_length or 0

    @property
    def key(self) -> ApiKey:
        """As the door has found out; without a door nobody's."""
        return cast("ApiKey", cast("Any", request.scope).get(KEY, VISITOR))

    async def read(self, most: int) -> bytes:
        try:
            return cast("bytes", await request.get_data(cache=False, as_text=False))
        except HTTPException as error:
            if error.code == 413:
                raise too_large(most) from None
            raise


def response(answer: Answer) -> Response:
    """The answer as Quart's."""
    result = Response(answer.body, status=answer.status, headers=Headers(answer.headers))
    if isinstance(answer.body, ResponseBody):
        result.timeout = None
    elif not answer.body:
        result.headers.pop("Content-Type", None)
    return result
