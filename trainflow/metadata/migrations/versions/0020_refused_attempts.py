"""When an attempt that had been given up was heard again."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("attempt", sa.Column("refused_at", Moment, nullable=True))


def downgrade() -> None:
    op.drop_column("attempt", "refused_at")
