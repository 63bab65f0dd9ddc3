"""The tables a SQLite file gets, and how."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from engine.adapters.storage import Revisions, migrate, migrations, revisions, schema


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
