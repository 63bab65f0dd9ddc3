"""The tables a SQLite file gets, and how."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from engine.adapters.codec import encode_spec
from engine.adapters.storage import (
    Revisions,
    migrate,
    migrations,
    revisions,
    rows,
    schema,
    statements as say,
)
from engine.core.destination import destination_of
from tests.support.builders import a_task


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


def url_of(file: Path) -> str:
    return f"sqlite:///{file}"


def test_migrating_an_empty_file_gives_the_tables_of_the_schema(file: Path):
    assert revisions(url_of(file)) == Revisions(None, migrations.HEAD)
    assert not file.exists()
    assert migrate(url_of(file)).current is None
    assert migrate(url_of(file)).current == migrations.HEAD
    direct = sa.create_engine("sqlite://")
    migrated = sa.create_engine(url_of(file))
    with direct.connect() as ours, migrated.connect() as theirs:
        assert compare_metadata(MigrationContext.configure(theirs), schema.METADATA) == []
        schema.METADATA.create_all(ours)
        made = [_definitions(connection) for connection in (ours, theirs)]
    direct.dispose()
    migrated.dispose()
    assert made[0] == made[1]


def _definitions(connection: sa.Connection) -> dict[str, str]:
    found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql > ''")
    return {name: sql.split() for name, sql in found if name != "alembic_version"}


def test_tasks_of_an_older_file_learn_where_they_go(file: Path):
    """More of them than are read at once."""
    urls = {1: "https://EXAMPLE.com/a", 2: "http://[::1]:8080/", 3: "http://["}
    tasks = [a_task(n, callback_url=urls.get(n, f"http://h{n}.example/")) for n in range(1, 2502)]
    engine = sa.create_engine(url_of(file))
    with engine.begin() as connection:
        config = migrations.script_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        values = [
            dict(
                zip(
                    rows.TASK_COLUMNS,
                    rows.task_row(task, encode_spec(task.spec), None),
                    strict=True,
                )
            )
            for task in tasks
        ]
        connection.execute(sa.insert(schema.task), values)
    assert migrate(url_of(file)) == Revisions("0001", migrations.HEAD)
    with engine.connect() as connection:
        found = dict(
            connection.execute(sa.select(schema.task.c.id, schema.task.c.destination)).all()
        )
        migrated = connection.execute(say.live_by_id, {"one": tasks[0].id}).one()
    engine.dispose()
    assert found == {task.id: destination_of(task.spec.callback_url) for task in tasks}
    assert rows.task_from(migrated) == tasks[0]


def test_the_head_is_the_newest_script():
    scripts = ScriptDirectory.from_config(migrations.script_config())
    assert scripts.get_heads() == [migrations.HEAD]


def test_every_table_can_be_removed_again(file: Path):
    migrate(url_of(file))
    engine = sa.create_engine(url_of(file))
    with engine.begin() as connection:
        config = migrations.script_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert sa.inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()
