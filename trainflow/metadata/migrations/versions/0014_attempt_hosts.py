"""The host on which an attempt ran the last time."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempt", sa.Column("hostname", sa.String(length=250), nullable=True))


def downgrade() -> None:
    op.drop_column("attempt", "hostname")
