"""The first tables."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TASK_ID = sa.Uuid(as_uuid=False).with_variant(sa.CHAR(36), "mssql")
MOMENT = sa.BigInteger()
SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
LABEL = sa.String(20)
STATUSES = ("Queued", "Pending", "Processing", "Retrying", "Completed", "Failed", "Cancelled")


def _task_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("id", TASK_ID, primary_key=True),
        sa.Column("name", sa.Unicode(200), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("partition_key", sa.Unicode(200)),
        sa.Column("spec", sa.UnicodeText, nullable=False),
        sa.Column("status", LABEL, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("rank", sa.BigInteger, nullable=False),
        sa.Column("lane", LABEL),
        sa.Column("wait", LABEL),
        sa.Column("turn", LABEL),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("recoveries", sa.Integer, nullable=False),
        sa.Column("owner", sa.Unicode(200)),
        sa.Column("expires_at", MOMENT),
        sa.Column("executed_at", MOMENT),
        sa.Column("completed_at", MOMENT),
        sa.Column("result", sa.UnicodeText),
        sa.Column("reason", sa.UnicodeText),
    ]


def _index(name: str, table: str, *columns: str, where: str | None = None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(
        name,
        table,
        list(columns),
        sqlite_where=condition,
        postgresql_where=condition,
        mssql_where=condition,
    )


def upgrade() -> None:
    """Make the tables, and the rows that are always there."""
    _create_tasks()
    _create_history()
    _create_labels()
    _create_counters()


def _create_tasks() -> None:
    op.create_table(
        "task",
        *_task_columns(),
    )
    _index("ix_task_status", "task", "status", "id")
    _index("ix_task_name", "task", "name", "id")
    _index("ix_task_ready", "task", "lane", "rank", "id", "due_at", where="wait = 'ready'")
    _index("ix_task_scheduled", "task", "lane", "due_at", "rank", "id", where="wait = 'scheduled'")
    _index("ix_task_turn", "task", "partition_key", "turn", "id", where="turn IS NOT NULL")
    _index("ix_task_expires", "task", "expires_at", "id", where="expires_at IS NOT NULL")
    _index("ix_task_completed", "task", "completed_at", "id", where="completed_at IS NOT NULL")
    op.create_table(
        "archive",
        *_task_columns(),
        sa.Column("archived_at", MOMENT, nullable=False),
    )
    _index("ix_archive_status", "archive", "status", "id")
    _index("ix_archive_name", "archive", "name", "id")
    _index("ix_archive_archived", "archive", "archived_at", "id")


def _create_history() -> None:
    op.create_table(
        "event",
        sa.Column("seq", SEQ, primary_key=True, autoincrement=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("task_id", TASK_ID, nullable=False),
        sa.Column("name", sa.Unicode(200), nullable=False),
        sa.Column("from_status", LABEL),
        sa.Column("to_status", LABEL, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("reason", sa.UnicodeText),
        sa.Column("result", sa.UnicodeText),
    )
    _index("ix_event_task", "event", "task_id", "seq")
    op.create_table(
        "attempt",
        sa.Column("task_id", TASK_ID, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=False),
        sa.Column("duration_s", sa.Double, nullable=False),
        sa.Column("method", LABEL, nullable=False),
        sa.Column("url", sa.UnicodeText, nullable=False),
        sa.Column("counted", sa.Boolean, nullable=False),
        sa.Column("result", sa.UnicodeText, nullable=False),
    )


def _create_labels() -> None:
    op.create_table(
        "task_metadata",
        sa.Column("key", sa.Unicode(100), primary_key=True),
        sa.Column("value", sa.Unicode(500), primary_key=True),
        sa.Column("task_id", TASK_ID, primary_key=True),
        sqlite_with_rowid=False,
    )
    _index("ix_task_metadata_task", "task_metadata", "task_id")
    op.create_table(
        "idempotency",
        sa.Column("hash", sa.String(200), primary_key=True),
        sa.Column("fingerprint", sa.String(200), nullable=False),
        sa.Column("receipts", sa.UnicodeText, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    _index("ix_idempotency_created", "idempotency", "created_at", "hash")


def _create_counters() -> None:
    status_count = op.create_table(
        "status_count",
        sa.Column("status", LABEL, primary_key=True),
        sa.Column("n", sa.BigInteger, nullable=False),
    )
    counter = op.create_table(
        "counter",
        sa.Column("name", LABEL, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    meta = op.create_table(
        "meta",
        sa.Column("name", LABEL, primary_key=True),
        sa.Column("value", sa.String(200), nullable=False),
    )
    op.bulk_insert(status_count, [{"status": status, "n": 0} for status in STATUSES])
    op.bulk_insert(counter, [{"name": "event", "value": 0}])
    op.bulk_insert(meta, [{"name": "uuid", "value": str(uuid.uuid4())}])
    created = sa.cast(sa.func.current_timestamp(), sa.String(40))
    op.execute(meta.insert().values(name="created", value=created))


def downgrade() -> None:
    """Remove everything."""
    for table in (
        "meta",
        "counter",
        "status_count",
        "idempotency",
        "task_metadata",
        "attempt",
        "event",
        "archive",
        "task",
    ):
        op.drop_table(table)
