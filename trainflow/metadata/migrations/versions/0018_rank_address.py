"""Where the first rank of an attempt is, whose ranks are on several hosts."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempt_credential", sa.Column("rank_address", sa.String(300), nullable=True))


def downgrade() -> None:
    op.drop_column("attempt_credential", "rank_address")
