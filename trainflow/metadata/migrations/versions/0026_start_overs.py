"""How often a task has started over because its wait could not be taken up."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trigger", sa.Column("start_overs", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("trigger", "start_overs")
