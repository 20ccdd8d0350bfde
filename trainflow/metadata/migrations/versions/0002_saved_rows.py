"""What a task instance has saved inside its split, and when it was cleared."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("task_instance", sa.Column("cleared_at", Moment, nullable=True))
    op.add_column("task_instance", sa.Column("saved_rows", sa.BigInteger(), nullable=True))
    op.add_column("task_instance", sa.Column("credited_rows", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    for name in ("credited_rows", "saved_rows", "cleared_at"):
        op.drop_column("task_instance", name)
