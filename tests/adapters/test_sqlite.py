"""What is special about one SQLite file."""

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
import sqlalchemy as sa

from engine.adapters.storage import migrate, open_store, revisions
from engine.adapters.storage.sqlite import SqliteStore, open_sqlite_store
from engine.adapters.storage.sqlite_file import SETTINGS
from engine.adapters.threads import InlineRunSync
from engine.core.queries import TaskQuery
from engine.core.task import Status
from engine.errors import (
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreRejected,
    StoreUnavailable,
)
from tests.support.builders import (
    NOW,
    a_task,
    an_answer,
    an_attempt,
    an_event,
    an_id,
    write,
)

KEEP_OPEN = """
import sys, trio
from engine.adapters.storage import open_store

async def main():
    async with open_store(sys.argv[1]):
        print("open", flush=True)
        sys.stdin.read()

trio.run(main)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


def driver_of(connection: sa.Connection) -> sqlite3.Connection:
    found = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)
    return found


def url_of(file: Path) -> str:
    return f"sqlite:///{file}"


async def test_every_connection_has_the_settings(file: Path):
    async with open_sqlite_store(str(file), InlineRunSync) as store:
        assert isinstance(store, SqliteStore)
        for connection in [store._writer, *(reader for _, reader in store._idle)]:
            driver = driver_of(connection)
            for name, wanted in SETTINGS.items():
                assert driver.execute(f"PRAGMA {name}").fetchone()[0] == wanted, name


async def test_a_setting_that_is_not_in_force_stops_the_start(file: Path, monkeypatch):
    monkeypatch.setitem(SETTINGS, "busy_timeout", -7)  # SQLite makes this 0
    with pytest.raises(StoreUnavailable, match="busy_timeout is 0"):
        async with open_store(url_of(file)):
            pass


async def test_a_second_open_is_refused(file: Path):
    async with open_store(url_of(file)):
        with pytest.raises(StoreLocked, match=r"tasks\.db is in use.*Stop"):
            async with open_store(url_of(file)):
                pass
        with pytest.raises(StoreLocked):
            migrate(url_of(file))
    async with open_store(url_of(file)):
        pass


@contextmanager
def other_server(url: str) -> Iterator[None]:
    command = [sys.executable, "-c", KEEP_OPEN, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        try:
            yield
        finally:
            process.kill()


@pytest.mark.slow
async def test_a_second_process_is_refused_until_the_first_is_gone(file: Path):
    with other_server(url_of(file)):
        with pytest.raises(StoreLocked):
            async with open_store(url_of(file)):
                pass
    async with open_store(url_of(file)) as store:
        assert await store.event_range() == (1, 0)


async def test_everything_is_there_after_opening_again(file: Path):
    task = a_task(1, metadata={"a": "b"}, payload={"x": "☃"})
    ended = a_task(2, status=Status.COMPLETED, archived_at=NOW)
    async with open_store(url_of(file)) as store:
        await write(
            store,
            inserts=[task],
            archived=[(ended, None)],
            events=[an_event(task)],
            attempts=[an_attempt(task.id)],
            answers=[an_answer()],
            counts={Status.QUEUED: 1},
        )
    assert not file.with_name("tasks.db-wal").exists()  # all of it is in the one file
    async with open_store(url_of(file)) as store:
        assert await store.tasks(TaskQuery(), 5) == [ended, task]
        assert await store.attempts(task.id) == [an_attempt(task.id)]
        assert await store.event_range() == (1, 1)
        assert (await store.counts())[Status.QUEUED] == 1
        assert await store.transact(lambda r: r.answer("key", NOW)) == an_answer()
        assert await write(store, events=[an_event(task)]) == 2


# -- files that are not ours -----------------------------------------------------------------


def content_of(file: Path) -> bytes:
    return file.read_bytes()


def replace(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def damaged(content: bytes, damage: str) -> bytes:
    half = len(content) // 2
    return {
        "header": content[:16] + b"\xff" * 84 + content[100:],
        "page": content[:4096] + b"\xa5" * (half - 4096) + content[half:],
        "cut": content[:half],
    }[damage]


async def _refused(file: Path, error: type[StoreError], match: str) -> None:
    before = content_of(file)
    with pytest.raises(error, match=match):
        async with open_store(url_of(file)):
            pass
    assert content_of(file) == before


async def test_a_file_that_is_no_database_is_left_alone(file: Path):
    replace(file, b"precious notes\n" * 100)
    await _refused(file, StoreDamaged, "not a SQLite database")


async def test_a_strangers_database_is_left_alone(file: Path):
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE theirs (x)")
        other.execute("PRAGMA journal_mode=wal")
    await _refused(file, StoreDamaged, "another program")


@pytest.mark.parametrize("damage", ["header", "page", "cut"])
async def test_a_damaged_database_is_refused(file: Path, damage: str):
    async with open_store(url_of(file)) as store:
        await write(store, inserts=[a_task(n, payload="x" * 2000) for n in range(1, 60)])
    replace(file, damaged(content_of(file), damage))
    await _refused(file, StoreDamaged, r"tasks\.db: ")


async def test_a_newer_database_is_refused(file: Path):
    migrate(url_of(file))
    with closing(sqlite3.connect(file)) as other, other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
        other.execute("ALTER TABLE task RENAME COLUMN reason TO why")  # nobody knows what is in it
    await _refused(file, StoreError, "9999, made by a newer version")
    assert revisions(url_of(file)).current == "9999"


async def test_a_folder_that_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(StoreUnavailable, match="nowhere"):
        async with open_store(url_of(tmp_path / "nowhere" / "tasks.db")):
            pass


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///dir/", "sqlite:x"]
)
def test_a_url_without_a_file_is_refused(url):
    with pytest.raises(ValueError, match=r"names no file; supported are memory:, sqlite:///"):
        open_store(url)


@pytest.mark.parametrize("url", ["", "tasks.db", "memory:x", "mysql://user:secret@host/db"])
def test_a_url_of_something_else_is_refused_without_showing_passwords(url):
    with pytest.raises(ValueError, match="supported are memory:") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


# -- trouble ---------------------------------------------------------------------------------


async def test_a_full_disk_refuses_writes_and_the_store_goes_on(file: Path):
    async with open_store(url_of(file)) as store:
        assert isinstance(store, SqliteStore)
        await write(store, inserts=[a_task(1)])
        driver = driver_of(store._writer)
        pages = driver.execute("PRAGMA page_count").fetchone()[0]
        driver.execute(f"PRAGMA max_page_count = {pages + 5}")
        huge = [a_task(n, payload="x" * 5000) for n in range(2, 60)]
        for _ in range(3):
            with pytest.raises(StoreFull):
                await write(store, inserts=huge, events=[an_event(huge[0])])
            assert await store.get(an_id(1)) == a_task(1)
            assert await store.event_range() == (1, 0)
        driver.execute(f"PRAGMA max_page_count = {pages + 500}")
        assert await write(store, inserts=huge, events=[an_event(huge[0])]) == 1
        assert len(await store.tasks(TaskQuery(), 100)) == 59


CLOSE_WITHOUT_SPACE = """
import resource, sys, trio
from engine.adapters.storage import open_store
from tests.support.builders import a_task, write

