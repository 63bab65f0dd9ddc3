"""Brings a database to the tables this code knows, with Alembic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from engine.errors import StoreDamaged, StoreError

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0003"
"""The newest revision; a test compares it with the scripts."""

_VERSIONS = sa.table("alembic_version", sa.column("version_num"))


def current(connection: sa.Connection) -> str | None:
    """The revision of a database; ``None`` if it is empty."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(sa.select(_VERSIONS.c.version_num)).scalar()
    return found


def upgrade(connection: sa.Connection) -> None:
    """Make the tables those of ``HEAD``. The connection is in a transaction, which the caller
    commits. Raises ``StoreError`` for tables that a newer program or a stranger made."""
    found = current(connection)
    if found == HEAD:
        return
    if found is None and sa.inspect(connection).get_table_names():
        raise StoreDamaged("the database holds tables of another program; it is left as it is")

    from alembic import command
    from alembic.script import ScriptDirectory

    config = script_config()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StoreError(
            f"the database has revision {found}, made by a newer version of this program, which"
            f" knows {HEAD} at most. Start that newer version, or restore an older backup."
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def script_config() -> Config:
    """Where Alembic finds the scripts."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    return config
