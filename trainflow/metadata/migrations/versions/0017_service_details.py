"""What a part of the control plane, or a worker, says of itself."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

LongText = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("service", sa.Column("details", LongText, nullable=True))


def downgrade() -> None:
    op.drop_column("service", "details")