async def main():
    async with open_store(sys.argv[1]) as store:
        await write(store, inserts=[a_task(n, payload="x" * 5000) for n in range(1, 60)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

trio.run(main)
"""


def run_elsewhere(program: str, url: str) -> tuple[int, str]:
    """How a program in a process of its own ends, and what it complains of. Without coverage, which
    would complain that it cannot write either."""
    command = [sys.executable, "-c", program, url]
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
    return done.returncode, done.stderr


@pytest.mark.slow
async def test_closing_on_a_full_disk_leaves_everything_where_it_is(file: Path):
    """The -wal file cannot be moved into the database: it stays, and nothing is lost or said."""
    assert run_elsewhere(CLOSE_WITHOUT_SPACE, url_of(file)) == (0, "")
    async with open_store(url_of(file)) as store:
        assert len(await store.tasks(TaskQuery(), 100)) == 59


async def test_a_file_that_was_cut_off_in_another_journal_mode_is_finished(file: Path):
    """As one is that was killed while the file was made: only a writer can undo what is half done."""
    async with open_store(url_of(file)) as store:
        await write(store, inserts=[a_task(n, payload="x" * 5000) for n in range(1, 60)])
    left = file.with_name("left.db")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = delete")
        other.execute("PRAGMA cache_size = 1")
        other.execute("BEGIN")
        other.execute("UPDATE task SET spec = '{}'")  # some of it is written now, and journalled
        for suffix in ("", "-journal"):
            shutil.copy(f"{file}{suffix}", f"{left}{suffix}")
        other.rollback()
    async with open_store(url_of(left)) as store:
        assert await store.get(an_id(1)) == a_task(1, payload="x" * 5000)


async def test_a_writer_elsewhere_is_trouble_that_may_pass(file: Path):
    async with open_store(url_of(file)) as store:
        assert isinstance(store, SqliteStore)
        driver_of(store._writer).execute("PRAGMA busy_timeout = 1")
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable):
                await write(store, inserts=[a_task(1)])
            assert await store.get(an_id(1)) is None
        await write(store, inserts=[a_task(1)])


@pytest.mark.parametrize(
    "fields",
    [
        {"payload": float("nan")},
        {"payload": "\ud800"},
        {"payload": object()},
        {"name": "\udfff"},
        {"version": 2**63},
        {"owner": object()},
    ],
)
async def test_values_that_cannot_be_stored_are_rejected_for_good(file: Path, fields):
    async with open_store(url_of(file)) as store:
        with pytest.raises(StoreRejected):
            await write(store, inserts=[a_task(1), a_task(2, **fields)])
        assert await store.tasks(TaskQuery(), 5) == []
        await write(store, inserts=[a_task(1)])


async def test_a_question_that_cannot_be_asked_is_rejected(file: Path):
    async with open_store(url_of(file)) as store:
        await write(store, inserts=[a_task(1)])
        for question in (
            store.get("\ud800"),
            store.partition_holder("\ud800"),
            write(store, updates=[(a_task(1, version=2, name="\ud800"), 1)]),
        ):
            with pytest.raises(StoreRejected):
                await question
        assert await store.get(an_id(1)) == a_task(1)
