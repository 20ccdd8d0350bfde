"""Template fields as an attempt has rendered them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

LongText = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("attempt", sa.Column("rendered_fields", LongText, nullable=True))


def downgrade() -> None:
    op.drop_column("attempt", "rendered_fields")
