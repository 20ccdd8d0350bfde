"""Credentials of attempts that run on other hosts."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


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
        "attempt_credential",
        sa.Column("attempt_id", sa.String(length=32), nullable=False),
        sa.Column("deferral_number", sa.Integer(), nullable=False),
        sa.Column("claim_hash", sa.String(length=64), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=True),
        sa.Column("heartbeats", sa.Integer(), nullable=False),
        sa.Column("log_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempt.attempt_id"], name="fk_attempt_credential_attempt_id_attempt", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("attempt_id", "deferral_number", name="pk_attempt_credential"),
        **_binary(),
    )
    op.create_index("ix_attempt_credential_token_hash", "attempt_credential", ["token_hash"])


def downgrade() -> None:
    op.drop_table("attempt_credential")
