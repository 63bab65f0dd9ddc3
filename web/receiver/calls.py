"""What the callback receiver remembers: the last calls, bounded and compact."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping

import attrs

from web.receiver.wire import Request


@attrs.frozen
class Call:
    """One call as the receiver saw it; times are `time.perf_counter`.

    `ended` is None while it is in flight; status 0 means that it got no answer. Headers and body
    are empty unless requests are kept.
    """

    task_id: str
    attempt: int
    path: str
    started: float
    ended: float | None
    status: int
    body_bytes: int
    headers: Mapping[str, str]
    body: bytes


_NOT_KEPT = Request("", "", {})


class CallLog:
    """The last `limit` calls in columns, about 250 bytes each; beyond that the oldest is forgotten.

    Calls are numbered from 0 and each points back to the call before it of the same task, so
    asking for a task is short and forgetting a call needs no search.
    """

    def __init__(self, limit: int, *, keep_requests: bool = False) -> None:
        self.limit, self.keep_requests = limit, keep_requests
        self.forgotten = self.total = 0  # remembered: forgotten <= number < total
        self._latest: dict[str, int] = {}  # task id -> number of its last call
        self._task_ids: list[str] = []
        self._paths: list[str] = []
        self._requests: list[Request] = []
        self._previous, self._attempts = array("q"), array("q")
        self._statuses, self._body_bytes = array("h"), array("q")
        self._started, self._ended = array("d"), array("d")

    def __repr__(self) -> str:
        return f"<CallLog total {self.total}, forgotten {self.forgotten}, limit {self.limit}>"

    def start(self, task_id: str, attempt: int, path: str, request: Request, now: float) -> int:
        """Remember a call that begins; the answer is its number, for `end`."""
        number, slot = self.total, self.total % self.limit
        if number - self.forgotten == self.limit:
            self._forget_oldest()
        if slot == len(self._task_ids):
            self._grow()
        # One string per task, not one per call: a retried task would pay for its id each time.
        before = self._latest.get(task_id, -1)
        self._task_ids[slot] = self._task_ids[before % self.limit] if before >= 0 else task_id
        self._paths[slot] = path
        self._previous[slot], self._attempts[slot] = before, attempt
        self._statuses[slot], self._body_bytes[slot] = 0, len(request.body)
        self._started[slot], self._ended[slot] = now, math.nan
        if self.keep_requests:
            self._requests[slot] = request
        self._latest[task_id] = number
        self.total += 1
        return number

    def end(self, number: int, status: int, now: float) -> float | None:
        """Note how a call ended; the answer is when it started, None if it is forgotten."""
        if number < self.forgotten:
            return None
        self._statuses[number % self.limit] = status
        self._ended[number % self.limit] = now
        return self._started[number % self.limit]

    def last_attempt(self, task_id: str) -> int:
        """The attempt of the last call of a task, 0 before its first."""
        number = self._latest.get(task_id)
        return 0 if number is None else self._attempts[number % self.limit]

    def calls(self, task_id: str) -> list[Call]:
        """The remembered calls of one task, oldest first."""
        found: list[Call] = []
        number = self._latest.get(task_id, -1)
        while number >= self.forgotten:
            found.append(self._call(number % self.limit))
            number = self._previous[number % self.limit]
        return found[::-1]

    def all_calls(self) -> list[Call]:
        return [self._call(number % self.limit) for number in range(self.forgotten, self.total)]

    def counts(self) -> Counter[str]:
        """Remembered calls per task."""
        return Counter(self._task_ids)

    def answered(self) -> dict[str, float]:
        """When each remembered task was first answered with 2xx."""
        found: dict[str, float] = {}
        for number in range(self.forgotten, self.total):
            slot = number % self.limit
            if 200 <= self._statuses[slot] < 300:
                found.setdefault(self._task_ids[slot], self._ended[slot])
        return found

    def _call(self, slot: int) -> Call:
        request = self._requests[slot] if self.keep_requests else _NOT_KEPT
        ended = self._ended[slot]
        return Call(
            task_id=self._task_ids[slot],
            attempt=self._attempts[slot],
            path=self._paths[slot],
            started=self._started[slot],
            ended=None if math.isnan(ended) else ended,
            status=self._statuses[slot],
            body_bytes=self._body_bytes[slot],
            headers=request.headers,
            body=request.body,
        )

    def _grow(self) -> None:
        self._task_ids.append("")
        self._paths.append("")
        for column in (self._previous, self._attempts, self._statuses, self._body_bytes):
            column.append(0)
        self._started.append(0.0)
        self._ended.append(0.0)
        if self.keep_requests:
            self._requests.append(_NOT_KEPT)

    def _forget_oldest(self) -> None:
        oldest = self._task_ids[self.forgotten % self.limit]
        if self._latest[oldest] == self.forgotten:  # its only remembered call
            del self._latest[oldest]
        self.forgotten += 1
