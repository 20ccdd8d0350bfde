"""Runs that the next one does not wait for."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("dag_run", sa.Column("released_at", Moment, nullable=True))


def downgrade() -> None:
    op.drop_column("dag_run", "released_at")
