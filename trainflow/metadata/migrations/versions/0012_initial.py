"""The first schema: nothing was released with those numbered before it, and what they made is in it."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0012"
down_revision = None
branch_labels = None
depends_on = None

# spelled out rather than taken from the models: a migration says what was, and the models go on
LongText = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
BigKey = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Float64: Any = sa.Double().with_variant(sa.Float(), "sqlite")
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
    _dag()
    _dag_version()
    _import_problem()
    _outbox()
    _notification()
    _pool()
    _service()
    _dag_run()
    _task_instance()
    _xcom()
    _attempt()
    _attempt_credential()
    _trigger()
    _default_pool()


def _dag() -> None:
    op.create_table(
        "dag",
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("path", sa.String(length=1000), nullable=False),
        sa.Column("version_id", BigKey, nullable=True),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column("max_active_runs", sa.Integer(), nullable=False),
        sa.Column("parsed_at", Moment, nullable=False),
        sa.Column("missing_since", Moment, nullable=True),
        sa.PrimaryKeyConstraint("dag_id", name="pk_dag"),
        **_binary(),
    )


def _dag_version() -> None:
    op.create_table(
        "dag_version",
        sa.Column("id", BigKey, autoincrement=True, nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("document", LongText, nullable=False),
        sa.Column("source", LongText, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dag_version"),
        sa.UniqueConstraint("dag_id", "digest", name="uq_dag_version_dag_id_digest"),
        sa.UniqueConstraint("dag_id", "number", name="uq_dag_version_dag_id_number"),
        **_binary(),
    )


def _import_problem() -> None:
    op.create_table(
        "import_problem",
        sa.Column("path", sa.String(length=500), nullable=False),
        sa.Column("message", LongText, nullable=False),
        sa.Column("traceback", LongText, nullable=False),
        sa.Column("line", sa.Integer(), nullable=True),
        sa.Column("column", sa.Integer(), nullable=True),
        sa.Column("at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("path", name="pk_import_problem"),
        **_binary(),
    )


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", BigKey, autoincrement=True, nullable=False),
        sa.Column("key", sa.String(length=500), nullable=False),
        sa.Column("dag_run_id", BigKey, nullable=True),
        sa.Column("kind", sa.String(length=30), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", Moment, nullable=False),
        sa.Column("delivered_at", Moment, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("payload", LongText, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("key", name="uq_outbox_key"),
        **_binary(),
    )
    op.create_index("ix_outbox_delivered_at", "outbox", ["delivered_at", "id"])


def _notification() -> None:
    op.create_table(
        "notification",
        sa.Column("id", BigKey, autoincrement=True, nullable=False),
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("notice", LongText, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("taken_by", sa.String(length=1000), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", Moment, nullable=False),
        sa.Column("delivered_at", Moment, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_notification"),
        sa.UniqueConstraint("key", name="uq_notification_key"),
        **_binary(),
    )
    op.create_index("ix_notification_delivered_at", "notification", ["delivered_at", "next_attempt_at"])


def _pool() -> None:
    op.create_table(
        "pool",
        sa.Column("name", sa.String(length=250), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("include_deferred", sa.Boolean(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_pool"),
        **_binary(),
    )


def _service() -> None:
    op.create_table(
        "service",
        sa.Column("id", BigKey, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=30), nullable=False),
        sa.Column("hostname", sa.String(length=250), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("process_started", Float64, nullable=False),
        sa.Column("started_at", Moment, nullable=False),
        sa.Column("heartbeat_at", Moment, nullable=False),
        sa.Column("stopped_at", Moment, nullable=True),
        sa.Column("heartbeats", sa.Integer(), nullable=True),
        sa.Column("executors", LongText, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_service"),
        **_binary(),
    )


def _dag_run() -> None:
    op.create_table(
        "dag_run",
        sa.Column("id", BigKey, autoincrement=True, nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("run_id", sa.String(length=250), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("version_id", BigKey, nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("run_type", sa.String(length=30), nullable=False),
        sa.Column("triggered_by", sa.String(length=20), nullable=False),
        sa.Column("conf", LongText, nullable=False),
        sa.Column("logical_date", Moment, nullable=True),
        sa.Column("run_after", Moment, nullable=False),
        sa.Column("queued_at", Moment, nullable=False),
        sa.Column("started_at", Moment, nullable=True),
        sa.Column("ended_at", Moment, nullable=True),
        sa.Column("parent_id", BigKey, nullable=True),
        sa.Column("parent_task_id", sa.String(length=250), nullable=True),
        sa.Column("parent_map_index", sa.Integer(), nullable=True),
        sa.Column("root_id", BigKey, nullable=True),
        sa.Column("clear_number", sa.Integer(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("mlflow_uri", sa.String(length=500), nullable=True),
        sa.Column("mlflow_run_id", sa.String(length=64), nullable=True),
        sa.Column("released_at", Moment, nullable=True),
        sa.ForeignKeyConstraint(["version_id"], ["dag_version.id"], name="fk_dag_run_version_id_dag_version"),
        sa.PrimaryKeyConstraint("id", name="pk_dag_run"),
        sa.UniqueConstraint("dag_id", "number", name="uq_dag_run_dag_id_number"),
        sa.UniqueConstraint("dag_id", "run_id", name="uq_dag_run_dag_id_run_id"),
        sa.UniqueConstraint("parent_id", "parent_task_id", "parent_map_index", name="uq_dag_run_parent_id_parent_task_id_parent_map_index"),
        sqlite_autoincrement=True,
        **_binary(),
    )
    op.create_index("ix_dag_run_root_id", "dag_run", ["root_id"])
    op.create_index("ix_dag_run_state", "dag_run", ["state", "dag_id", "number"])


def _task_instance() -> None:
    op.create_table(
        "task_instance",
        sa.Column("id", BigKey, autoincrement=True, nullable=False),
        sa.Column("dag_run_id", BigKey, nullable=False),
        sa.Column("task_id", sa.String(length=250), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("max_tries", sa.Integer(), nullable=False),
        sa.Column("lost", sa.Integer(), nullable=False),
        sa.Column("attempt_id", sa.String(length=32), nullable=True),
        sa.Column("deferral_number", sa.Integer(), nullable=False),
        sa.Column("reschedules", sa.Integer(), nullable=False),
        sa.Column("pool", sa.String(length=250), nullable=False),
        sa.Column("pool_slots", sa.Integer(), nullable=False),
        sa.Column("priority_weight", sa.Integer(), nullable=False),
        sa.Column("queue", sa.String(length=250), nullable=False),
        sa.Column("scheduled_at", Moment, nullable=True),
        sa.Column("queued_at", Moment, nullable=True),
        sa.Column("started_at", Moment, nullable=True),
        sa.Column("ended_at", Moment, nullable=True),
        sa.Column("retry_at", Moment, nullable=True),
        sa.Column("hostname", sa.String(length=250), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("process_started", Float64, nullable=True),
        sa.Column("heartbeat_at", Moment, nullable=True),
        sa.Column("service_id", BigKey, nullable=True),
        sa.Column("resumed", sa.Boolean(), nullable=False),
        sa.Column("next_method", sa.String(length=250), nullable=True),
        sa.Column("next_kwargs", LongText, nullable=True),
        sa.Column("progress", LongText, nullable=True),
        sa.Column("problem", LongText, nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("cleared_at", Moment, nullable=True),
        sa.Column("saved_rows", sa.BigInteger(), nullable=True),
        sa.Column("credited_rows", sa.BigInteger(), nullable=True),
        sa.Column("waits_since", Moment, nullable=True),
        sa.Column("executor", sa.String(length=250), nullable=True),
        sa.ForeignKeyConstraint(["dag_run_id"], ["dag_run.id"], name="fk_task_instance_dag_run_id_dag_run", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_task_instance"),
        sa.UniqueConstraint("dag_run_id", "task_id", "map_index", name="uq_task_instance_dag_run_id_task_id_map_index"),
        **_binary(),
    )
    op.create_index(
        "ix_task_instance_queueing", "task_instance", ["state", sa.text("resumed DESC"), sa.text("priority_weight DESC"), "scheduled_at", "id"]
    )
    op.create_index("ix_task_instance_attempt_id", "task_instance", ["attempt_id"])


def _xcom() -> None:
    op.create_table(
        "xcom",
        sa.Column("dag_run_id", BigKey, nullable=False),
        sa.Column("task_id", sa.String(length=250), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=250), nullable=False),
        sa.Column("value", LongText, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.ForeignKeyConstraint(["dag_run_id"], ["dag_run.id"], name="fk_xcom_dag_run_id_dag_run", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("dag_run_id", "task_id", "map_index", "key", name="pk_xcom"),
        **_binary(),
    )


def _attempt() -> None:
    op.create_table(
        "attempt",
        sa.Column("attempt_id", sa.String(length=32), nullable=False),
        sa.Column("task_instance_id", BigKey, nullable=False),
        sa.Column("try_number", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=True),
        sa.Column("queued_at", Moment, nullable=False),
        sa.Column("started_at", Moment, nullable=True),
        sa.Column("ended_at", Moment, nullable=True),
        sa.Column("problem", LongText, nullable=True),
        sa.Column("log_path", sa.String(length=1000), nullable=False),
        sa.Column("store_use", LongText, nullable=True),
        sa.Column("service_id", BigKey, nullable=True),
        sa.ForeignKeyConstraint(["task_instance_id"], ["task_instance.id"], name="fk_attempt_task_instance_id_task_instance", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("attempt_id", name="pk_attempt"),
        **_binary(),
    )
    op.create_index("ix_attempt_task_instance_id", "attempt", ["task_instance_id"])


def _attempt_credential() -> None:
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


def _trigger() -> None:
    op.create_table(
        "trigger",
        sa.Column("id", BigKey, autoincrement=True, nullable=False),
        sa.Column("task_instance_id", BigKey, nullable=False),
        sa.Column("attempt_id", sa.String(length=32), nullable=False),
        sa.Column("deferral_number", sa.Integer(), nullable=False),
        sa.Column("trigger_class", sa.String(length=500), nullable=False),
        sa.Column("kwargs", LongText, nullable=False),
        sa.Column("deadline", Moment, nullable=True),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("service_id", BigKey, nullable=True),
        sa.ForeignKeyConstraint(["task_instance_id"], ["task_instance.id"], name="fk_trigger_task_instance_id_task_instance", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_trigger"),
        sa.UniqueConstraint("task_instance_id", name="uq_trigger_task_instance_id"),
        sqlite_autoincrement=True,
        **_binary(),
    )
    op.create_index("ix_trigger_deadline", "trigger", ["deadline"])
    op.create_index("ix_trigger_service_id", "trigger", ["service_id"])


def _default_pool() -> None:
    pool = sa.table(
        "pool",
        sa.column("name", sa.String),
        sa.column("slots", sa.Integer),
        sa.column("include_deferred", sa.Boolean),
        sa.column("description", sa.Text),
    )
    op.bulk_insert(
        pool, [{"name": "default_pool", "slots": 128, "include_deferred": False, "description": "Default pool"}]
    )


def downgrade() -> None:
    for table in (
        *("trigger", "attempt_credential", "attempt", "xcom", "task_instance", "dag_run"),
        *("service", "pool", "notification", "outbox", "import_problem", "dag_version", "dag"),
    ):
        op.drop_table(table)
