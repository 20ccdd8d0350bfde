"""The metrics that an attempt reported while it ran."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

BigKey = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
LongText = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def _binary() -> dict[str, Any]:
    on_mariadb = getattr(op.get_context().dialect, "is_mariadb", False)
    collation = "utf8mb4_nopad_bin" if on_mariadb else "utf8mb4_0900_bin"
    return {
        f"{dialect}_{option}": value
        for dialect in ("mysql", "mariadb")
        for option, value in (("charset", "utf8mb4"), ("collate", collation))
    }


def upgrade() -> None:
    op.create_table(
        "attempt_curves",
        sa.Column("attempt_id", sa.String(length=32), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("run_number", sa.Integer(), nullable=False),
        sa.Column("dag_run_id", BigKey, nullable=False),
        sa.Column("curves", LongText, nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempt.attempt_id"], name="fk_attempt_curves_attempt_id_attempt", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("attempt_id", name="pk_attempt_curves"),
        sa.UniqueConstraint("dag_id", "run_number", "attempt_id", name="uq_attempt_curves_dag_id_run_number_attempt_id"),
        **_binary(),
    )


def downgrade() -> None:
    op.drop_table("attempt_curves")
