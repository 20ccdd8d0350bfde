"""Which executor a task is handed to."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task_instance", sa.Column("executor", sa.String(length=250), nullable=True))


def downgrade() -> None:
    op.drop_column("task_instance", "executor")
