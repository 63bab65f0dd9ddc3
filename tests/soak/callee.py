"""Is called back: answers as the kind of the task wants it, and tells the ledger."""

from __future__ import annotations

import re
from collections import deque
from time import perf_counter
from typing import Final

from benchmarks.driver.callers import Caller, Callers
from benchmarks.driver.loop import Loop
from benchmarks.driver.wire import CALLED, called_for
from tests.soak.ledger import Ledger
from tests.soak.mix import BY_NAME

_NOT_YET: Final = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
_attempt = re.compile(rb"\r\nx-task-attempt: *(\d+)", re.IGNORECASE).search


class Callee:
    """Is called on a free port of loopback."""

    def __init__(self, loop: Loop, ledger: Ledger) -> None:
        self._ledger = ledger
        self._callers = Callers(loop, self._take)
        self.url = self._callers.url
        self._held: deque[tuple[float, Caller, str, int]] = deque()  # all equally long

    def __repr__(self) -> str:
        return f"<Callee {self.url}, {len(self._held)} held>"

    @property
    def due(self) -> float:
        """When the next callback is to be answered."""
        return self._held[0][0] if self._held else float("inf")

    def answer_due(self, now: float) -> None:
        """Answer those that were held for long enough."""
        while self._held and self._held[0][0] <= now:
            _due, caller, task_id, attempt = self._held.popleft()
            self._answer(caller, task_id, attempt, 200)

    def _take(self, caller: Caller, head: bytes) -> None:
        now = perf_counter()
        kind = BY_NAME[head.split(b" ", 2)[1].decode().lstrip("/")]
        task_id, found = called_for(head).decode(), _attempt(head)
        attempt = int(found[1]) if found else 0
        self._ledger.call(task_id, kind, attempt, now)
        if kind.hold_s:
            self._held.append((now + kind.hold_s, caller, task_id, attempt))
        else:
            self._answer(caller, task_id, attempt, 503 if attempt <= kind.failures else 200)

    def _answer(self, caller: Caller, task_id: str, attempt: int, status: int) -> None:
        taken = caller.answer(CALLED if status == 200 else _NOT_YET)
        self._ledger.answer(task_id, attempt, status, taken=taken)
