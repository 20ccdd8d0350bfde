"""Leases by counters, and the moment at which a wait was written down."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("service", sa.Column("heartbeats", sa.Integer(), nullable=True))
    op.add_column("task_instance", sa.Column("waits_since", Moment, nullable=True))


def downgrade() -> None:
    op.drop_column("task_instance", "waits_since")
    op.drop_column("service", "heartbeats")
