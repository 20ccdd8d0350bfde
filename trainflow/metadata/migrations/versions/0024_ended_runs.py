"""The run of a DAG that ended last is found without a look at the others."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_dag_run_ended_at", "dag_run", ["dag_id", "ended_at", "number"])


def downgrade() -> None:
    op.drop_index("ix_dag_run_ended_at", table_name="dag_run")
