"""A checksum beside every task. Those that are there get theirs when they next change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = ("task", "archive")


def upgrade() -> None:
    """Add the columns."""
    for table in TABLES:
        op.add_column(table, sa.Column("seal", sa.BigInteger))


def downgrade() -> None:
    """Remove them."""
    for table in TABLES:
        op.drop_column(table, "seal")
