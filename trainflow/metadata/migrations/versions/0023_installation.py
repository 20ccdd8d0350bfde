"""What tells a database from any other."""

import uuid
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
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
        "installation",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_installation"),
        **_binary(),
    )
    # kept with the number of this migration, or not at all
    op.execute(sa.table("installation", sa.column("id", sa.String())).insert().values(id=uuid.uuid4().hex))


def downgrade() -> None:
    op.drop_table("installation")
