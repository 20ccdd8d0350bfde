"""Tokens of the API server, the event log, and requests that are done once."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

LongText = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
BigKey = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def _binary() -> dict[str, Any]:
    """Names differ by case, accents and trailing blanks: MySQL and MariaDB have one collation each that says so."""
    on_mariadb = getattr(op.get_context().dialect, "is_mariadb", False)
    collation = "utf8mb4_nopad_bin" if on_mariadb else "utf8mb4_0900_bin"
    return {
        f"{dialect}_{option}": value
        for dialect in ("mysql", "mariadb")
        for option, value in (("charset", "utf8mb4"), ("collate", collation))
    }


def upgrade() -> None:
    op.create_table(
        "api_token",
        sa.Column("id", BigKey, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=250), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("created_by", sa.String(length=250), nullable=False),
        sa.Column("expires_at", Moment, nullable=True),
        sa.Column("revoked_at", Moment, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_token"),
        sa.UniqueConstraint("name", name="uq_api_token_name"),
        sa.UniqueConstraint("token_hash", name="uq_api_token_token_hash"),
        **_binary(),
    )
    op.create_table(
        "event",
        sa.Column("id", BigKey, autoincrement=True, nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("event", sa.String(length=100), nullable=False),
        sa.Column("owner", sa.String(length=250), nullable=False),
        sa.Column("address", sa.String(length=250), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=True),
        sa.Column("run_id", sa.String(length=250), nullable=True),
        sa.Column("task_id", sa.String(length=250), nullable=True),
        sa.Column("extra", LongText, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
        **_binary(),
    )
    op.create_index("ix_event_dag_id", "event", ["dag_id", "id"])
    op.create_table(
        "idempotency_key",
        sa.Column("owner", sa.String(length=250), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", LongText, nullable=True),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("owner", "key", name="pk_idempotency_key"),
        **_binary(),
    )
    op.create_index("ix_idempotency_key_created_at", "idempotency_key", ["created_at"])


def downgrade() -> None:
    for table in ("idempotency_key", "event", "api_token"):
        op.drop_table(table)
