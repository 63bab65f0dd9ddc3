"""One run: the load, then the question what became of every task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter, process_time
from typing import Final
from urllib.parse import urlsplit

import attrs

from benchmarks.driver.ask import states_of
from benchmarks.driver.client import Client, OnAnswer
from benchmarks.driver.load import Load
from benchmarks.driver.loop import Loop
from benchmarks.driver.plan import Plan, Result
from benchmarks.driver.receiver import Receiver
from benchmarks.driver.result import result_of
from benchmarks.running import Usage, usage_of

_WARM_CONNECTIONS: Final = 100
_LOOK_S: Final = 0.05  # how often it is looked whether anything still moves


def run(plan: Plan) -> Result:
    """Warm up, load, ask. Ends by itself, whatever the stack does."""
    driver = Driver(plan)
    few = min(plan.connections, _WARM_CONNECTIONS)
    warm = Load(driver, attrs.evolve(plan, tasks=plan.warm, rate=None, connections=few, readers=()))
    if plan.warm:
        warm.run()
    load = Load(driver, plan)
    usage, cpu_s = usage_of(plan.roots), process_time()
    if driver.stalled is None:
        load.run()
    cpu_s = process_time() - cpu_s
    used = _between(usage, usage_of(plan.roots)) if plan.roots else None
    stalled = driver.stalled
    driver.go_on()
    states = states_of(driver, load.books.began)
    return result_of(
        load,
        warm=warm,
        states=states,
        stalled=stalled or driver.stalled,
        cpu_s=cpu_s,
        usage=used,
    )


def _between(before: Usage, after: Usage) -> Usage:
    return attrs.evolve(after, cpu_s=after.cpu_s - before.cpu_s)


class Driver:
    """The loop, the receiver, and the end of all patience."""

    def __init__(self, plan: Plan) -> None:
        parts = urlsplit(plan.url)
        self.plan, self.host = plan, parts.netloc
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._loop = Loop()
        self.receiver = Receiver(self._loop)
        self._ends_at = perf_counter() + plan.limit_s
        self.stalled: str | None = None  # why it was given up

    def __repr__(self) -> str:
        return f"<Driver of {self.host}, {self._loop!r}>"

    def client(
        self,
        request: Callable[[int], bytes],
        on_answer: OnAnswer,
        *,
        total: float,
        most: int,
        may: Callable[[], bool] = lambda: True,
    ) -> Client:
        """A client of the stack."""
        return Client(
            self._loop, self._address, request, on_answer, total=total, most=most, may=may
        )

    def go_on(self) -> None:
        """Questions are asked also of a stack that stalled; they get some time in any case."""
        self.stalled = None
        self._ends_at = max(self._ends_at, perf_counter() + self.plan.final_s)

    def connect(self, client: Client, count: int) -> None:
        """Open connections ahead."""
        try:
            client.connect(count)
        except OSError as error:
            self._give_up(error)

    def turn_while(
        self, going: Callable[[], bool], clients: Sequence[Client], moved: Callable[[], int]
    ) -> None:
        """Load and answer until it is done, or until nothing moves, which is noted."""
        seen, seen_at = moved(), perf_counter()
        look_at = seen_at + _LOOK_S
        while self.stalled is None and going():
            try:
                now = self._turn(clients)
            except OSError as error:
                self._give_up(error)
                return
            if now < look_at:
                continue
            look_at = now + _LOOK_S
            if moved() != seen:
                seen, seen_at = moved(), now
            elif now - seen_at > self.plan.stall_s:
                self.stalled = f"nothing moved for {self.plan.stall_s:g} s"
            if now > self._ends_at:
                self.stalled = f"not done after {self.plan.limit_s:g} s"

    def _give_up(self, error: OSError) -> None:
        self.stalled = f"cannot connect: {error}"

    def _turn(self, clients: Sequence[Client]) -> float:
        """Send and answer what is due, handle what is ready."""
        receiver, now = self.receiver, perf_counter()
        receiver.answer_due(now)
        until = min(receiver.due, now + _LOOK_S)
        for client in clients:
            until = min(until, client.pump(now))
        self._loop.turn(until)
        return now
