"""Where a task's callback goes, as a column, so that a dead destination can be passed over."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import sqlalchemy as sa
from alembic import context, op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BATCH = 1_000
TASK_ID = sa.Uuid(as_uuid=False).with_variant(sa.CHAR(36), "mssql")
READY = "wait = 'ready'"

_TASK = sa.table(
    "task",
    sa.column("id", TASK_ID),
    sa.column("spec", sa.UnicodeText),
    sa.column("destination", sa.String),
)


def upgrade() -> None:
    """Add the column, fill it, and only then build the indexes that hold it."""
    op.add_column(
        "task", sa.Column("destination", sa.String(300), nullable=False, server_default="")
    )
    if not context.is_offline_mode():
        _fill(op.get_bind())
    op.drop_index("ix_task_ready", "task")
    _index("ix_task_ready", "lane", "rank", "id", "due_at", "destination", "wait", where=READY)
    ready_to_run = f"{READY} AND lane = 'run'"
    columns = ("lane", "destination", "rank", "id", "due_at", "wait")
    _index("ix_task_ready_at", *columns, where=ready_to_run)


def _index(name: str, *columns: str, where: str) -> None:
    condition = sa.text(where)
    op.create_index(
        name,
        "task",
        list(columns),
        sqlite_where=condition,
        postgresql_where=condition,
        mssql_where=condition,
    )


def _fill(connection: sa.Connection) -> None:
    first = sa.select(_TASK.c.id, _TASK.c.spec).order_by(_TASK.c.id).limit(BATCH)
    fill = (
        sa.update(_TASK)
        .where(_TASK.c.id == sa.bindparam("of"))
        .values(destination=sa.bindparam("goes_to"))
    )
    batch = connection.execute(first).all()
    while batch:
        values = [
            {"of": task_id, "goes_to": _destination_of(json.loads(spec)["callback_url"])}
            for task_id, spec in batch
        ]
        connection.execute(fill, values)
        batch = connection.execute(first.where(_TASK.c.id > batch[-1][0])).all()


def _destination_of(url: str) -> str:
    """As ``engine.core.destinations`` had it when this was written."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return ""
    host = f"[{host}]" if ":" in host else host.removesuffix(".")
    return f"{parts.scheme}://{host}:{port}"


def downgrade() -> None:
    """Remove the column."""
    op.drop_index("ix_task_ready_at", "task")
    op.drop_index("ix_task_ready", "task")
    _index("ix_task_ready", "lane", "rank", "id", "due_at", where=READY)
    op.drop_column("task", "destination")
