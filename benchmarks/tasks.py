"""Ringback's API as the questions use it: creating tasks, waiting for them, accounting for them."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final

import attrs
import trio

from benchmarks.driver.load import task
from benchmarks.load import Answer, Connection, CutOffError, Request, ask_once, request
from benchmarks.report import Figure
from benchmarks.stack import Stack

STALL_S: Final = 30.0  # without any progress for this long, what is missing counts as lost
TRIES_MAX: Final = 100  # of one batch that is refused because the server is full


@attrs.frozen
class Settings:
    quick: bool
    full: bool
    queued: int | None
    directory: Path

    def say(self, text: str) -> None:
        """A line of progress, on stderr: stdout is for the table."""
        sys.stderr.write(f"  {text}\n")
        sys.stderr.flush()


@attrs.frozen
class Account:
    """The accepted tasks against the calls that the receiver saw and what the server says."""

    accepted: int
    lost: int  # accepted, never called
    unfinished: int  # accepted, yet not Completed
    duplicates: int  # calls beyond the first of a task
    strangers: int  # called, though its create was never answered

    def figures(self, question: str, what: str) -> list[Figure]:
        """What must be none stands beside every throughput, also when it is none."""
        called = f"{self.accepted:,} accepted, {self.accepted - self.lost:,} called"
        if self.strangers:
            called += f", {self.strangers:,} called whose create was never answered"
        return [
            Figure(question, f"{what}: lost", self.lost, limit=0, note=called),
            Figure(question, f"{what}: not Completed", self.unfinished, limit=0),
            Figure(question, f"{what}: duplicates", self.duplicates, limit=0),
        ]


def account(accepted: Collection[str], seen: Mapping[str, int], completed: int) -> Account:
    known = set(accepted)
    return Account(
        accepted=len(known),
        lost=sum(1 for task_id in known if not seen.get(task_id)),
        unfinished=max(0, len(known) - completed),
        duplicates=sum(count - 1 for count in seen.values() if count > 1),
        strangers=sum(1 for task_id in seen if task_id not in known),
    )


async def take_account(stack: Stack, accepted: Collection[str], *, elsewhere: int = 0) -> Account:
    """A fresh server and receiver are asked: every call is of ours, and every Completed task but
    those that were called ``elsewhere``."""
    seen = await stack.seen(counts=True)
    return account(accepted, seen["counts"], await count_completed(stack) - elsewhere)


def create(callback_url: str, number: int, dispatch: str) -> Request:
    return request("POST", "/api/v1/tasks", task(number, callback_url, dispatch))


def batches(callback_url: str, count: int, size: int, dispatch: str) -> Iterator[Request]:
    for first in range(0, count, size):
        numbers = range(first, min(first + size, count))
        tasks = [task(number, callback_url, dispatch) for number in numbers]
        yield request("POST", "/api/v1/tasks/batch", {"tasks": tasks})


def ids_of_batch(answer: Answer) -> list[str]:
    return [entry["taskId"] for entry in answer.json()["tasks"]]


async def fill(
    url: str,
    requests: Iterator[Request],
    *,
    connections: int = 4,
    on_batch: Callable[[int], None] = lambda _accepted: None,
) -> list[str]:
    """Create by batches until all are accepted, waiting when the server is full; the task ids."""
    accepted: list[str] = []

    async def one_connection() -> None:
        with Connection(url) as connection:
            for asked in requests:
                accepted.extend(ids_of_batch(await _until_accepted(connection, asked)))
                on_batch(len(accepted))

    async with trio.open_nursery() as nursery:
        for _ in range(connections):
            nursery.start_soon(one_connection)
    return accepted


async def _until_accepted(connection: Connection, asked: Request) -> Answer:
    for _ in range(TRIES_MAX):
        answer = await connection.ask(asked)
        if answer.status == 201:
            return answer
        if answer.status not in (429, 503):
            said = answer.body[:300].decode(errors="replace")
            raise CutOffError(f"status {answer.status}: {said}")
        await trio.sleep(float(answer.headers.get("retry-after", "0.2")))
    raise CutOffError(f"the server was full {TRIES_MAX} times in a row")


async def wait_until_completed(stack: Stack, count: int, settings: Settings) -> float | None:
    """When `count` tasks were Completed, on `time.perf_counter`; None when progress ended before.

    The receiver is asked first: it stands outside, so waiting costs the server nothing.
    """

    async def called() -> int:
        return int((await stack.seen())["total"])

    if not await reaches(called, count, "called", 0.02, settings):
        return None
    if not await reaches(partial(count_completed, stack), count, "Completed", 0.01, settings):
        return None
    return perf_counter()


async def count_completed(stack: Stack) -> int:
    stats = (await ask_once(stack.server.url, request("GET", "/api/v1/stats"))).json()
    return int(stats["counts"].get("Completed", 0))


async def reaches(
    count: Callable[[], Awaitable[int]], goal: int, word: str, every_s: float, settings: Settings
) -> bool:
    """Ask again and again until the count is there; False after STALL_S without progress."""
    best, moved_at = -1, perf_counter()
    said_at = moved_at
    while (now_at := await count()) < goal:
        now = perf_counter()
        if now_at > best:
            best, moved_at = now_at, now
        if now - moved_at > STALL_S:
            settings.say(f"no progress for {STALL_S:.0f} s: {best:,} of {goal:,} {word}")
            return False
        if now - said_at >= 2:
            settings.say(f"{now_at:,} of {goal:,} {word}")
            said_at = now
        await trio.sleep(every_s)
    return True
