"""A task whose row was damaged: it does not run, whoever asks for it is told so, and all others go on."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.adapters.storage import sqlite_file
from engine.adapters.storage.sqlite import open_sqlite_store
from engine.adapters.threads import InlineRunSync
from engine.core.commands import AnyCommand, Claim, Take
from engine.core.queries import TaskQuery
from engine.core.task import Dispatch, Status
from engine.errors import EngineError, QueueEmpty, TaskDamaged
from engine.service import Engine
from tests.support.builders import an_id, commit, creating, number
from tests.support.engine import GOOD, World, submit_one, until

DAMAGED = pytest.mark.parametrize(
    "damage",
    [
        "created_at = created_at + 64",
        "name = CAST(x'ff7b' AS TEXT)",
        "spec = replace(spec, 'a', 'b')",
    ],
    ids=["a number", "no UTF-8", "a letter"],
)
AUTO, MANUAL = Dispatch.AUTO, Dispatch.MANUAL
OTHERS = [an_id(n) for n in (1, 3, 4)]


@pytest.fixture(autouse=True)
def _nothing_is_checked_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a file that is too large for it."""
    monkeypatch.setattr(sqlite_file, "CHECKED_BYTES_MAX", 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


async def store(file: Path, *commands: AnyCommand) -> None:
    """Have a store do this, and close it."""
    async with open_sqlite_store(str(file), InlineRunSync) as opened:
        for done in await commit(opened, *commands):
            assert not isinstance(done, EngineError), done


def do_damage(file: Path, how: str, n: int = 2) -> None:
    with closing(sqlite3.connect(file)) as other, other:
        where = an_id(n).replace("-", "")
        assert other.execute(f"UPDATE task SET {how} WHERE id = ?", (where,)).rowcount == 1


@asynccontextmanager
async def engine_on(file: Path) -> AsyncIterator[tuple[Engine, World]]:
    world = World()
    async with open_sqlite_store(str(file), InlineRunSync) as opened:
        world.store.inner = opened  # type: ignore[assignment]
        async with world.open(dispatch=MANUAL) as engine:
            yield engine, world


async def is_told(engine: Engine, n: int = 2) -> None:
    with pytest.raises(TaskDamaged, match=r"tasks\.db: it is damaged: .*restore it"):
        await engine.get(an_id(n))


def set_aside(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.message for one in caplog.records if "it is set aside" in one.message]


@DAMAGED
async def test_the_others_are_called(file, caplog, damage, autojump_clock):
    await store(file, creating(1, 2, 3, 4, dispatch=AUTO, callback_url=GOOD))
    do_damage(file, damage)
    for _ in "again":
        async with engine_on(file) as (engine, world):
            await until(engine, OTHERS)
            await is_told(engine)
            assert an_id(2) not in {call.task_id for call in world.net.calls}
            found = await engine.list_tasks(TaskQuery(), limit=3)
            assert [number(task.id) for task in found] == [4, 3, 1]
            assert (await engine.stats()).oldest_waiting_s is None
    (told,) = set_aside(caplog)
    assert an_id(2) in told


@DAMAGED
async def test_nobody_behind_it_is_held_up(file, damage, autojump_clock):
    """It is not the first of its partition key."""
    keyed: dict[str, Any] = {"dispatch": AUTO, "callback_url": GOOD, "partition_key": "k"}
    await store(file, *(creating(n, **keyed) for n in (1, 2, 3, 4)))
    do_damage(file, damage)
    async with engine_on(file) as (engine, world):
        await until(engine, OTHERS)
        await is_told(engine)
    assert [number(call.task_id) for call in world.net.calls] == [1, 3, 4]


@DAMAGED
async def test_leases_of_others_end(file, damage, autojump_clock):
    await store(
        file,
        creating(1, 2, 3, 4, dispatch=MANUAL),
        *(Take(an_id(n), 5.0 + n) for n in (1, 2, 3, 4)),
    )
    do_damage(file, damage)
    async with engine_on(file) as (engine, _):
        await until(engine, OTHERS, Status.QUEUED, within_s=15)
        await is_told(engine)


@DAMAGED
async def test_attempts_of_others_are_recovered(file, damage, autojump_clock):
    auto = creating(1, 2, 3, 4, dispatch=AUTO, callback_url=GOOD)
    await store(file, auto, *(Claim(an_id(n), "who is gone") for n in (1, 2, 3, 4)))
    do_damage(file, damage)
    async with engine_on(file) as (engine, world):
        await until(engine, OTHERS)
        await is_told(engine)
    assert len(world.net.calls) == 3


@DAMAGED
async def test_dequeue_gives_the_others(file, damage, autojump_clock):
    await store(file, creating(1, 2, 3, 4, dispatch=MANUAL))
    do_damage(file, damage)
    async with engine_on(file) as (engine, _):
        assert {(await engine.dequeue()).id for _ in OTHERS} == set(OTHERS)
        with pytest.raises(QueueEmpty):
            await engine.dequeue()
        await is_told(engine)


@DAMAGED
async def test_whoever_wants_to_change_it_is_told(file, damage, autojump_clock):
    await store(file, creating(1, 2, dispatch=MANUAL))
    do_damage(file, damage)
    async with engine_on(file) as (engine, _):
        for change in (engine.cancel, engine.dequeue_task, engine.retry):
            with pytest.raises(TaskDamaged):
                await change(an_id(2))
        assert (await engine.cancel(an_id(1))).status is Status.CANCELLED


async def test_nor_does_it_run_when_it_cannot_be_set_aside(file, caplog, autojump_clock):
    """Where an index does not have what the row has, SQLite refuses to change the row."""
    await store(file, creating(1, 2, 3, 4, dispatch=AUTO, callback_url=GOOD))
    with indexes_hidden(file):
        do_damage(file, "rank = rank + 64")
    async with engine_on(file) as (engine, world):
        await until(engine, OTHERS)
        await trio.sleep(60)
        await is_told(engine)
        later = await submit_one(engine)
        await until(engine, [later])
        assert len(world.net.calls) == 4
    assert set_aside(caplog) == []
    assert "it cannot be set aside" in caplog.text


@contextmanager
def indexes_hidden(file: Path) -> Iterator[None]:
    """What is done meanwhile does not change them."""
    with closing(sqlite3.connect(file)) as other, other:
        other.execute("PRAGMA writable_schema = 1")
        hidden = other.execute("SELECT * FROM sqlite_master WHERE name LIKE 'ix_task%'").fetchall()
        other.execute("DELETE FROM sqlite_master WHERE name LIKE 'ix_task%'")
    yield
    with closing(sqlite3.connect(file)) as other, other:
        other.execute("PRAGMA writable_schema = 1")
        other.executemany("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", hidden)
