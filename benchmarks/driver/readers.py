"""Clients that ask while the load runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.driver.client import CUT_OFF, Pace
from benchmarks.driver.plan import Readers, Reading
from benchmarks.driver.summary import latency
from benchmarks.driver.wire import request

if TYPE_CHECKING:
    from benchmarks.driver.run import Driver

_API = "/api/v1/tasks"


class Reader:
    """Asks one kind of question at a steady rate between ``begin`` and ``end``."""

    def __init__(self, driver: Driver, plan: Readers, task_ids: Sequence[bytes]) -> None:
        self._plan, self._host, self._task_ids = plan, driver.host, task_ids
        self._callback_url = driver.receiver.url
        self._wanted = 201 if plan.what == "create" else 200
        self._latencies: list[float] = []
        self._refused: Counter[str] = Counter()
        self.began = False
        self.client = driver.client(self._request, self._answered, total=0, most=plan.connections)

    def __repr__(self) -> str:
        return f"<Reader {self._plan.what} {self.client!r}>"

    @property
    def asking(self) -> bool:
        return self.client.total == inf

    @property
    def waiting(self) -> bool:
        """Whether an answer is still missing."""
        return not self.client.done

    def begin(self) -> None:
        self.began = True
        self.client.pace = Pace(perf_counter(), self._plan.rate)
        self.client.total = inf

    def end(self) -> None:
        self.client.total = self.client.sent

    def reading(self) -> Reading:
        return Reading(
            what=self._plan.what,
            latency=latency(self._latencies),
            refused=dict(self._refused),
        )

    def _request(self, number: int) -> bytes:
        match self._plan.what:
            case "create":
                body = {"name": f"read-{number}", "callbackUrl": self._callback_url}
                return request("POST", _API, self._host, body | {"dispatch": "manual"})
            case "get":
                known = self._task_ids
                task_id = known[number % len(known)].decode() if known else "none"
                return request("GET", f"{_API}/{task_id}", self._host)
            case "list":
                return request("GET", f"{_API}?size=20", self._host)

    def _answered(self, _number: int, began: float, ended: float, status: int, _: bytes) -> None:
        if status == self._wanted:
            self._latencies.append(ended - began)
        else:
            self._refused["cut off" if status == CUT_OFF else f"status {status}"] += 1
