"""The load of a soak, in a process of its own: ``python -m tests.soak.load``, a plan as JSON on stdin.

Now and then it prints a line of JSON, what happened so far; the last line says that it is the last.
One thread around one ``epoll``: creates on their schedule, cancels, callbacks and watchers.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from benchmarks.driver.client import CUT_OFF, Client, Pace
from benchmarks.driver.loop import Loop
from benchmarks.driver.summary import percentile
from benchmarks.driver.wire import request, task_ids
from tests.soak.callee import Callee
from tests.soak.ledger import Ledger
from tests.soak.mix import kind_of
from tests.soak.streams import Visitors, Witness

API: Final = "/api/v1/tasks"
_TURN_S: Final = 0.05
_ASK_CONNECTIONS: Final = 8
_LATER: Final = (429, 503)  # nothing was done; a cancel is asked for again
_AGAIN_S: Final = 1.0
_NO_ANSWER: Final = ("no answer", "cut off", "429", "503")
_KEYED: Final = 10  # one of so many creates has an idempotency key
_SURE_S: Final = 1.0  # after the last end, for calls that should not come


@attrs.frozen(kw_only=True)
class Plan:
    """How much for how long."""

    url: str
    seconds: float
    rate: float | None  # creates a second; None: as fast as they are answered, but no further ahead
    ahead: int = 500  # than so many tasks that are due and have not ended
    behind_s: float = 5.0  # with a rate: as far as the server may be behind until creates wait
    connections: int = 200
    visitors: int = 6
    told_every_s: float = 1.0
    patience_s: float = 60.0  # for the last tasks to end
    last: int = 1000  # tasks that are asked for at the end
    seed: int = 1


@attrs.frozen(kw_only=True)
class Told:
    """How it stands; all but ``create_p95_ms`` since the start."""

    final: bool
    at_s: float
    created: int
    ended: int
    open: int
    refused: dict[str, int]  # answers to creates and cancels that are not those of success
    create_p95_ms: float | None  # of the creates answered since the last time this was told
    connections: int  # held to the server, or by it
    visits: int
    resumed: int
    calls: int
    duplicates: int
    excused: int
    early: int
    ended_twice: int
    wrong: dict[str, int]
    strangers: int
    held_back_s: float  # creates waited, and were put off, because the server was so far behind
    lost: int = 0  # asked for at the end: unknown to the server, or without an end
    unheard: int = 0  # at their proper end, as the server says, but the stream did not tell it
    asked: dict[str, int] = attrs.field(factory=dict)  # what the last tasks are, as the server says


class Sockets(Loop):
    """Knows how many there are."""

    @property
    def open(self) -> int:
        return len(self._handlers)


class Load:
    """Everything that the process does."""

    def __init__(self, plan: Plan) -> None:
        parts = urlsplit(plan.url)
        self._plan, self._host = plan, parts.netloc
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._loop, self._ledger = Sockets(), Ledger()
        self._callee = Callee(self._loop, self._ledger)
        self._witness = Witness(self._loop, plan.url, self._ledger.end)
        self._visitors = Visitors(self._loop, plan.url, plan.visitors, random.Random(plan.seed))
        self._creates = self._client(self._create, self._created, plan.connections, self._may)
        self._cancels = self._client(self._cancel, self._cancelled, plan.connections)
        self._cancels.total = 0
        self._to_cancel: deque[str] = deque()
        self._cancelling: dict[int, str] = {}  # by the number of the request
        self._cancel_later: list[str] = []
        self._refused: Counter[str] = Counter()
        self._latencies: list[float] = []
        self._last: deque[str] = deque(maxlen=plan.last)
        self._lost = self._unheard = 0
        self._asked: Counter[str] = Counter()
        self._began = self._held_back_s = 0.0

    def __repr__(self) -> str:
        return f"<Load {self._creates!r} {self._ledger!r}>"

    def run(self, tell: Callable[[Told], None]) -> None:
        """Create for as long as the plan says, wait for the last ones, ask about what is missing."""
        self._until(lambda: self._witness.seq >= 0, self._plan.patience_s, lambda _told: None)
        self._began = perf_counter()
        self._creates.pace = Pace(self._began, self._plan.rate)
        self._creates.total = float("inf")
        self._until(lambda: False, self._plan.seconds, tell)
        self._creates.total = self._creates.sent
        self._until(self._is_over, self._plan.patience_s, tell)
        if not self._plan.rate:  # only a measurement: what is left is cut off
            tell(self.told(final=True))
            return
        self._until(lambda: False, _SURE_S, tell)
        self._asked = Counter(self._ask(self._last).values())
        self._settle(self._ask(self._ledger.missing()))
        self._witness.leave()
        self._visitors.leave()
        tell(self.told(final=True))

    def told(self, *, final: bool = False) -> Told:
        ledger, latencies = self._ledger, self._latencies
        p95 = percentile(latencies, 95) * 1000 if latencies else None
        self._latencies = []
        return Told(
            final=final,
            at_s=perf_counter() - self._began,
            created=ledger.accepted,
            ended=ledger.closed,
            open=ledger.waiting,
            refused=dict(self._refused),
            create_p95_ms=p95,
            connections=self._loop.open - 1,  # one listens
            visits=self._visitors.visits,
            resumed=self._witness.resumed,
            calls=ledger.calls,
            duplicates=ledger.duplicates,
            excused=ledger.excused,
            early=ledger.early,
            ended_twice=ledger.ended_twice,
            wrong=dict(ledger.wrong),
            strangers=len(ledger.strangers()) if final else 0,
            held_back_s=self._held_back_s,
            lost=self._lost,
            unheard=self._unheard,
            asked=dict(self._asked),
        )

    # -- what goes on beside the creates -------------------------------------------------------

    def _until(
        self, done: Callable[[], bool], seconds: float, tell: Callable[[Told], None]
    ) -> None:
        """Go on until it is done, at most so long."""
        now, every_s = perf_counter(), self._plan.told_every_s
        ends_at, tell_at, look_at, again_at = now + seconds, now + every_s, now, now
        while now < ends_at and not done():
            self._turn(now, [self._creates, self._cancels])
            before, now = now, perf_counter()
            if self._is_too_far_behind():
                self._put_off(now - before)
            if now >= look_at:
                look_at = now + _TURN_S
                self._witness.keep()
                self._visitors.keep(now, self._witness.seq)
            if now >= again_at:
                again_at = now + _AGAIN_S
                while self._cancel_later:
                    self._take_back(self._cancel_later.pop())
            if now >= tell_at:
                tell_at = now + every_s
                tell(self.told())

    def _turn(self, now: float, clients: Iterable[Client]) -> None:
        self._callee.answer_due(now)
        until = min(self._callee.due, now + _TURN_S)
        for client in clients:
            until = min(until, client.pump(now))
        self._loop.turn(until)

    def _is_over(self) -> bool:
        cancelled = self._cancels.done and not self._cancel_later
        return self._creates.done and cancelled and not self._ledger.waiting

    def _is_too_far_behind(self) -> bool:
        """The machine may have other things to do than when the capacity was measured. A queue that
        grows for ever would then be all that one sees."""
        rate = self._plan.rate
        return rate is not None and self._ledger.running > rate * self._plan.behind_s

    def _put_off(self, seconds: float) -> None:
        """What would have been due in this time is due later."""
        pace = self._creates.pace
        self._creates.pace = attrs.evolve(pace, start=pace.start + seconds)
        self._held_back_s += seconds

    # -- creates and cancels -------------------------------------------------------------------

    def _may(self) -> bool:
        if self._plan.rate:
            return not self._is_too_far_behind()
        unanswered = self._creates.sent - self._creates.ended
        return self._ledger.running + unanswered < self._plan.ahead

    def _create(self, number: int) -> bytes:
        raw = request("POST", API, self._host, kind_of(number).body(number, self._callee.url))
        if number % _KEYED:
            return raw
        return raw.replace(b"\r\n\r\n", b"\r\nidempotency-key: soak-%d\r\n\r\n" % number, 1)

    def _created(self, number: int, began: float, ended: float, status: int, body: bytes) -> None:
        if status != 201:
            self._refused[f"create {_named(status)}"] += 1
            return
        task_id, kind = task_ids(body, 1)[0].decode(), kind_of(number)
        self._latencies.append(ended - began)
        self._last.append(task_id)
        self._ledger.accept(task_id, kind, began)
        if kind.cancelled:
            self._take_back(task_id)

    def _take_back(self, task_id: str) -> None:
        self._cancels.total += 1
        self._to_cancel.append(task_id)

    def _cancel(self, number: int) -> bytes:
        task_id = self._cancelling[number] = self._to_cancel.popleft()
        return request("DELETE", f"{API}/{task_id}", self._host)

    def _cancelled(self, n: int, _began: float, _ended: float, status: int, _body: bytes) -> None:
        task_id = self._cancelling.pop(n)
        if status != 204:
            self._refused[f"cancel {_named(status)}"] += 1
        if status in _LATER:
            self._cancel_later.append(task_id)

    # -- questions at the end ------------------------------------------------------------------

    def _settle(self, missing: Mapping[str, str]) -> None:
        """The stream has not told the end of these, and what the server says of them."""
        for task_id, state in missing.items():
            kind = self._ledger.open[task_id].kind
            if kind is not None and state == kind.ends:
                self._unheard += 1
            else:
                self._lost += 1

    def _ask(self, asked: Iterable[str]) -> dict[str, str]:
        """What the server says of these tasks; asked again where it had no time to say it."""
        states = dict.fromkeys(asked, "no answer")
        wanted, ends_at = list(states), perf_counter() + self._plan.patience_s
        while wanted and perf_counter() < ends_at:
            self._ask_once(wanted, states, ends_at)
            wanted = [task_id for task_id in wanted if states[task_id] in _NO_ANSWER]
            if wanted:
                self._until(lambda: False, _AGAIN_S, lambda _told: None)
        return states

    def _ask_once(self, wanted: list[str], states: dict[str, str], ends_at: float) -> None:
        def ask(number: int) -> bytes:
            return request("GET", f"{API}/{wanted[number]}", self._host)

        def keep(number: int, _began: float, _ended: float, status: int, body: bytes) -> None:
            said = json.loads(body)["status"] if status == 200 else _named(status)
            states[wanted[number]] = said

        client = self._client(ask, keep, _ASK_CONNECTIONS)
        client.total = len(wanted)
        while not client.done and (now := perf_counter()) < ends_at:
            self._turn(now, [client])
        client.close()

    def _client(
        self,
        make: Callable[[int], bytes],
        on_answer: Callable[[int, float, float, int, bytes], None],
        most: int,
        may: Callable[[], bool] = lambda: True,
    ) -> Client:
        return Client(self._loop, self._address, make, on_answer, total=0, most=most, may=may)


def _named(status: int) -> str:
    return "cut off" if status == CUT_OFF else str(status)


def main() -> None:
    """Do what the plan on standard input says."""

    def tell(told: Told) -> None:
        print(json.dumps(attrs.asdict(told)), flush=True)

    plan: dict[str, Any] = json.load(sys.stdin)
    Load(Plan(**plan)).run(tell)


if __name__ == "__main__":
    main()
