"""What the lock file knows of its database, and what is refused because of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from engine.adapters.storage import migrate, open_store, revisions, sqlite_mark
from engine.adapters.storage.sqlite_file import locked
from engine.adapters.storage.sqlite_mark import Mark, Noted
from engine.core.queries import TaskQuery
from engine.errors import StoreDamaged, StoreIncomplete, StoreUnavailable, TaskDamaged
from tests.support.builders import a_task, an_event, write
from tests.support.cli import start

SUFFIXES = ("", "-wal", "-shm", ".lock")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture(autouse=True)
def at_every_commit(monkeypatch) -> None:
    monkeypatch.setattr(sqlite_mark, "INTERVAL_S", 0.0)


def url_of(file: Path) -> str:
    return f"sqlite:///{file}"


def beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


def noted_in(file: Path) -> Noted | None:
    with locked(file) as mark:
        return mark.read()


async def add(file: Path, *numbers: int) -> None:
    """Tasks with an event each, in a transaction each."""
    async with open_store(url_of(file)) as store:
        for n in numbers:
            await write(store, inserts=[a_task(n)], events=[an_event(a_task(n))])


async def killed_with(file: Path, *numbers: int) -> None:
    """The files as a process leaves them that is killed after this: all of it is in the -wal."""
    elsewhere = file.with_name("killed")
    elsewhere.mkdir()
    async with open_store(url_of(file)) as store:
        for n in numbers:
            await write(store, inserts=[a_task(n)], events=[an_event(a_task(n))])
        for suffix in SUFFIXES:
            shutil.copy2(beside(file, suffix), elsewhere)
    for suffix in SUFFIXES:
        beside(file, suffix).unlink(missing_ok=True)
        shutil.move(beside(elsewhere / file.name, suffix), beside(file, suffix))


async def count(file: Path) -> int:
    async with open_store(url_of(file)) as store:
        return len(await store.tasks(TaskQuery(), 100))


async def refused(file: Path, match: str) -> None:
    """Opening is refused, naming the file and the way out, and changes nothing."""

    def content() -> dict[str, bytes]:
        return {
            one: beside(file, one).read_bytes()
            for one in ("", "-wal", ".lock")
            if beside(file, one).exists() and beside(file, one).stat().st_size
        }

    before = content()
    for _ in range(2):
        with pytest.raises(StoreIncomplete, match=match) as caught:
            async with open_store(url_of(file)):
                pass
        assert str(caught.value).startswith(f"{file}: ")
        assert "`ringback migrate --accept-loss`" in str(caught.value)
    with pytest.raises(StoreIncomplete, match=match):
        migrate(url_of(file))
    assert content() == before


# -- what is noticed ---------------------------------------------------------------------------


async def test_a_database_that_is_gone_is_not_made_anew(file: Path):
    await add(file, 1, 2, 3)
    beside(file, "").unlink()
    await refused(file, "no tasks in it, though it is known to have had 3 events")
    assert not beside(file, "").exists()


async def test_nor_is_one_that_is_empty(file: Path):
    await add(file, 1)
    os.truncate(file, 0)
    await refused(file, "no tasks in it")


async def test_a_wal_that_is_gone_is_noticed(file: Path):
    await add(file, 1, 2)
    await killed_with(file, 3, 4, 5)
    beside(file, "-wal").unlink()
    await refused(file, "3 events are missing: its newest is 2, and 5 was on disk")


async def test_a_damaged_frame_of_the_wal_is_noticed(file: Path):
    await add(file, 1)
    await killed_with(file, *range(2, 20))
    wal = beside(file, "-wal")
    content = bytearray(wal.read_bytes())
    content[len(content) // 2] ^= 1
    wal.write_bytes(content)
    await refused(file, "events are missing: its newest is")


async def test_an_older_backup_is_noticed(file: Path):
    await add(file, 1)
    backup = beside(file, "").read_bytes()
    await add(file, 2)
    beside(file, "").write_bytes(backup)
    await refused(file, "1 events are missing: its newest is 1, and 2 was on disk")


async def test_another_database_is_noticed(file: Path, tmp_path: Path):
    await add(file, 1)
    other = tmp_path / "other.db"
    await add(other, *range(1, 10))
    shutil.copy(other, file)
    await refused(file, "another database")


@pytest.mark.parametrize("at", [3, 40, 50, 60])
async def test_a_damaged_note_is_not_trusted(file: Path, at: int):
    await add(file, 1)
    lock = beside(file, ".lock")
    content = bytearray(lock.read_bytes())
    content[at] ^= 1
    lock.write_bytes(content)
    await refused(file, r"lock file is damaged.*newest event is 1")


async def test_a_wal_without_its_database_is_not_removed(file: Path):
    await killed_with(file, 1)
    beside(file, "").unlink()
    beside(file, ".lock").unlink()
    before = beside(file, "-wal").read_bytes()
    for ask in (migrate, revisions):
        with pytest.raises(StoreIncomplete, match="its -wal file is there; put the database back"):
            ask(url_of(file))
    assert beside(file, "-wal").read_bytes() == before


# -- what is accepted --------------------------------------------------------------------------


async def test_whoever_accepts_the_loss_goes_on_with_what_is_there(file: Path):
    await add(file, 1, 2)
    await killed_with(file, 3)
    beside(file, "-wal").unlink()
    assert migrate(url_of(file), accept_loss=True).current is not None
    assert await count(file) == 2
    await add(file, 4)
    assert noted_in(file) == Noted(uuid_of(file), 3)


async def test_or_begins_anew(file: Path):
    await add(file, 1)
    beside(file, "").unlink()
    migrate(url_of(file), accept_loss=True)
    assert await count(file) == 0
    assert noted_in(file) == Noted(uuid_of(file), 0)


async def test_or_with_another_database(file: Path, tmp_path: Path):
    await add(file, 1, 2)
    other = tmp_path / "other.db"
    await add(other, 1)
    shutil.copy(other, file)
    migrate(url_of(file), accept_loss=True)
    assert noted_in(file) == Noted(uuid_of(other), 1)


async def test_a_damaged_note_can_be_replaced(file: Path):
    await add(file, 1)
    beside(file, ".lock").write_bytes(b"nonsense, and more of it than a note is long " * 3)
    await refused(file, "lock file is damaged")
    migrate(url_of(file), accept_loss=True)
    assert await count(file) == 1


@pytest.mark.parametrize("content", [None, b"", bytes(67)])
async def test_a_lock_file_that_knows_nothing_learns(file: Path, content: bytes | None):
    """Of an earlier version, of a backup that was taken elsewhere, or never written to the disk."""
    await add(file, 1, 2)
    lock = beside(file, ".lock")
    lock.unlink()
    if content is not None:
        lock.write_bytes(content)
    assert await count(file) == 2
    assert noted_in(file) == Noted(uuid_of(file), 2)


async def test_a_backup_goes_elsewhere_with_its_lock_file_too(file: Path, tmp_path: Path):
    await add(file, 1, 2)
    place = tmp_path / "elsewhere"
    place.mkdir()
    for suffix in ("", ".lock"):
        shutil.copy2(beside(file, suffix), place)
    assert await count(place / file.name) == 2


def uuid_of(file: Path) -> str:
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("SELECT value FROM meta WHERE name = 'uuid'").fetchone()
    return str(found[0])


# -- what is noted -----------------------------------------------------------------------------


async def test_a_commit_is_noted_and_what_is_undone_is_not(file: Path):
    async with open_store(url_of(file)) as store:
        lock = beside(file, ".lock")
        await write(store, events=[an_event(a_task(1))])
        assert b" 00000000000000000001 " in lock.read_bytes()

        def fail(records):
            records.write_nothing()

        with pytest.raises(AttributeError):
            await store.transact(fail)
        assert b" 00000000000000000001 " in lock.read_bytes()
        await write(store, events=[an_event(a_task(n)) for n in (2, 3)])
        assert b" 00000000000000000003 " in lock.read_bytes()


async def test_what_a_killed_process_left_is_noted_only_when_it_is_surely_on_disk(file: Path):
    """Its last commits may be with the system alone; the first commit of ours waits for them."""
    await add(file, 1)
    await killed_with(file, 2, 3)
    beside(file, ".lock").unlink()
    async with open_store(url_of(file)) as store:
        assert b" 00000000000000000000 " in beside(file, ".lock").read_bytes()
        await store.transact(lambda records: records.counts())
        assert b" 00000000000000000000 " in beside(file, ".lock").read_bytes()
        await write(store, events=[an_event(a_task(4))])
        assert b" 00000000000000000004 " in beside(file, ".lock").read_bytes()


async def test_the_note_lags_a_little_and_is_exact_at_the_end(file: Path, monkeypatch):
    monkeypatch.setattr(sqlite_mark, "INTERVAL_S", 1000.0)
    async with open_store(url_of(file)) as store:
        for n in (1, 2, 3):
            await write(store, events=[an_event(a_task(n))])
        assert b" 00000000000000000001 " in beside(file, ".lock").read_bytes()
    assert noted_in(file) == Noted(uuid_of(file), 3)


async def test_a_note_never_goes_back(file: Path):
    await add(file, 1, 2)
    with locked(file) as mark:
        known = mark.read()
        assert known is not None
        mark.begin(known)
        mark.note(1)
        assert mark.read() == known


def test_a_note_that_cannot_be_written_is_no_trouble(tmp_path: Path):
    lock = tmp_path / "lock"
    with opened(lock, os.O_RDWR | os.O_CREAT) as descriptor:
        Mark(descriptor).begin(Noted("x", 1))
    with opened(lock, os.O_RDONLY) as descriptor:
        mark = Mark(descriptor)
        mark.begin(Noted("x", 1))
        mark.committed(2)
        assert mark.read() == Noted("x", 1)


async def test_but_to_begin_it_has_to_be_written(file: Path, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreUnavailable, match=r"tasks\.db: its lock file cannot be.*No space"):
        async with open_store(url_of(file)):
            pass


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# -- damage inside -----------------------------------------------------------------------------


async def test_a_task_that_cannot_be_read_is_damage(file: Path):
    await add(file, 1, 2)
    with closing(sqlite3.connect(file)) as other, other:
        other.execute("UPDATE task SET spec = replace(spec, '{', '[')")
    with pytest.raises(StoreDamaged, match=r"tasks\.db: it is damaged: the row of .*restore it"):
        async with open_store(url_of(file)):
            pass


@pytest.mark.parametrize("column", ["spec", "status"])
async def test_so_it_is_while_the_store_is_open(file: Path, column: str):
    await add(file, 1, 2)
    async with open_store(url_of(file)) as store:
        with closing(sqlite3.connect(file)) as other, other:
            other.execute(f"UPDATE task SET {column} = CAST(x'ff7b' AS TEXT)")
        with pytest.raises(TaskDamaged, match=r"tasks\.db: it is damaged: .*restore it"):
            await store.get(a_task(1).id)


async def test_an_index_that_lacks_a_task_is_damage(file: Path):
    await add(file, 1)
    with closing(sqlite3.connect(file)) as other, other:
        other.execute("PRAGMA writable_schema = 1")
        other.execute("UPDATE sqlite_master SET sql = '' WHERE name = 'ix_task_status'")
    with pytest.raises(StoreDamaged, match="it is damaged"):
        async with open_store(url_of(file)):
            pass


# -- on the command line -----------------------------------------------------------------------


@pytest.mark.slow
async def test_the_command_line_refuses_in_one_line_and_knows_the_way_out(file: Path):
    await add(file, 1)
    beside(file, "").unlink()
    served = start("serve", "--port", "0", "--database", url_of(file), url="")
    _, words = served.communicate(timeout=30)
    assert served.returncode == 1
    assert words.startswith(f"ringback: {file}: there are no tasks in it")
    assert len(words.splitlines()) == 1
    accepted = start("migrate", "--accept-loss", "--database", url_of(file), url="")
    assert accepted.communicate(timeout=30)[1] == ""
    assert accepted.returncode == 0
    assert await count(file) == 0


def test_a_process_that_is_killed_in_the_middle_leaves_a_note_that_is_true(file: Path):
    """Never ahead of what is there, at whatever moment."""
    program = """
import sys, trio
from engine.adapters.storage import open_store, sqlite_mark
from tests.support.builders import a_task, an_event, write
sqlite_mark.INTERVAL_S = 0.0
async def main():
    async with open_store(sys.argv[1]) as store:
        for n in range(1, 100_000):
            await write(store, events=[an_event(a_task(1))])
            print(n, flush=True)
trio.run(main)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, url_of(file)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        last = [int(process.stdout.readline()) for _ in range(50)][-1]
        process.kill()
    known = noted_in(file)
    assert known is not None
    assert known.seq >= last - 1
    migrate(url_of(file))  # does not refuse
