"""What operators look at: figures, health, metrics, and the description of the API."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence

from web.auth import Scope
from web.metrics import Metrics
from web.openapi import document
from web.router import Call, Operation, Reply, Router
from web.schemas import StatsView
from web.views import stats_view

V1 = "/api/v1"


def operations_router(metrics: Metrics) -> Router:
    """Figures and health."""
    router = Router("operations")

    @router.add(
        "GET",
        V1 + "/stats",
        "How the engine does",
        answers={200: StatsView},
        problems=(406, 503),
        always=True,
    )
    async def stats(call: Call) -> Reply:
        return Reply(body=stats_view(await call.engine.stats()))

    @router.add(
        "GET",
        "/healthz",
        "Whether the process lives",
        needs=Scope.OPEN,
        answers={200: dict},
        always=True,
    )
    async def healthz(_: Call) -> Reply:
        return _json({"status": "ok"})

    @router.add(
        "GET",
        "/readyz",
        "Whether it can work",
        needs=Scope.OPEN,
        answers={200: dict},
        problems=(503, 507),
        always=True,
    )
    async def readyz(call: Call) -> Reply:
        await call.engine.check_ready()
        return _json({"status": "ready"})

    @router.add(
        "GET",
        "/metrics",
        "Prometheus metrics",
        answers={200: str},
        problems=(503,),
        always=True,
    )
    async def prometheus(call: Call) -> Reply:
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Reply(body=await metrics.render(call.engine), headers={"Content-Type": kind})

    return router


def description_router(all_operations: Callable[[], Sequence[Operation]], version: str) -> Router:
    """The API's own description."""
    router = Router("description")

    @router.add(
        "GET",
        "/openapi.json",
        "This description, OpenAPI 3.1",
        needs=Scope.OPEN,
        answers={200: dict},
    )
    async def openapi(_: Call) -> Reply:
        return _json(document(all_operations(), version))

    @router.add("GET", "/docs", "This description, to read", needs=Scope.OPEN, answers={200: None})
    async def docs(_: Call) -> Reply:
        return Reply(
            body=_page(all_operations()), headers={"Content-Type": "text/html; charset=utf-8"}
        )

    return router


def _json(value: object) -> Reply:
    return Reply(body=json.dumps(value), headers={"Content-Type": "application/json"})


def _page(operations: Sequence[Operation]) -> str:
    rows = "".join(
        f"<tr><td><code>{operation.method}</code><td><code>{html.escape(operation.path)}</code>"
        f"<td>{html.escape(operation.summary)}"
        for operation in operations
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Ringback API</title>"
        "<h1>Ringback API</h1><p>Details: <a href=/openapi.json>/openapi.json</a></p>"
        f"<table><tr><th>method<th>path<th>what it does{rows}</table>"
    )
