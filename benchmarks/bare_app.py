"""The least that can answer like a create: reads the body and answers JSON of the same form.

``python -m benchmarks.bare_app ringback`` serves it with our server as an ASGI app, ``... express``
on that server's lane for plain requests, which is how a real create goes, and ``... hypercorn``
with plain hypercorn on Trio; it prints its URL.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, Final

import click
import trio
from hypercorn.config import Config
from hypercorn.trio import serve as serve_hypercorn
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from web.plain import Answer, Plain, ReadBody
from web.server import serve as serve_ringback
from web.settings import ServerConfig

_numbers: Final = count()


async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answers every request with 201 and the answer of a create."""
    match scope["type"]:
        case "lifespan":
            await _live(receive, send)
        case "http":
            await _create(receive, send)
        case other:
            raise NotImplementedError(other)


async def _live(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    while True:
        if (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _create(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    body, more = b"", True
    while more:
        event: Any = await receive()
        if event["type"] == "http.disconnect":
            return
        body += event["body"]
        more = event["more_body"]
    told, answer = _created(body)
    told.append(("content-length", str(len(answer))))
    headers = [(name.encode(), value.encode()) for name, value in told]
    await send(
        {"type": "http.response.start", "status": 201, "headers": headers, "trailers": False}
    )
    await send({"type": "http.response.body", "body": answer, "more_body": False})


class Express:
    """The same without ASGI."""

    async def answer(self, _plain: Plain, read: ReadBody) -> Answer | None:
        """See ``web.plain.Lane``."""
        headers, body = _created(await read())
        return Answer(201, headers, body)


def _created(body: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body of the answer. Raises ValueError if the request is not JSON."""
    json.loads(body)
    task_id = f"0199f2b3-7c1d-7a52-b7e3-{next(_numbers):012x}"
    created = {"taskId": task_id, "status": "Queued", "createdAt": "2026-01-01T00:00:00.000Z"}
    answer = json.dumps(created, separators=(",", ":")).encode()
    headers = [
        ("content-type", "application/json"),
        ("location", f"/api/v1/tasks/{task_id}"),
    ]
    return headers, answer


async def _run(server: str) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            urls = await nursery.start(_serve(server, partial(anext, signals)))
            click.echo(urls[0])


def _serve(server: str, stopped: Callable[[], Any]) -> Callable[..., Any]:
    if server != "hypercorn":
        express = Express() if server == "express" else None
        config = ServerConfig(port=0)
        return partial(serve_ringback, app, config, express=express, shutdown_trigger=stopped)
    plain = Config()
    plain.bind = ["127.0.0.1:0"]
    return partial(serve_hypercorn, app, plain, shutdown_trigger=stopped)


@click.command()
@click.argument("server", type=click.Choice(["express", "ringback", "hypercorn"]))
def main(server: str) -> None:
    """Serve until SIGTERM."""
    trio.run(_run, server)


if __name__ == "__main__":
    main()
