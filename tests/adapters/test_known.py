"""What a store knows without asking: how much, and that it is never believed against the file."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import pytest
import trio

from engine.actors.mailbox import Inbox
from engine.actors.repository import Repository
from engine.adapters.storage.known import Known
from engine.adapters.storage.sqlite import SqliteStore, open_sqlite_store
from engine.adapters.system import TrioClock
from engine.adapters.threads import InlineRunSync
from engine.config import EngineConfig
from engine.core.batch import Batch, Records, WriteSet
from engine.core.commands import AnyCommand, Cancel, Claim, Prune, Refill, Retry, Update
from engine.core.queries import TaskQuery
from engine.core.task import CallbackResult, Dispatch, Lane, Status
from engine.errors import StoreConflict, StoreFull, StoreRejected, TaskNotFound
from engine.messages import RepositoryMessage, Request
from tests.support.builders import (
    NOW,
    a_task,
    an_event,
    an_id,
    at,
    commit,
    creating,
    finishing,
    number,
    write,
)

# -- how much --------------------------------------------------------------------------------


def remembered(known: Known, numbers: range = range(1, 10)) -> list[int]:
    return [n for n in numbers if known.task(an_id(n)) is not None]


def test_it_knows_no_more_tasks_than_it_may():
    known = Known(tasks_max=3)
    for n in (1, 2, 3, 4):
        known.note(a_task(n), "{}")
    assert remembered(known) == [2, 3, 4]
    known.note(a_task(2, version=2), "{}")  # is now the newest
    known.note(a_task(5), "{}")
    assert remembered(known) == [2, 4, 5]


def test_it_keeps_no_more_text_than_it_may():
    text = "x" * 1000
    known = Known(bytes_max=3 * sys.getsizeof(text))
    for n in (1, 2, 3, 4):
        known.note(a_task(n), text)
    assert remembered(known) == [2, 3, 4]
    known.forget(an_id(2))
    known.note(a_task(3), "")  # less than before
    known.note(a_task(5), text)
    assert remembered(known) == [3, 4, 5]
    known.note(a_task(6), "☃" * 2000)  # too much for any place
    assert remembered(known) == []
    known.note(a_task(7), text)
    assert remembered(known) == [7]


def test_what_a_callback_answered_counts_as_text():
    known = Known(bytes_max=10_000)
    known.note(a_task(1), "{}")
    known.note(a_task(2, result=CallbackResult(status_code=500, body="x" * 6_000)), "{}")
    assert remembered(known) == [1, 2]
    known.note(a_task(3, result=CallbackResult(status_code=500, body="x" * 6_000)), "{}")
    assert remembered(known) == [3]


def test_a_text_is_of_one_spec_alone():
    known = Known()
    task = a_task(1)
    known.note(task, "{}")
    assert known.text(task.id, attrs.evolve(task, version=2).spec) == "{}"
    assert known.text(task.id, attrs.evolve(task.spec)) is None
    assert known.text(an_id(2), task.spec) is None


def test_nothing_is_known_after_clearing():
    known = Known()
    known.note(a_task(1), "{}")
    known.counts, known.last_seq = {Status.QUEUED: 1}, 7
    known.clear()
    known.add_to_counts({Status.QUEUED: 1})
    assert remembered(known) == []
    assert [known.counts, known.last_seq] == [None, None]
    assert repr(known) == "<Known 0 tasks, 0 bytes>"


# -- in a store ------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[Any]:
    async with open_sqlite_store(str(file), InlineRunSync) as opened:
        yield opened


@contextmanager
def asked(store: SqliteStore) -> Iterator[list[str]]:
    """What the writer asks the database meanwhile."""
    driver: Any = store._writer.connection.driver_connection
    said: list[str] = []
    driver.set_trace_callback(said.append)
    try:
        yield said
    finally:
        driver.set_trace_callback(None)
        said[:] = [one for one in said if one.startswith("SELECT")]


def by_hand(file: Path, statement: str, *values: object) -> None:
    """Change the file as somebody else."""
    with closing(sqlite3.connect(file)) as other, other:
        assert other.execute(statement, values).rowcount == 1


def hexed(n: int) -> str:
    return an_id(n).replace("-", "")


async def test_a_task_that_was_just_written_is_not_asked_for(store):
    await commit(store, creating(1, 2))
    with asked(store) as questions:
        tasks = await commit(store, Claim(an_id(1), "me"), Claim(an_id(2), "me"))
        failed, _ = await commit(store, finishing(tasks[0], 500), finishing(tasks[1]))
        await commit(store, creating(3), Claim(an_id(1), "me"), now=at(100))
    assert questions == []
    assert failed.status is Status.RETRYING
    found = await store.get(an_id(1))
    assert (found.attempt, found.version, found.status) == (2, 5, Status.PROCESSING)


async def test_what_is_read_once_is_known_then(file: Path):
    async with open_sqlite_store(str(file), InlineRunSync) as store:
        await commit(store, creating(1, 2, payload={"a": ["☃"]}, metadata={"a": "b"}))
    async with open_sqlite_store(str(file), InlineRunSync) as store:
        assert isinstance(store, SqliteStore)
        before = await store.get(an_id(1))
        assert before is not None
        (task,) = await commit(store, Claim(an_id(1), "me"))
        assert task.spec == before.spec
        with asked(store) as questions:
            (done,) = await commit(store, finishing(task))
        assert questions == []
        assert await store.get(an_id(1)) == done


async def test_a_task_whose_text_is_not_known_is_written_whole(store):
    store._known = Known(tasks_max=1)
    await commit(store, creating(1, 2, metadata={"a": "b"}))
    tasks = await commit(store, Claim(an_id(1), "me"), Claim(an_id(2), "me"))
    for task in tasks:
        assert await store.get(task.id) == task
    assert len(await store.tasks(TaskQuery(metadata={"a": "b"}), 5)) == 2
    await commit(store, *map(finishing, tasks))
    assert len(await store.tasks(TaskQuery(metadata={"a": "b"}), 5)) == 2


async def test_what_was_undone_is_not_known(store):
    await commit(store, creating(1), now=NOW)

    def work(records: Records) -> None:
        task = Batch(records).task(an_id(1))
        changed = attrs.evolve(task, version=2, owner="nobody", status=Status.PROCESSING)
        counts = {Status.QUEUED: -1, Status.PROCESSING: 1}
        records.write(
            WriteSet(
                inserts=[a_task(2)], updates=[(changed, 1)], events=[an_event(task)], counts=counts
            )
        )
        assert records.load({an_id(1), an_id(2)}) == {an_id(1): changed, an_id(2): a_task(2)}
        assert records.counts()[Status.PROCESSING] == 1
        raise KeyError("on purpose")

    with pytest.raises(KeyError):
        await store.transact(work)
    found = await store.transact(lambda records: records.load({an_id(1), an_id(2)}))
    assert found == {an_id(1): await store.get(an_id(1))}
    assert await store.transact(lambda records: dict(records.counts())) == await store.counts()
    (task,) = await commit(store, Claim(an_id(1), "me"))
    assert await store.get(an_id(1)) == task
    assert await store.event_range() == (1, 3)


async def test_what_could_not_be_committed_is_not_known(store):
    """The disk is full when everything has been written already, as far as we know."""
    driver = store._writer.connection.driver_connection
    pages = driver.execute("PRAGMA page_count").fetchone()[0]
    driver.execute(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(StoreFull):
        await commit(store, creating(*range(1, 200), payload="x" * 500))
    driver.execute(f"PRAGMA max_page_count = {pages + 5000}")
    (lost,) = await commit(store, Claim(an_id(1), "me"))
    assert isinstance(lost, TaskNotFound)
    await commit(store, creating(1))
    assert (await store.counts())[Status.QUEUED] == 1
    assert await store.event_range() == (1, 1)


async def test_refused_values_leave_nothing_behind(store):
    with pytest.raises(StoreRejected):
        await commit(store, creating(1), creating(2, payload="\ud800"))
    assert await store.transact(lambda records: records.load({an_id(1), an_id(2)})) == {}


@pytest.mark.parametrize("change", ["Update", "Cancel", "Claim"])
async def test_a_task_that_somebody_else_changed_is_a_conflict_once(store, file, change):
    commands: dict[str, AnyCommand] = {
        "Update": Update(an_id(1), {"priority": 7}),
        "Cancel": Cancel(an_id(1)),
        "Claim": Claim(an_id(1), "me"),
    }
    await commit(store, creating(1, 2))
    by_hand(file, "UPDATE task SET version = 5, seal = NULL WHERE id = ?", hexed(1))
    with pytest.raises(StoreConflict):
        await commit(store, Claim(an_id(2), "me"), commands[change])
    assert (await store.get(an_id(2))).status is Status.QUEUED
    _, task = await commit(store, Claim(an_id(2), "me"), commands[change])
    assert task.version > 5
    assert await store.get(an_id(1)) == task


async def test_a_task_that_somebody_else_removed_is_not_found_then(store, file):
    await commit(store, creating(1))
    by_hand(file, "DELETE FROM task WHERE id = ?", hexed(1))
    with pytest.raises(StoreConflict):
        await commit(store, Claim(an_id(1), "me"))
    (gone,) = await commit(store, Claim(an_id(1), "me"))
    assert isinstance(gone, TaskNotFound)


async def test_events_that_somebody_else_counted_are_a_conflict_once(store, file):
    await commit(store, creating(1))
    by_hand(file, "UPDATE counter SET value = 41 WHERE name = 'event'")
    with pytest.raises(StoreConflict):
        await commit(store, creating(2))
    await commit(store, creating(2))
    assert [event.seq for event in await store.task_events(an_id(2))] == [42]


async def test_the_repository_gets_over_what_was_not_true(store, file, autojump_clock):
    class Silent:
        def __call__(self, applied: object) -> None: ...

        def lost_track(self, rest_s: float) -> None:
            pytest.fail("a conflict is tried again")

    config = EngineConfig()
    inbox = Inbox[RepositoryMessage]("repository", 10)
    actor = Repository(inbox, store, TrioClock(NOW), config, Silent())
    async with trio.open_nursery() as nursery:
        await nursery.start(actor.run)
        await inbox.ask(partial(Request, creating(1)))
        by_hand(file, "UPDATE task SET version = 5, seal = NULL WHERE id = ?", hexed(1))
        task = await inbox.ask(partial(Request, Claim(an_id(1), "me")))
        inbox.close()
    assert task.version == 7
    assert await store.get(an_id(1)) == task


async def test_tasks_made_ready_by_time_are_not_known_as_scheduled(store):
    await commit(store, creating(1, dispatch=Dispatch.MANUAL, delay_s=10.0), creating(2))
    (reading,) = await commit(store, Refill(Lane.TAKE, 5), now=at(20))
    assert [number(entry.task_id) for entry in reading.page.ready] == [1]
    found = await store.transact(lambda records: records.load({an_id(1)}))
    assert found == {an_id(1): await store.get(an_id(1))}


async def test_pruned_tasks_are_no_longer_known(store):
    await commit(store, creating(1))
    (task,) = await commit(store, Claim(an_id(1), "me"))
    (failed,) = await commit(store, finishing(task, 410))
    assert failed.status is Status.FAILED
    assert await commit(store, Prune(10), now=at(10**9)) != [0]
    (gone,) = await commit(store, Retry(an_id(1)), now=at(10**9))
    assert isinstance(gone, TaskNotFound)


async def test_a_key_of_many_tasks_lets_the_next_one_go(store):
    """Those that follow are found by searching, and may be known already."""
    await commit(store, creating(1, 2, 3, partition_key="k", payload="p"))
    for n in (1, 2, 3):
        (task,) = await commit(store, Claim(an_id(n), "me"))
        await commit(store, finishing(task))
    assert {task.status for task in await store.tasks(TaskQuery(), 5)} == {Status.COMPLETED}


@asynccontextmanager
async def _both(folder: Path) -> AsyncIterator[tuple[Any, Any]]:
    async with (
        open_sqlite_store(str(folder / "a.db"), InlineRunSync) as one,
        open_sqlite_store(str(folder / "b.db"), InlineRunSync) as other,
    ):
        yield one, other


async def test_knowing_nothing_gives_the_same_contents(tmp_path: Path):
    async with _both(tmp_path) as (knows, forgets):
        for store in (knows, forgets):

            async def do(*commands: AnyCommand, now=NOW, store=store) -> list[Any]:
                if store is forgets:
                    store._known.clear()
                return await commit(store, *commands, now=now)

            await do(creating(1, 2, 3, partition_key="k"), creating(4, 5, metadata={"a": "b"}))
            one, four = await do(Claim(an_id(1), "me"), Claim(an_id(4), "me"))
            await do(finishing(one), finishing(four, 500), Update(an_id(5), {"name": "new"}))
            await do(Cancel(an_id(2)), Claim(an_id(4), "me"), now=at(50))
        for query in (TaskQuery(), TaskQuery(metadata={"a": "b"})):
            assert await knows.tasks(query, 10) == await forgets.tasks(query, 10)
        assert await knows.counts() == await forgets.counts()
        assert await knows.events(0, 99) == await forgets.events(0, 99)


async def test_writing_nothing_says_nothing(store):
    driver = store._writer.connection.driver_connection
    said: list[str] = []
    driver.set_trace_callback(said.append)
    assert await write(store) == 0
    driver.set_trace_callback(None)
    assert said == ["BEGIN IMMEDIATE", "COMMIT"]


async def test_a_task_that_is_pruned_and_asked_for_in_one_transaction_is_gone(store):
    await commit(store, creating(1))
    (task,) = await commit(store, Claim(an_id(1), "me"))
    await commit(store, finishing(task, 400), now=at(1))
    long_after = at(400 * 24 * 3600)
    pruned, refused = await commit(store, Prune(10), Retry(an_id(1)), now=long_after)
    assert pruned > 0
    assert isinstance(refused, TaskNotFound)


async def test_moments_in_the_hour_that_comes_twice_are_not_taken_for_each_other(store):
    berlin = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=berlin)
    second = first.replace(fold=1)
    for n, moment in enumerate((first, second), start=1):
        await commit(store, creating(n, run_at=moment))
    found = [(await store.get(an_id(n))).due_at for n in (1, 2)]
    assert found[1] - found[0] == timedelta(hours=1)
