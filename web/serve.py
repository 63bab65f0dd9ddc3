"""The composition root: engine, app and server in one process, and how they stop together."""

from __future__ import annotations

import resource
from collections.abc import Callable
from functools import partial

import attrs
import trio

from engine import Engine, EngineConfig, open_engine
from engine.core.pace import pool_size
from engine.core.redact import masked

from .app import create_app
from .metrics import Metrics
from .server import addresses_of, open_listeners, serve
from .settings import ServerConfig, WebSettings
from .signals import StopSignals

_WATCHDOG_MARGIN_S = 5.0
_OWN_DESCRIPTORS = 100  # store, listeners, signals, name look-ups
_FEWEST_CONNECTIONS = 10


@attrs.frozen(kw_only=True)
class ServeOptions:
    """Everything ``ringback serve`` needs."""

    database: str = attrs.field(default="sqlite:///ringback.db", repr=lambda url: repr(masked(url)))
    engine: EngineConfig = attrs.field(factory=EngineConfig)
    server: ServerConfig = attrs.field(factory=ServerConfig)
    web: WebSettings = attrs.field(factory=WebSettings)


def with_room_for_descriptors(options: ServeOptions) -> ServeOptions:
    """The options with ``connections_max`` as large as the process's limit on open files allows,
    which is raised as far as needed and possible: clients must not take the descriptors that the
    store and the callbacks need. Raises ``ValueError`` if hardly any are left for clients."""
    kept = 2 * pool_size(options.engine.executors) + _OWN_DESCRIPTORS
    wanted = options.server.connections_max + kept
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    room = allowed - kept
    if room < _FEWEST_CONNECTIONS:
        raise ValueError(
            f"the limit of {allowed} open files leaves no room for clients beside "
            f"{options.engine.executors} executors: raise it (ulimit -n), or use fewer executors"
        )
    server = attrs.evolve(options.server, connections_max=room)
    return attrs.evolve(options, server=server)


async def run_server(options: ServeOptions, on_ready: Callable[[list[str]], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain: no new work is taken, running attempts and
    requests get the grace period, the rest goes back. A second signal cuts the grace short.

    ``on_ready`` gets the URLs as soon as requests are answered. Raises ``StoreLocked``,
    ``StoreDamaged`` or ``StoreUnavailable`` if the store cannot be opened, ``OSError`` if the
    port cannot be had, ``ValueError`` if too few files may be open; inside exception groups, as Trio has it.
    """
    options = with_room_for_descriptors(options)
    signals = StopSignals(options.server.grace_s + _WATCHDOG_MARGIN_S)
    metrics = Metrics()
    async with trio.open_nursery() as outermost:
        await outermost.start(signals.watch)
        async with (
            # First, because the engine must know where no callback may go: to ourselves.
            open_listeners(options.server) as listeners,
            open_engine(
                options.engine,
                database=options.database,
                observe_attempt=metrics.observe,
                own_listeners=addresses_of(listeners),
            ) as engine,
        ):
            # It only tells the engine to stop, which is harmless after the end.
            outermost.start_soon(_stop_engine, engine, signals)  # noqa: ASYNC111
            app = create_app(engine, options.web, metrics, [options.server.host])
            async with trio.open_nursery() as serving:
                urls: list[str] = await serving.start(
                    partial(
                        serve,
                        app,
                        options.server,
                        express=app.express,
                        listeners=listeners,
                        shutdown_trigger=signals.first.wait,
                        cut_trigger=signals.second.wait,
                    )
                )
                on_ready(urls)
        outermost.cancel_scope.cancel(reason="the server has stopped")


async def _stop_engine(engine: Engine, signals: StopSignals) -> None:
    await signals.first.wait()
    engine.stop()
    await signals.second.wait()
    engine.cut()
