"""Puts the web part together: one Quart app over one engine."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from importlib.metadata import version

from quart import Response
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from engine import Engine

from . import stream
from .door import Door
from .metrics import Metrics
from .problems import Problem
from .router import Operation, blueprint
from .routes import finished, tasks, unversioned
from .routes.operations import description_router, operations_router
from .settings import WebSettings

_log = logging.getLogger("ringback.web")

_KINDS = {400: "invalid-request", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}


def create_app(
    engine: Engine,
    settings: WebSettings | None = None,
    metrics: Metrics | None = None,
    own_names: Iterable[str] = (),
) -> QuartTrio:
    """The app. ``metrics`` should be told of the engine's attempts (``open_engine``);
    ``own_names`` are names under which clients reach it, beside those in the settings."""
    settings = settings or WebSettings()
    app = QuartTrio("ringback", static_folder=None)
    app.url_map.merge_slashes = False  # an API does not redirect
    app.config["MAX_CONTENT_LENGTH"] = settings.batch_bytes_max
    app.config["BODY_TIMEOUT"] = None  # so is the time a body may take
    app.config["RESPONSE_TIMEOUT"] = None  # sends are bounded in server.py
    offered = operations(metrics or Metrics())
    app.register_blueprint(blueprint(offered, engine, settings), name="api")
    app.add_websocket(
        f"{tasks.V1}/tasks/stream",
        view_func=partial(stream.stream, engine, settings),
        endpoint="stream",
    )
    app.register_error_handler(HTTPException, _http_problem)
    app.register_error_handler(Exception, _unexpected)
    app.asgi_app = Door(app.asgi_app, settings, offered, own_names)  # type: ignore[method-assign]
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


async def _http_problem(error: HTTPException) -> Response:
    status = error.code or 500
    detail = error.description or error.name
    headers = {k: v for k, v in error.get_headers() if k in ("Allow", "Retry-After")}
    return Problem(
        status=status, kind=_KINDS.get(status, "http-error"), detail=detail, headers=headers
    ).response()


async def _unexpected(error: Exception) -> Response:
    _log.error("a request failed", exc_info=error)
    detail = "something went wrong here; the server's log says more"
    return Problem(status=500, kind="internal-error", detail=detail).response()
