"""When an attempt waited in the triggerer."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

LongText = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("attempt", sa.Column("waits", LongText, nullable=True))


def downgrade() -> None:
    op.drop_column("attempt", "waits")
