"""The timers: what happens because time passes, not because somebody asks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import trio

from engine.config import EngineConfig
from engine.core.commands import Prune, Sweep
from engine.errors import EngineStopping, Overloaded, StoreError, StoreUnavailable
from engine.messages import RepositoryMessage, Request

from .executor import InFlight
from .mailbox import Inbox

_log = logging.getLogger("ringback.timers")


async def sweeper(
    repository: Inbox[RepositoryMessage], in_flight: InFlight, config: EngineConfig
) -> None:
    """Ends leases and deadlines that have passed. Stops when the repository does."""

    def command() -> Sweep:
        return Sweep(config.commit_batch, in_flight.task_ids())

    await _repeat(repository, command, config.commit_batch, config.sweep_interval_s)


async def pruner(repository: Inbox[RepositoryMessage], config: EngineConfig) -> None:
    """Removes records older than what is kept. Stops when the repository does."""

    def command() -> Prune:
        return Prune(config.prune_batch)

    await _repeat(repository, command, config.prune_batch, config.prune_interval_s)


async def _repeat(
    repository: Inbox[RepositoryMessage],
    command: Callable[[], Sweep | Prune],
    full: int,
    interval_s: float,
) -> None:
    while True:
        try:
            done: int = await repository.ask(partial(Request, command()))
        except EngineStopping:
            return
        except (Overloaded, StoreUnavailable):
            done = 0  # the next round will do it
        except StoreError as error:
            _log.error("could not look for what has expired or is old: %s", error)
            done = 0
        if done < full:
            await trio.sleep(interval_s)
