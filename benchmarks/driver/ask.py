"""After the load: what does the stack itself say of every task?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.driver.client import CUT_OFF
from benchmarks.driver.wire import request

if TYPE_CHECKING:
    from benchmarks.driver.run import Driver

FINAL: Final = frozenset({"Completed", "Failed", "Cancelled"})
_NO_ANSWER: Final = "no answer"
_PAUSE_S: Final = 0.05  # before those that are not final are asked for again


def states_of(driver: Driver, task_ids: Iterable[bytes]) -> dict[str, int]:
    """The states of the tasks, each asked for until it is final or the time for that is over.

    That time begins when all were asked for once: a stack that is slow to answer has it too. Every
    task counts, those without an answer as such.
    """
    plan = driver.plan
    if plan.dispatch != "auto":
        return {}
    asked = _spread(list(task_ids), plan.ask)
    found = dict.fromkeys(asked, _NO_ANSWER)
    _round(driver, asked, found)
    ends_at = perf_counter() + plan.final_s
    while driver.stalled is None and perf_counter() < ends_at:
        asked = [task_id for task_id in asked if found[task_id] not in FINAL]
        if not asked:
            break
        _pause(driver)
        _round(driver, asked, found)
    return dict(Counter(found.values()))


def _pause(driver: Driver) -> None:
    """Callbacks are still answered meanwhile."""
    until = perf_counter() + _PAUSE_S
    driver.turn_while(lambda: perf_counter() < until, [], lambda: 0)


def _spread(task_ids: list[bytes], most: int | None) -> list[bytes]:
    """At most so many of them, from all over the run."""
    if most is None or most >= len(task_ids):
        return task_ids
    return [task_ids[number * len(task_ids) // most] for number in range(most)]


def _round(driver: Driver, task_ids: list[bytes], found: dict[bytes, str]) -> None:
    def ask(number: int) -> bytes:
        return request("GET", f"/api/v1/tasks/{task_ids[number].decode()}", driver.host)

    def keep(number: int, _began: float, _ended: float, status: int, body: bytes) -> None:
        found[task_ids[number]] = _state(status, body)

    count = len(task_ids)
    client = driver.client(ask, keep, total=count, most=min(driver.plan.ask_connections, count))
    driver.turn_while(lambda: not client.done, [client], lambda: client.ended)
    client.close()


def _state(status: int, body: bytes) -> str:
    if status != 200:
        return _NO_ANSWER if status == CUT_OFF else f"status {status}"
    try:
        return str(json.loads(body)["status"])
    except (ValueError, KeyError, TypeError):
        return "an answer without a status"
