"""What attempts ask of stores."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

LongText = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("attempt", sa.Column("store_use", LongText, nullable=True))


def downgrade() -> None:
    op.drop_column("attempt", "store_use")
