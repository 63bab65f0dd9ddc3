"""Runs that can be interrupted: what they have started ends before they do."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

T = TypeVar("T")

EXIT_INTERRUPTED: Final = 130


def run(function: Callable[[], Awaitable[T]]) -> T:
    """``trio.run``, which SIGTERM interrupts as Ctrl-C does; then the process exits with 130."""
    # A shell has its background jobs ignore SIGINT; Trio listens only where Python does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    found: list[T] = []

    async def keep() -> None:
        found.append(await function())

    try:
        trio.run(keep)
    except* KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
    if not found:
        sys.exit(EXIT_INTERRUPTED)
    return found[0]
