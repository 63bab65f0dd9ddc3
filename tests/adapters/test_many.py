"""Statements about many rows: whatever their number, each row is written once, or none is."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mssql, postgresql, sqlite

from engine.adapters.storage import statements as say
from engine.adapters.storage.many import CHARACTERS_MAX, PARAMETERS_MAX, ROWS_MAX, Many
from engine.adapters.storage.sqlite import open_sqlite_store
from engine.adapters.threads import InlineRunSync
from engine.core.queries import TaskQuery
from engine.core.task import Status, Task
from engine.errors import StoreConflict, StoreRejected
from tests.support.builders import NOW, a_task, an_attempt, an_event, an_id, write

WRITES = say.writes(sqlite.dialect())
SIZES = sorted({getattr(WRITES, field.name).rows_max for field in attrs.fields(say.Writes)})
EDGES = sorted({0, 1, *(size + more for size in SIZES for more in (-1, 0, 1))})
DIALECTS: dict[str, sa.Dialect] = {
    "sqlite": sqlite.dialect(),
    "postgresql": postgresql.psycopg.dialect(paramstyle="format"),  # type: ignore[no-untyped-call]
    "mssql": mssql.dialect(paramstyle="qmark"),  # type: ignore[no-untyped-call]
}


@pytest.fixture
async def store(tmp_path: Path):
    async with open_sqlite_store(str(tmp_path / "tasks.db"), InlineRunSync) as opened:
        yield opened


def ended(task: Task) -> Task:
    return attrs.evolve(task, status=Status.COMPLETED, version=3, archived_at=NOW)


@pytest.mark.parametrize("number", EDGES)
async def test_any_number_of_rows_is_written(store, number):
    tasks = [a_task(n, metadata={"n": str(n)}) for n in range(1, number + 1)]
    events = [an_event(task) for task in tasks]
    await write(
        store, inserts=tasks, events=events, attempts=[an_attempt(task.id) for task in tasks]
    )
    assert await store.tasks(TaskQuery(), number + 1) == tasks[::-1]
    assert [event.task_id for event in await store.events(0, number + 1)] == [t.id for t in tasks]
    second = [attrs.evolve(task, version=2, owner=f"of {task.id}") for task in tasks]
    await write(store, updates=[(task, 1) for task in second], events=events)
    assert await store.tasks(TaskQuery(), number + 1) == second[::-1]
    third = [ended(task) for task in second]
    await write(store, archived=[(task, 2) for task in third], events=events)
    assert await store.tasks(TaskQuery(), number + 1) == third[::-1]
    assert await store.event_range() == (1, 3 * number)
    for task in third[-1:]:
        assert await store.attempts(task.id) == [an_attempt(task.id)]
        assert await store.tasks(TaskQuery(metadata={"n": str(number)}), 2) == [task]


@pytest.mark.parametrize("kind", ["updates", "archived"])
@pytest.mark.parametrize("number", [size + 1 for size in SIZES])
async def test_one_row_that_is_not_as_expected_undoes_them_all(store, number, kind):
    tasks = [a_task(n) for n in range(1, number + 1)]
    await write(store, inserts=tasks)
    changed = [
        ended(task) if kind == "archived" else attrs.evolve(task, version=3) for task in tasks
    ]
    for wrong in (0, number // 2, number - 1):
        rows = [(task, 1) for task in changed]
        rows[wrong] = (changed[wrong], 2)
        with pytest.raises(StoreConflict):
            await write(store, **{kind: rows}, events=[an_event(tasks[0])])
        assert await store.tasks(TaskQuery(), number) == tasks[::-1]
        assert await store.event_range() == (1, 0)
    await write(store, **{kind: [(task, 1) for task in changed]})
    assert await store.tasks(TaskQuery(), number) == changed[::-1]


async def test_one_row_that_is_refused_undoes_them_all(store):
    number = WRITES.insert_tasks.rows_max + 1
    tasks = [a_task(n) for n in range(1, number + 1)]
    for wrong in (0, number - 1):
        bad = [*tasks]
        bad[wrong] = attrs.evolve(bad[wrong], version=2**63)
        with pytest.raises(StoreRejected):
            await write(store, inserts=bad)
        assert await store.tasks(TaskQuery(), 1) == []
    await write(store, inserts=tasks)
    with pytest.raises(StoreRejected):
        await write(store, inserts=[a_task(n) for n in range(number, 2 * number)])
    assert await store.get(an_id(number + 1)) is None


@pytest.mark.parametrize("name", DIALECTS)
def test_statements_keep_below_the_limits_of_databases(name):
    writes = say.writes(DIALECTS[name])
    for field in attrs.fields(say.Writes):
        many: Many = getattr(writes, field.name)
        row = tuple(None for _ in range(many.width))
        plain = attrs.evolve(many, converts=())
        parts = list(plain.parts([row] * (2 * many.rows_max + 1)))
        assert [len(values) // many.width for _, values in parts] == [
            many.rows_max,
            many.rows_max,
            1,
        ]
        for text, values in parts:
            assert len(values) <= min(PARAMETERS_MAX, ROWS_MAX * many.width)
            assert text.count("?") + text.count("%s") == len(values)


def test_every_dialect_says_how_rows_are_found():
    postgres, server = (say.writes(DIALECTS[name]) for name in ("postgresql", "mssql"))
    assert postgres.update_states.row.startswith(
        "SELECT %s::UUID AS known_id, %s::BIGINT AS known_version, %s::VARCHAR AS status"
    )
    assert server.delete_tasks.row == "SELECT ? AS id, ? AS version"
    for writes in (WRITES, postgres, server):
        assert writes.update_states.after.startswith(
            ") AS changed WHERE task.id = changed.known_id AND task.version = changed.known_version"
        )
        assert "JOIN" in writes.delete_tasks.before


def test_long_texts_make_statements_of_fewer_rows():
    row: list[str | None] = [None] * WRITES.insert_attempts.width
    long, longest = list(row), list(row)
    column = WRITES.insert_attempts.texts[-1]
    long[column] = "x" * (CHARACTERS_MAX // 2)
    longest[column] = "x" * (CHARACTERS_MAX + 1)
    rows = [row, long, long, long, longest, row, row]
    found = [len(values) // len(row) for _, values in WRITES.insert_attempts.parts(rows)]
    assert found == [3, 1, 1, 2]
