"""What the executors of a scheduler are."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

LongText = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("service", sa.Column("executors", LongText, nullable=True))


def downgrade() -> None:
    op.drop_column("service", "executors")
