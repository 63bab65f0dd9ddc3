"""Poison: hostile tasks among good ones. What can be refused at the door is; the rest fails, each with
its reason; every good task is done, once; and afterwards all executors still work."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs
import click

from benchmarks.load import Connection, Request, request
from engine import Status
from tests.attack.target import Target, open_target, until
from tests.attack.verdict import RECORD, Came, claims, conclude, progress
from tests.integration.test_outcomes import ENDLESS, ROWS, Row, callee_of
from tests.support.callees import make_certificates
from tests.support.url_corpus import Verdict, corpus

BAR: Final = "poison"
GOOD: Final = 5_000
POISON: Final = 300
EXECUTORS: Final = 100
AT_DOOR: Final = 4  # one of so many hostile tasks is one that the door knows
BATCH: Final = 50
TIMEOUT_S: Final = 1.0
DONE_S: Final = 400.0
ALIVE_S: Final = 60.0
SLOW_MS: Final = 5_000
_WAITING: Final = ("Queued", "Pending", "Processing", "Retrying")

HARMFUL: Final[Mapping[str, Row]] = {
    name: row for name, row in (ROWS | ENDLESS).items() if row.status is Status.FAILED
} | ENDLESS
"""Callees that go wrong. Some of them, who answer 200 and never end, are believed: cut, and kept."""

NOWHERE: Final = "http://nobody.invalid/"
DOCUMENTS: Final = (
    rb'{"name":"n","callbackUrl":"%s","payload":"\ud800"}',
    rb'{"name":"n","callbackUrl":"%s","payload":"\u0000"}',
    rb'{"name":"\udfff","callbackUrl":"%s"}',
    rb'{"name":"n","callbackUrl":"%s","payload":NaN}',
    b'{"name":"n","callbackUrl":"%s","payload":' + b"9" * 5000 + b"}",
    b'{"name":"n","callbackUrl":"%s","payload":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"name":"n","callbackUrl":"%s","headers":{"A":"b\\r\\nHost: c"}}',
    b'{"name":"n","callbackUrl":"%s","payload":"' + b"\xed\xa0\x80" + b'"}',
)


@attrs.define
class Poisoned:
    """What came of it."""

    good: list[str] = attrs.field(factory=list)  # ids
    hostile: dict[str, tuple[str, Status]] = attrs.field(factory=dict)  # id: name, what must come
    refused: Counter[int] = attrs.field(factory=Counter)  # at the door
    reasons: Counter[str] = attrs.field(factory=Counter)
    wrong: list[str] = attrs.field(factory=list)
    alive: int = 0

    @property
    def tried(self) -> int:
        return len(self.hostile) + self.refused.total()


async def attack(good: int = GOOD, poison: int = POISON) -> Came:
    """So many hostile tasks among so many good ones."""
    found = await run(good, poison)
    told = ", ".join(f"{kind} ×{count}" for kind, count in found.reasons.most_common())
    return Came(
        tried=f"{found.tried} hostile tasks among {len(found.good):,} good ones",
        seen=f"all good ones Completed, once; {found.refused.total()} refused at the door, {len(found.hostile)} ended: "
        f"{told}; then {found.alive} of {EXECUTORS} callbacks in flight at once",
        misses=found.wrong,
    )


async def run(good: int, poison: int) -> Poisoned:
    """Create them all, and look what became of each."""
    found = Poisoned()
    options = ("--dispatch", "auto", "--breaker-open", "2", "--connect-timeout", "0.5")
    async with open_target(*options, executors=EXECUTORS) as target, _callees() as urls:
        await _create(target, urls, good, poison, found)
        progress(f"{len(found.good):,} good and {len(found.hostile)} hostile tasks accepted")
        if not await until(partial(_is_idle, target), DONE_S, every_s=0.5):
            found.wrong.append(f"not all have ended after {DONE_S:g} s: {await target.stats()}")
        await _check_good(target, found)
        await _check_hostile(target, found)
        found.alive = await _alive(target)
        if found.alive < EXECUTORS:
            found.wrong.append(f"only {found.alive} executors still work")
    return found


@asynccontextmanager
async def _callees() -> AsyncIterator[dict[str, str]]:
    """A callee for each row; their URLs by the name of the row."""
    async with AsyncExitStack() as opened:
        place = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        certificates = make_certificates(place)
        callees = {
            name: await opened.enter_async_context(callee_of(row, certificates))
            for name, row in HARMFUL.items()
        }
        yield {name: callee.url() for name, callee in callees.items()} | {"a lost name": NOWHERE}


async def _create(
    target: Target, urls: Mapping[str, str], good: int, poison: int, found: Poisoned
) -> None:
    hostile = islice(zip(cycle(urls.items()), strict=False), poison - poison // AT_DOOR)
    at_door = islice(cycle(_for_the_door()), poison // AT_DOOR)
    batches = max(1, -(-good // BATCH))
    share = -(-poison // batches)
    with Connection(target.url) as connection:
        for first in range(0, good, BATCH):
            tasks = [_good(target)] * min(BATCH, good - first)
            answer = await connection.ask(request("POST", "/api/v1/tasks/batch", {"tasks": tasks}))
            if answer.status != 201:
                raise target.lost(f"good tasks are refused: {answer.status} {answer.body[:200]!r}")
            found.good += [task["taskId"] for task in answer.json()["tasks"]]
            for ((name, url),) in islice(hostile, share - share // AT_DOOR):
                await _poison(connection, name, url, found)
            for asked in islice(at_door, -(-share // AT_DOOR)):
                await _knock(connection, asked, found)


def _good(target: Target) -> dict[str, Any]:
    return {"name": "good", "callbackUrl": target.callback("/good")}


async def _poison(connection: Connection, name: str, url: str, found: Poisoned) -> None:
    task = {
        "name": name,
        "callbackUrl": url,
        "timeoutSeconds": TIMEOUT_S,
        "retryPolicy": {"maxAttempts": 2, "initialIntervalSeconds": 0.1, "jitter": False},
    }
    answer = await connection.ask(request("POST", "/api/v1/tasks", task))
    if answer.status != 201:
        found.wrong.append(f"{name}: {answer.status}")
        return
    wanted = HARMFUL[name].status if name in HARMFUL else Status.FAILED
    found.hostile[answer.json()["taskId"]] = (name, wanted)


def _for_the_door() -> Iterator[Request]:
    """Tasks that are wrong by themselves."""
    head = request("POST", "/api/v1/tasks", {}).head.partition(b"content-length")[0]
    urls = [case.url for case in corpus() if case.verdict is Verdict.MALFORMED]
    bodies = [json.dumps({"name": "n", "callbackUrl": url}).encode() for url in urls]
    places = range(0, len(bodies), max(1, len(bodies) // 60))  # from all over the corpus
    chosen = [bodies[place] for place in places]
    chosen += [document.replace(b"%s", b"http://127.0.0.1:1/") for document in DOCUMENTS]
    for body in chosen:
        yield Request(head + b"content-length: %d\r\n" % len(body), body)


async def _knock(connection: Connection, asked: Request, found: Poisoned) -> None:
    answer = await connection.ask(asked)
    found.refused[answer.status] += 1
    if not 400 <= answer.status <= 499:
        found.wrong.append(f"{answer.status} for {asked.body[:100]!r}")


async def _is_idle(target: Target) -> bool:
    counts = (await target.stats())["counts"]
    return not any(counts.get(status, 0) for status in _WAITING)


async def _check_good(target: Target, found: Poisoned) -> None:
    calls = (await target.stack.seen(counts=True))["counts"]
    unlike = [task_id for task_id in found.good if calls.get(task_id) != 1]
    if unlike or len(calls) != len(found.good):
        found.wrong.append(f"{len(unlike)} good tasks not called just once: {unlike[:3]}")
    completed = (await target.stats())["counts"].get("Completed", 0)
    wanted = len(found.good) + sum(is_to is Status.COMPLETED for _, is_to in found.hostile.values())
    if completed != wanted:
        found.wrong.append(f"{completed} Completed instead of {wanted}")


async def _check_hostile(target: Target, found: Poisoned) -> None:
    with Connection(target.url) as connection:
        for task_id, (name, wanted) in found.hostile.items():
            task = (await connection.ask(request("GET", f"/api/v1/tasks/{task_id}"))).json()
            result = task["callbackResult"] or {}
            reason = result.get("errorClass") or f"{result.get('statusCode')}, cut"
            found.reasons[reason] += 1
            told = task["reason"] and result.get("error")
            is_cut = result.get("truncated") and len(result["body"]) <= 64 * 1024
            if task["status"] != wanted or not (told if wanted is Status.FAILED else is_cut):
                found.wrong.append(f"{name}: {task['status']}, {task['reason']}, {result}"[:300])


async def _alive(target: Target) -> int:
    """How many callbacks are in flight at once at a callee that takes its time."""
    task = {"name": "alive", "callbackUrl": target.callback(f"/slow?ms={SLOW_MS}")}
    tasks = {"tasks": [{**task, "timeoutSeconds": ALIVE_S}] * EXECUTORS}
    await target.ask("POST", "/api/v1/tasks/batch", tasks, wanted=(201,))
    most = 0

    async def all_there() -> bool:
        nonlocal most
        most = max(most, (await target.stack.seen())["inFlight"])
        return bool(most >= EXECUTORS)

    await until(all_there, ALIVE_S, every_s=0.05)
    return most


@click.command()
@click.option("--good", default=GOOD, show_default=True)
@click.option("--poison", default=POISON, show_default=True)
@RECORD
def command(*, good: int, poison: int, record: bool) -> NoReturn:
    """Create hostile tasks among good ones."""
    claims(record=record, good=(good, GOOD), poison=(poison, POISON))
    command = f"poison --good {good} --poison {poison}"
    conclude(BAR, command, partial(attack, good, poison), record=record)
