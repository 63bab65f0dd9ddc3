"""The tables. ``migrations`` builds them; a test compares the two.

Times are microseconds since 1970 in UTC, so that no dialect's time zones matter. ``spec`` and
``result`` are JSON texts of what is never searched for.

With a million waiting tasks everything must cost what it costs with a thousand, so each question
has its index, and most indexes hold only the rows their question is about.
"""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()

# SQL Server sorts its own type by the last bytes first; ids must sort by time.
TASK_ID = sa.Uuid(as_uuid=False).with_variant(sa.CHAR(36), "mssql")
MOMENT = sa.BigInteger()
# In SQLite only "INTEGER PRIMARY KEY" is the row's own number and needs no index beside it.
SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
LABEL = sa.String(20)

READY = "wait = 'ready'"
READY_TO_RUN = "wait = 'ready' AND lane = 'run'"
SCHEDULED = "wait = 'scheduled'"


def _task_columns() -> list[sa.Column[object]]:
    """What live and archived tasks have in common."""
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
        sa.Column("turn", LABEL),  # of its partition key: holds it, or is blocked; else NULL
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


def _seal() -> sa.Column[object]:
    """The checksum of the other columns; rows of earlier versions have none."""
    return sa.Column("seal", sa.BigInteger)


def _index(name: str, *columns: str, where: str | None = None) -> sa.Index:
    condition = None if where is None else sa.text(where)
    return sa.Index(
        name, *columns, sqlite_where=condition, postgresql_where=condition, mssql_where=condition
    )


task = sa.Table(
    "task",
    METADATA,
    *_task_columns(),
    # Scheme, host and port of the callback; only the lane "run" asks for it, so the archive does not.
    sa.Column("destination", sa.String(300), nullable=False, server_default=""),
    _seal(),
    _index("ix_task_status", "status", "id"),
    _index("ix_task_name", "name", "id"),
    # Holds all that a page asks for and all it is asked by ("wait" too: SQLite checks it again), so
    # that passing over the tasks of a dead destination touches no rows.
    _index("ix_task_ready", "lane", "rank", "id", "due_at", "destination", "wait", where=READY),
    # "lane" and "wait" are always the same here; without them SQLite would walk the other index.
    _index(
        "ix_task_ready_at",
        *("lane", "destination", "rank", "id", "due_at", "wait"),
        where=READY_TO_RUN,
    ),
    _index("ix_task_scheduled", "lane", "due_at", "rank", "id", where=SCHEDULED),
    _index("ix_task_turn", "partition_key", "turn", "id", where="turn IS NOT NULL"),
    _index("ix_task_expires", "expires_at", "id", where="expires_at IS NOT NULL"),
    _index("ix_task_completed", "completed_at", "id", where="completed_at IS NOT NULL"),
)

archive = sa.Table(
    "archive",
    METADATA,
    *_task_columns(),
    sa.Column("archived_at", MOMENT, nullable=False),
    _seal(),
    _index("ix_archive_status", "status", "id"),
    _index("ix_archive_name", "name", "id"),
    _index("ix_archive_archived", "archived_at", "id"),
)

event = sa.Table(
    "event",
    METADATA,
    sa.Column("seq", SEQ, primary_key=True, autoincrement=False),
    sa.Column("at", MOMENT, nullable=False),
    sa.Column("task_id", TASK_ID, nullable=False),
    sa.Column("name", sa.Unicode(200), nullable=False),
    sa.Column("from_status", LABEL),
    sa.Column("to_status", LABEL, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("reason", sa.UnicodeText),
    sa.Column("result", sa.UnicodeText),
    _index("ix_event_task", "task_id", "seq"),
)

attempt = sa.Table(
    "attempt",
    METADATA,
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

task_metadata = sa.Table(
    "task_metadata",
    METADATA,
    sa.Column("key", sa.Unicode(100), primary_key=True),
    sa.Column("value", sa.Unicode(500), primary_key=True),
    sa.Column("task_id", TASK_ID, primary_key=True),
    _index("ix_task_metadata_task", "task_id"),
    sqlite_with_rowid=False,
)

idempotency = sa.Table(
    "idempotency",
    METADATA,
    sa.Column("hash", sa.String(200), primary_key=True),
    sa.Column("fingerprint", sa.String(200), nullable=False),
    sa.Column("receipts", sa.UnicodeText, nullable=False),
    sa.Column("created_at", MOMENT, nullable=False),
    _index("ix_idempotency_created", "created_at", "hash"),
)

status_count = sa.Table(
    "status_count",
    METADATA,
    sa.Column("status", LABEL, primary_key=True),
    sa.Column("n", sa.BigInteger, nullable=False),
)

counter = sa.Table(
    "counter",
    METADATA,
    sa.Column("name", LABEL, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

meta = sa.Table(
    "meta",
    METADATA,
    sa.Column("name", LABEL, primary_key=True),
    sa.Column("value", sa.String(200), nullable=False),
)
