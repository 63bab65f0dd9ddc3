"""What becomes of the callbacks: every one is answered with 200, some after a while."""

from __future__ import annotations

from array import array
from collections import deque
from time import perf_counter

from benchmarks.driver.books import Books
from benchmarks.driver.callers import Caller, Callers
from benchmarks.driver.loop import Loop
from benchmarks.driver.wire import CALLED, called_for


class Receiver:
    """Is called on a free port of loopback."""

    def __init__(self, loop: Loop) -> None:
        self._callers = Callers(loop, self._take)
        self.url = f"{self._callers.url}/call"
        self._waiting: deque[tuple[float, Caller, bytes, float]] = deque()
        self.begin(Books(), 0.0)

    def __repr__(self) -> str:
        return f"<Receiver {self.url}, {self.in_flight} in flight>"

    def begin(self, books: Books, hold_s: float) -> None:
        """Keep other books from now on, and hold callbacks for so long."""
        self.books, self.hold_s = books, hold_s
        self.in_flight = self.peak = len(self._waiting)
        self.held = array("d")  # how long each was held
        self.cut_off = 0  # callers that did not wait for the answer

    @property
    def due(self) -> float:
        """When the next callback is to be answered."""
        return self._waiting[0][0] if self._waiting else float("inf")

    def answer_due(self, now: float) -> None:
        """Answer the callbacks that were held for long enough. All are held equally long, so the
        order in which they came is the order in which they are due."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= now:
            _due, caller, task_id, arrived = waiting.popleft()
            self._answer(caller, task_id, arrived)

    def _take(self, caller: Caller, head: bytes) -> None:
        """One that does not name its task is for an unknown one."""
        now = perf_counter()
        task_id = called_for(head)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self.books.call(task_id, now)
        if self.hold_s:
            self._waiting.append((now + self.hold_s, caller, task_id, now))
        else:
            self._answer(caller, task_id, now)

    def _answer(self, caller: Caller, task_id: bytes, arrived: float) -> None:
        self.in_flight -= 1
        if caller.answer(CALLED):
            now = perf_counter()
            self.held.append(now - arrived)
            self.books.answer(task_id, now)
        else:
            self.cut_off += 1
