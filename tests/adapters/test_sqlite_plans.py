"""How SQLite answers: by indexes, without sorting, however many tasks there are."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from engine.adapters.storage.sqlite import SqliteStore, open_sqlite_store
from engine.adapters.threads import InlineRunSync
from engine.core.commands import (
    Cancel,
    Claim,
    IdempotencyKey,
    Prune,
    Recover,
    Refill,
    Sweep,
    Update,
)
from engine.core.queries import Kept, TaskQuery
from engine.core.task import Lane, Status
from tests.support.builders import an_id, at, commit, creating, finishing

LARGE = "task|found|archive|event|attempt|task_metadata|idempotency"  # "found" is a task, too
WALK = re.compile(rf"SCAN ({LARGE})\b(?! USING (COVERING )?INDEX)")


class Plans:
    """Notes every statement a store makes, and asks SQLite how it would run it."""

    def __init__(self, store: SqliteStore) -> None:
        self._driver = _driver_of(store._writer)
        self._said: set[str] = set()
        for connection in [store._writer, *(reader for _, reader in store._idle)]:
            _driver_of(connection).set_trace_callback(self._said.add)

    def explained(self) -> dict[str, list[str]]:
        """The steps of every statement."""
        return {
            statement: [row[3] for row in self._driver.execute(f"EXPLAIN QUERY PLAN {statement}")]
            for statement in list(self._said)
            if statement.startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))
        }


def _driver_of(connection: sa.Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


@pytest.fixture
async def store(tmp_path: Path):
    async with open_sqlite_store(str(tmp_path / "tasks.db"), InlineRunSync) as opened:
        yield opened


async def _live(store: SqliteStore) -> None:
    await commit(store, creating(1, 2, partition_key="k", metadata={"a": "b"}, deadline=at(99)))
    await commit(store, creating(3, 4, 5, key=IdempotencyKey("hash", "print")))
    await commit(store, creating(6, run_at=at(5)), Update(an_id(5), {"metadata": {"c": "d"}}))
    tasks = [(await commit(store, Claim(an_id(n), "old")))[0] for n in (1, 3, 4)]
    await commit(store, finishing(tasks[0]), finishing(tasks[1], 410), Cancel(an_id(2)))
    await commit(store, Recover("new", 10))
    await commit(store, Sweep(10), now=at(100))
    await commit(store, Refill(Lane.RUN, 10), now=at(100))
    await _pass_over(store)
    await commit(store, Prune(10), now=at(10**8))


async def _pass_over(store: SqliteStore) -> None:
    dead = ("http://dead.example:80", "http://gone.example:80")
    await commit(store, Refill(Lane.RUN, 10, without=dead, sides=dead, side_limit=5), now=at(100))


async def _read(store: SqliteStore) -> None:
    await store.get(an_id(1))
    await store.counts()
    await store.oldest_waiting()
    await store.partition_holder("k")
    await store.attempts(an_id(1))
    await store.task_events(an_id(1))
    await store.events(3, 10)
    await store.event_range()


async def _list(store: SqliteStore) -> None:
    some = frozenset({Status.QUEUED, Status.FAILED, Status.COMPLETED})
    for query in (
        TaskQuery(),
        TaskQuery(before=an_id(5)),
        TaskQuery(kept=Kept.ARCHIVE, statuses=frozenset({Status.CANCELLED})),
        TaskQuery(statuses=some),
        TaskQuery(statuses=some, before=an_id(5)),
        TaskQuery(statuses=some, names=frozenset({"invoice"})),
        TaskQuery(names=frozenset({"invoice", "other"}), before=an_id(5)),
        TaskQuery(metadata={"a": "b"}),
        TaskQuery(metadata={"a": "b", "c": "d"}, statuses=some, before=an_id(5)),
        TaskQuery(task_ids=frozenset({an_id(1), an_id(2)}), statuses=some),
        TaskQuery(created_after=at(1), priority=3),
    ):
        await store.tasks(query, 10, 5)


async def _count(store: SqliteStore) -> None:
    await store.count(TaskQuery())
    await store.count(TaskQuery(names=frozenset({"invoice"}), statuses=frozenset(Status)))
    await store.count(TaskQuery(metadata={"a": "b"}))


@pytest.mark.parametrize("use", [_live, _read, _list, _count])
async def test_no_statement_walks_a_large_table_or_sorts(
    store: SqliteStore, use: Callable[[SqliteStore], Awaitable[None]]
):
    plans = Plans(store)
    await use(store)
    explained = plans.explained()
    assert len(explained) >= 3
    bad = {
        statement: steps
        for statement, steps in explained.items()
        if any(WALK.search(step) or "TEMP B-TREE" in step for step in steps)
    }
    assert not bad


async def test_the_hot_paths_use_the_indexes_made_for_them(store: SqliteStore):
    plans = Plans(store)
    await _live(store)
    steps = {step for plan in plans.explained().values() for step in plan}
    text = "\n".join(sorted(steps))
    for index in ("ready", "ready_at", "scheduled", "turn", "expires", "status", "completed"):
        assert re.search(rf"SEARCH task USING (COVERING )?INDEX ix_task_{index}\b", text), index
    assert "ix_archive_archived" in text


async def test_many_tasks_are_looked_for_one_by_one(store: SqliteStore):
    plans = Plans(store)
    await commit(store, creating(*range(1, 31)))
    tasks = await commit(store, *(Claim(an_id(n), "me") for n in range(1, 31)))
    await commit(store, *map(finishing, tasks))
    by_start = {statement[:11]: steps for statement, steps in plans.explained().items()}
    one_by_one = "USING INDEX sqlite_autoindex_task_1 (id=?)"
    assert f"SEARCH task {one_by_one}" in by_start["UPDATE task"]
    assert f"SEARCH task {one_by_one}" in by_start["DELETE FROM"]
    assert f"SEARCH found {one_by_one}" in by_start["DELETE FROM"]


async def test_passing_a_destination_over_reads_an_index_and_no_rows(store: SqliteStore):
    """A million tasks of a dead host may lie at the head of the lane."""
    plans = Plans(store)
    await _pass_over(store)
    (plan,) = [plan for statement, plan in plans.explained().items() if "NOT IN" in statement]
    assert plan[0] == "SEARCH task USING COVERING INDEX ix_task_ready (lane=?)"
    sides = [plan for statement, plan in plans.explained().items() if "destination =" in statement]
    index = "SEARCH task USING COVERING INDEX ix_task_ready_at (lane=? AND destination=?)"
    assert sides == [[index]] * 2
