"""On MySQL and MariaDB: floats of double precision, and keys that differ in trailing blanks are different keys."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FLOATS = (("task_instance", True), ("service", False))
TABLES = (
    *("dag", "dag_version", "dag_run", "task_instance", "attempt", "xcom", "trigger"),
    *("pool", "service", "import_problem", "outbox", "notification"),
)


def _on_mysql() -> bool:
    # elsewhere FLOAT is of double precision, and blanks count
    return op.get_context().dialect.name in ("mysql", "mariadb")


def _compare(collation: str) -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE `{table}` CONVERT TO CHARACTER SET utf8mb4 COLLATE {collation}")


def upgrade() -> None:
    if not _on_mysql():
        return
    for table, empty in FLOATS:
        op.alter_column(table, "process_started", type_=sa.Double(), existing_nullable=empty)
    on_mariadb = getattr(op.get_context().dialect, "is_mariadb", False)
    _compare("utf8mb4_nopad_bin" if on_mariadb else "utf8mb4_0900_bin")


def downgrade() -> None:
    if not _on_mysql():
        return
    _compare("utf8mb4_bin")
    for table, empty in FLOATS:
        op.alter_column(table, "process_started", type_=sa.Float(), existing_nullable=empty)
