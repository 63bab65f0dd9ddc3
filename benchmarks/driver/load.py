"""The load of a plan: creates, callbacks, and readers beside them."""

from __future__ import annotations

from collections import Counter
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.driver.books import Books
from benchmarks.driver.client import CUT_OFF, Pace
from benchmarks.driver.plan import Plan
from benchmarks.driver.readers import Reader
from benchmarks.driver.receiver import Receiver
from benchmarks.driver.wire import request, task_ids

if TYPE_CHECKING:
    from benchmarks.driver.run import Driver

API: Final = "/api/v1/tasks"
_CONNECTED_AHEAD: Final = 16  # with a rate; more are opened as they are needed
_SAMPLE_S: Final = 0.01


class Load:
    """Encodes its requests when it is made; ``run`` does it all."""

    def __init__(self, driver: Driver, plan: Plan) -> None:
        self._driver, self.plan, self.books = driver, plan, Books()
        self._requests = encode(plan, driver.host, driver.receiver.url)
        total = len(self._requests)
        self.creates = driver.client(
            self._requests.__getitem__,
            self._created,
            total=total,
            most=min(plan.connections, total),
            may=self._may,
        )
        self.latencies: list[float] = []  # of accepted creates
        self.refused: Counter[str] = Counter()  # tasks by what came instead
        self.task_ids: list[bytes] = []  # in the order of their answers
        self.readers = [Reader(driver, each, self.task_ids) for each in plan.readers]
        self.in_flight: list[int] = []  # callbacks, sampled while readers ask
        self.began = self.created = 0.0  # the first create sent, the last one answered

    def __repr__(self) -> str:
        return f"<Load {self.creates!r} {self.books!r}>"

    def run(self) -> None:
        """Until every accepted task is called back, or nothing moves any more."""
        plan, driver, creates = self.plan, self._driver, self.creates
        driver.receiver.begin(self.books, plan.callback_ms / 1000)
        ahead = plan.connections if plan.rate is None else _CONNECTED_AHEAD
        driver.connect(creates, min(ahead, plan.connections, len(self._requests)))
        clients = [creates, *(reader.client for reader in self.readers)]
        self.began = self.created = perf_counter()
        creates.pace = Pace(self.began, plan.rate)
        going = self._going_with_readers if self.readers else self._going
        driver.turn_while(going, clients, self._moved)
        for client in clients:
            client.close()
        creates.on_answer = _too_late

    @property
    def lost(self) -> int:
        """Accepted tasks that were not called; of manual tasks nothing is awaited."""
        return 0 if self.plan.dispatch == "manual" else self.books.lost

    @property
    def unanswered(self) -> int:
        """Tasks that were neither accepted nor refused."""
        return self.plan.tasks - len(self.books.began) - self.refused.total()

    @property
    def receiver(self) -> Receiver:
        """What the callbacks came to."""
        return self._driver.receiver

    def _going(self) -> bool:
        return not self.creates.done or (self.plan.dispatch == "auto" and self.books.missing > 0)

    def _going_with_readers(self) -> bool:
        going, enough = self._going(), self.plan.readers_in_flight
        in_flight = self._driver.receiver.in_flight
        fed = not self.creates.done or self.books.missing >= enough
        for reader in self.readers:
            if not reader.began and in_flight >= enough:
                reader.begin()
            elif reader.began and not (going and fed):
                reader.end()
        if any(reader.asking for reader in self.readers):
            self._sample(in_flight)
        return going or any(reader.waiting for reader in self.readers)

    def _sample(self, in_flight: int) -> None:
        now = perf_counter()
        if now - self.began >= _SAMPLE_S * len(self.in_flight):
            self.in_flight.append(in_flight)

    def _moved(self) -> int:
        return self.books.moved + self.creates.ended

    def _may(self) -> bool:
        ahead = self.plan.ahead
        if ahead is None:
            return True
        unanswered = (self.creates.sent - self.creates.ended) * self.plan.batch
        return self.books.missing + unanswered < ahead

    def _created(self, number: int, began: float, ended: float, status: int, body: bytes) -> None:
        plan = self.plan
        count = min(plan.batch, plan.tasks - number * plan.batch)
        self.created = ended
        if status != 201:
            self.refused[_reason(status)] += count
            return
        try:
            created = task_ids(body, count)
        except (ValueError, KeyError, TypeError, AttributeError):
            self.refused["an answer without the tasks"] += count
            return
        self.latencies.append(ended - began)
        for task_id in created:
            self.books.accept(task_id, began)
        self.task_ids += created


def _too_late(_number: int, _began: float, _ended: float, _status: int, _body: bytes) -> None:
    """An answer after the end of the load is none: nobody waits for its task to be called."""


def _reason(status: int) -> str:
    return "cut off" if status == CUT_OFF else f"status {status}"


def encode(plan: Plan, host: str, callback_url: str) -> list[bytes]:
    """The creates of a plan, each with its own tasks."""
    tasks = [task(number, callback_url, plan.dispatch) for number in range(plan.tasks)]
    if plan.batch == 1:
        return [request("POST", API, host, each) for each in tasks]
    batches = [tasks[n : n + plan.batch] for n in range(0, plan.tasks, plan.batch)]
    return [request("POST", f"{API}/batch", host, {"tasks": batch}) for batch in batches]


def task(number: int, callback_url: str, dispatch: str) -> dict[str, object]:
    """A task with a payload of a usual size."""
    return {
        "name": f"bench-{number}",
        "callbackUrl": callback_url,
        "payload": {"number": number, "text": "a payload of a usual size " * 4},
        "dispatch": dispatch,
    }
