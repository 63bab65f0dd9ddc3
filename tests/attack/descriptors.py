"""Descriptor exhaustion: more clients than the process may have files open.

Twice: a server that knew its limit when it started keeps descriptors back for its store and its
callbacks; one whose limit sinks while it runs has none left for anybody, must survive that, and be in
order again soon after the clients have gone.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Final, NoReturn

import attrs
import click
import trio

from benchmarks.load import Connection, CutOffError, ask_once, request
from tests.attack.bytes_wire import HEALTHZ
from tests.attack.target import HEALTH, Target, open_target, until
from tests.attack.verdict import RECORD, Came, conclude, progress

BAR: Final = "descriptor exhaustion"
FILES: Final = 256
CLIENTS: Final = 400
EXECUTORS: Final = 50
RECOVERY_MAX_S: Final = 5.0
LOG_LINES_MAX: Final = 40
WORKERS: Final = 5
PACE_S: Final = 0.1
CALLED_MIN: Final = 0.5  # of what was accepted, while the crowd was there
ACCEPTED_MIN: Final = 0.5  # of what was due
STAY_S: Final = 600  # how long one may say nothing: who is closed sooner has to make room
SETTLED_S: Final = 2.0  # all of the crowd are there
END_S: Final = 30.0


@attrs.define
class Seen:
    """How those did who worked while there was no descriptor left."""

    descriptors: int = 0  # the most that the server had
    sent_away: int = 0  # connections of the crowd that the server ended
    accepted: int = 0
    called: int = 0  # callbacks made before the crowd left
    refused: int = 0  # tasks that were answered otherwise
    cut: int = 0  # requests without an answer
    waited_s: float = 0.0  # for an answer on a new connection, in the middle of it
    recovery_s: float = 0.0
    log_lines: int = 0

    def __str__(self) -> str:
        return (
            f"at most {self.descriptors} descriptors, {self.sent_away:,} idle connections ended, "
            f"{self.accepted:,} tasks accepted, "
            f"{self.called:,} called meanwhile and all in the end, {self.refused} refused, "
            f"{self.cut} requests cut off, "
            f"a new connection waited {self.waited_s:.1f} s, recovered in "
            f"{self.recovery_s:.1f} s, {self.log_lines} lines in the log"
        )


async def attack(seconds: float = 20.0) -> Came:
    """Both forms, one after the other."""
    keep = ("--keep-alive", str(STAY_S))
    async with open_target(*keep, executors=EXECUTORS, files=FILES) as target:
        progress(f"{CLIENTS} clients of a server that knows it may open {FILES} files")
        known = await _exhaust(target, seconds)
    async with open_target(executors=EXECUTORS) as target:
        target.limit_files(FILES)
        progress(f"{CLIENTS} clients of a server whose limit has sunk to {FILES} files")
        sunk = await _exhaust(target, seconds)
    return Came(
        tried=f"{CLIENTS} clients for {seconds:g} s, {FILES} files, known at the start or not",
        seen=f"known: {known}; not known: {sunk}",
        misses=[*_misses("known", known), *_misses("not known", sunk), *_specific(known, sunk)],
        late=[
            f"{name}: recovered too late"
            for name, seen in (("known", known), ("not known", sunk))
            if seen.recovery_s > RECOVERY_MAX_S
        ]
        + ["known: hardly anything was stored meanwhile"]
        * (known.accepted < ACCEPTED_MIN * WORKERS * seconds / PACE_S),
    )


def _misses(name: str, seen: Seen) -> list[str]:
    misses = []
    if seen.log_lines > LOG_LINES_MAX:
        misses.append(f"{name}: the log was flooded")
    if not seen.accepted:
        misses.append(f"{name}: nothing was stored meanwhile")
    return misses


def _specific(known: Seen, sunk: Seen) -> list[str]:
    misses = []
    if known.descriptors >= FILES:
        misses.append("known: the descriptors kept back were not enough")
    if known.called < max(1, CALLED_MIN * known.accepted):
        misses.append("known: too few callbacks meanwhile")
    if known.sent_away < CLIENTS - FILES:  # for so many there can be no room
        misses.append("known: nobody had to make room")
    if sunk.descriptors < FILES:
        misses.append("not known: the descriptors were never used up")
    return misses


async def _exhaust(target: Target, seconds: float) -> Seen:
    """Hold more connections than there can be, work meanwhile, and see it recover."""
    seen = Seen()
    base, lines = await target.base(), target.log().count("\n")
    async with trio.open_nursery() as nursery:
        for number in range(WORKERS):
            await nursery.start(_work, target, seen, number)
        for _ in range(CLIENTS):
            nursery.start_soon(_hold, target.port, seen)
        nursery.start_soon(_look, target, seen)
        nursery.start_soon(_ask_anew, target, seen)
        await trio.sleep(seconds)
        seen.called = await _called(target)
        nursery.cancel_scope.cancel(reason="the clients go")
    began = perf_counter()
    await target.health_s()

    async def all_are_called() -> bool:
        return await _called(target) >= seen.accepted and await target.unfinished() == 0

    if not await until(all_are_called, END_S):
        raise target.lost(f"of {seen.accepted} tasks {await _called(target)} were called")
    await target.settle(base, END_S)
    seen.recovery_s = perf_counter() - began
    seen.log_lines = target.log().count("\n") - lines
    return seen


async def _called(target: Target) -> int:
    return len((await target.stack.seen(counts=True))["counts"])


async def _hold(port: int, seen: Seen) -> None:
    """A client that asks for something small and stays, as long as it may; then another one."""
    while True:
        with suppress(OSError, trio.BrokenResourceError):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(HEALTHZ.replace(b"test", b"localhost"))
                while await stream.receive_some():
                    pass
                seen.sent_away += 1
        await trio.sleep(0.1)


async def _work(
    target: Target, seen: Seen, number: int, *, task_status: trio.TaskStatus[None]
) -> None:
    """A client that was there before the crowd, and creates tasks at a steady pace."""
    task = {"name": f"worker {number}", "callbackUrl": target.callback("/good"), "dispatch": "auto"}
    with Connection(target.url) as connection:
        await connection.ask(HEALTH)
        task_status.started()
        while True:
            await trio.sleep(PACE_S)
            try:
                answer = await connection.ask(request("POST", "/api/v1/tasks", task))
            except CutOffError:
                seen.cut += 1
            else:
                seen.accepted += answer.status == 201
                seen.refused += answer.status != 201


async def _ask_anew(target: Target, seen: Seen) -> None:
    """How long one waits for a connection."""
    await trio.sleep(SETTLED_S)
    began = perf_counter()
    try:
        await ask_once(target.url, HEALTH)
    except CutOffError as cut:
        progress(f"a new connection was cut off: {cut}")
        seen.cut += 1
    finally:  # also if the crowd leaves first
        seen.waited_s = perf_counter() - began


async def _look(target: Target, seen: Seen) -> None:
    while True:
        seen.descriptors = max(seen.descriptors, sum(target.descriptors()))
        await trio.sleep(0.05)


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """400 clients of a process that may have 256 files open."""
    conclude(BAR, "descriptors", partial(attack), record=record)
