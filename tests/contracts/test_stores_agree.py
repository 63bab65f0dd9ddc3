"""Any sequence of commands gives the same results and the same contents in every store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings, strategies as st

from engine.adapters.storage.memory import open_memory_store
from engine.adapters.storage.sqlite import open_sqlite_store
from engine.adapters.threads import InlineRunSync
from engine.config import EngineConfig
from engine.core.commands import (
    AnyCommand,
    Cancel,
    Claim,
    Create,
    Execute,
    Finish,
    IdempotencyKey,
    Prune,
    Recover,
    Refill,
    Release,
    Retry,
    Sweep,
    Take,
    Update,
)
from engine.core.destination import destination_of
from engine.core.outcome import Answer
from engine.core.queries import Kept, TaskQuery
from engine.core.task import Dispatch, ErrorClass, Lane, Status
from engine.ports.store import Store
from tests.support.builders import NOW, an_id, applying, at, creating

CONFIG = EngineConfig(
    queue_max=6,
    recoveries_max=2,
    idempotency_s=60,
    event_retention_s=120,
    archive_retention_s=90,
    ageing_s=10,
)

NUMBERS = st.integers(1, 8)
IDS = NUMBERS.map(an_id)
HOSTS = st.sampled_from(["http://a.example/x", "https://a.example/", "http://b.example:8080/"])
KEYS = st.sampled_from([None, "k", "☃"])
SECONDS = st.sampled_from([0, 1, 5, 30, 100])
LIMITS = st.integers(1, 3)
METADATA = st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"))


@st.composite
def creates(draw: st.DrawFn) -> AnyCommand:
    numbers = range(draw(st.integers(1, 3)))  # "_renumbered" makes them ids
    deadline = draw(st.none() | SECONDS.map(at))
    key = draw(st.none() | st.sampled_from("pq"))
    return creating(
        *numbers,
        key=None if key is None else IdempotencyKey(key, "body"),
        name=draw(st.sampled_from(["n", "ü"])),
        callback_url=draw(HOSTS),
        payload=draw(st.sampled_from([None, {"a": [1, "ü"]}])),
        priority=draw(st.integers(-2, 2)),
        dispatch=draw(st.sampled_from(Dispatch)),
        run_at=draw(st.none() | SECONDS.map(at)),
        deadline=deadline,
        metadata=draw(METADATA),
        partition_key=draw(KEYS),
    )


def finish(task_id: str, owner: str, attempt: int, answer: Answer) -> Finish:
    return Finish(
        task_id=task_id,
        owner=owner,
        attempt=attempt,
        answer=answer,
        started_at=NOW,
        duration_s=0.1,
        jitter=0.5,
    )


ANSWERS = st.sampled_from(
    [
        Answer(status_code=200, body="ü".encode()),
        Answer(status_code=500),
        Answer(status_code=410),
        Answer(error_class=ErrorClass.TIMEOUT, error="too slow"),
        Answer(error_class=ErrorClass.INTERRUPTED, error="stopped"),
    ]
)
OWNERS = st.sampled_from(["me", "you"])
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.integers(-2, 2),
        "metadata": METADATA,
        "run_at": SECONDS.map(at),
        "name": st.just("new"),
        "callback_url": HOSTS,
    },
)
COMMANDS = st.one_of(
    creates(),
    st.builds(Take, IDS, SECONDS.map(float)),
    st.builds(Execute, IDS),
    st.builds(Claim, IDS, OWNERS),
    st.builds(finish, IDS, OWNERS, st.integers(1, 3), ANSWERS),
    st.builds(Release, IDS),
    st.builds(Cancel, IDS, st.booleans()),
    st.builds(Retry, IDS),
    st.builds(Update, IDS, CHANGES),
    st.builds(Sweep, LIMITS),
    st.builds(Recover, OWNERS, LIMITS),
    st.builds(
        Refill,
        st.sampled_from(Lane),
        LIMITS,
        page=st.booleans(),
        without=st.sets(HOSTS.map(destination_of)).map(tuple),
        sides=st.sets(HOSTS.map(destination_of)).map(tuple),
        side_limit=LIMITS,
    ),
    st.builds(Prune, LIMITS),
)
FIRST = st.tuples(st.just(0), st.lists(creates(), min_size=2, max_size=4))
NEXT = st.tuples(SECONDS, st.lists(COMMANDS, min_size=1, max_size=4))
STEPS = st.builds(lambda first, rest: [first, *rest], FIRST, st.lists(NEXT, max_size=14))

QUERIES = [
    TaskQuery(),
    TaskQuery(kept=Kept.LIVE),
    TaskQuery(statuses=frozenset({Status.QUEUED, Status.CANCELLED})),
    TaskQuery(names=frozenset({"n", "new"})),
    TaskQuery(metadata={"a": "x"}),
    TaskQuery(created_after=at(20), priority=1),
]


async def _contents(store: Store) -> dict[str, Any]:
    tasks = await store.tasks(TaskQuery(), 1000)
    return {
        "tasks": tasks,
        "attempts": [await store.attempts(task.id) for task in tasks],
        "events": list(await store.events(0, 1000)),
        "range": await store.event_range(),
        "counts": await store.counts(),
        "oldest": await store.oldest_waiting(),
        "holders": [await store.partition_holder(key) for key in ("k", "☃")],
        "lists": [[t.id for t in await store.tasks(query, 3, 1)] for query in QUERIES],
        "numbers": [await store.count(query) for query in QUERIES],
    }


def _told(results: Sequence[Any] | Exception) -> list[Any]:
    """Results so that errors compare by kind and text."""
    if isinstance(results, Exception):  # of the whole transaction: texts are the driver's
        return [type(results)]
    return [(type(r), str(r)) if isinstance(r, Exception) else r for r in results]


async def _do(store: Store, commands: Sequence[AnyCommand], now: Any) -> list[Any]:
    try:
        return _told(await store.transact(applying(commands, now, CONFIG)))
    except Exception as error:
        return _told(error)


def _renumbered(
    steps: Sequence[tuple[int, Sequence[AnyCommand]]],
) -> Iterator[tuple[int, list[AnyCommand]]]:
    """The steps, with ids for new tasks that were never used before."""
    fresh = map(an_id, count(1))
    for seconds, commands in steps:
        yield (
            seconds,
            [
                Create(tuple((next(fresh), spec) for _, spec in one.tasks), one.key)
                if isinstance(one, Create)
                else one
                for one in commands
            ],
        )


async def _both(steps: Sequence[tuple[int, Sequence[AnyCommand]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            open_memory_store() as memory,
            open_sqlite_store(f"{folder}/tasks.db", InlineRunSync) as sqlite,
        ):
            now = NOW
            for seconds, commands in _renumbered(steps):
                now += at(seconds) - NOW
                assert await _do(sqlite, commands, now) == await _do(memory, commands, now)
            contents = await _contents(memory)
            assert await _contents(sqlite) == contents
            counted = dict.fromkeys(Status, 0)
            for task in contents["tasks"]:
                counted[task.status] += 1
            assert contents["counts"] == counted


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
@pytest.mark.slow
def test_stores_agree(steps):
    trio.run(_both, steps)
