"""The outbox tells several systems, each by a channel of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # what waits is for MLflow, which was the only one
    with op.batch_alter_table("outbox") as batch:
        batch.add_column(sa.Column("channel", sa.String(length=30), nullable=False, server_default="mlflow"))
        batch.drop_index("ix_outbox_delivered_at")
        batch.drop_constraint("uq_outbox_key", type_="unique")
        batch.create_unique_constraint("uq_outbox_key", ["key", "channel"])
        batch.create_index("ix_outbox_delivered_at", ["channel", "delivered_at", "id"])
    with op.batch_alter_table("outbox") as batch:
        batch.alter_column("channel", existing_type=sa.String(length=30), existing_nullable=False, server_default=None)


def downgrade() -> None:
    op.execute("DELETE FROM outbox WHERE channel != 'mlflow'")
    with op.batch_alter_table("outbox") as batch:
        batch.drop_index("ix_outbox_delivered_at")
        batch.drop_constraint("uq_outbox_key", type_="unique")
        batch.create_unique_constraint("uq_outbox_key", ["key"])
        batch.create_index("ix_outbox_delivered_at", ["delivered_at", "id"])
        batch.drop_column("channel")
