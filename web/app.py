"""Puts the web part together: one Quart app over one engine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from importlib.metadata import version

from quart import Response
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from engine import Engine

from . import stream
from .api import Api, answer_to, answer_to_unexpected
from .door import Door
from .express import Express
from .metrics import Metrics
from .problems import Problem
from .quart_lane import blueprint, response
from .router import Operation
from .routes import finished, tasks, unversioned
from .routes.operations import description_router, operations_router
from .settings import WebSettings

_KINDS = {400: "invalid-request", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}


class App(QuartTrio):
    """The Quart app. ``express`` answers plain requests alike, for a server that lets it."""

    express: Express


def create_app(
    engine: Engine,
    settings: WebSettings | None = None,
    metrics: Metrics | None = None,
    own_names: Iterable[str] = (),
) -> App:
    """The app. ``metrics`` should be told of the engine's attempts (``open_engine``);
    ``own_names`` are names under which clients reach it, beside those in the settings."""
    settings = settings or WebSettings()
    app = App("ringback", static_folder=None)
    app.url_map.merge_slashes = False  # an API does not redirect
    app.config["MAX_CONTENT_LENGTH"] = settings.batch_bytes_max
    app.config["BODY_TIMEOUT"] = None  # so is the time a body may take
    app.config["RESPONSE_TIMEOUT"] = None  # sends are bounded in server.py
    offered = operations(metrics or Metrics())
    app.url_map.converters["default"] = _part_but({one.path for one in offered})
    api = Api(engine, settings)
    app.register_blueprint(blueprint(offered, api), name="api")
    app.add_websocket(
        f"{tasks.V1}/tasks/stream",
        view_func=partial(stream.stream, engine, settings),
        endpoint="stream",
    )
    app.register_error_handler(HTTPException, _http_problem)
    app.register_error_handler(Exception, _unexpected)
    door = Door(app.asgi_app, settings, offered, own_names)
    app.asgi_app = door  # type: ignore[method-assign]
    app.express = Express(door, offered, api)
    return app


def operations(metrics: Metrics) -> list[Operation]:
    """Everything the API offers over plain HTTP."""
    found: list[Operation] = []
    routers = (
        tasks.router,
        finished.router,
        operations_router(metrics),
        stream.router,
        unversioned.router,
        description_router(lambda: found, version("ringback")),
    )
    found += [operation for router in routers for operation in router.operations]
    return found


def _part_but(paths: Iterable[str]) -> type[BaseConverter]:
    """What stands for a ``{name}`` in a path: anything, but the words that the API itself has in its
    paths. ``/tasks/batch`` is no task's, so a method it does not have is a 405 there."""
    words = {path.rpartition("/")[2] for path in paths if not path.endswith("}")}

    class Part(BaseConverter):
        part_isolating = True  # it matches no more than one part
        regex = rf"(?!(?:{'|'.join(sorted(map(re.escape, words)))})\Z)[^/]+"

    return Part


async def _http_problem(error: HTTPException) -> Response:
    status = error.code or 500
    detail = error.description or error.name
    headers = {k: v for k, v in error.get_headers() if k in ("Allow", "Retry-After")}
    kind = _KINDS.get(status, "http-error")
    return response(answer_to(Problem(status=status, kind=kind, detail=detail, headers=headers)))


async def _unexpected(error: Exception) -> Response:
    return response(answer_to_unexpected(error))
