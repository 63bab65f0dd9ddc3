"""Blocking calls, as a port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class RunSync(Protocol):
    """Runs a blocking function: in a thread, or in line where threads would spoil determinism."""

    async def __call__(self, function: Callable[[], T]) -> T:
        """The function's result or exception. Always a checkpoint. Calls of one object run one
        after the other. Once begun, a call is waited for even if the caller is cancelled."""
        ...
