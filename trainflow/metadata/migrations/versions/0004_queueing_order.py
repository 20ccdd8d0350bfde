"""Who has been ready for longest is queued first."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NAME = "ix_task_instance_queueing"
BEFORE = ("state", "resumed DESC", "priority_weight DESC")


def _make(*more: str) -> None:
    op.drop_index(NAME, "task_instance")
    op.create_index(NAME, "task_instance", [sa.text(column) for column in BEFORE] + list(more))


def upgrade() -> None:
    _make("scheduled_at", "id")


def downgrade() -> None:
    _make("id")
