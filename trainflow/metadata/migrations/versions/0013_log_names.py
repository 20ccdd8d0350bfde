"""The log of an attempt is named relative to the logs of a home: schedulers with other homes read the row too.

What stands there already is absolute, and stays: the home it names is the only one that it ever was in.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE attempt RENAME COLUMN log_path TO log_name")


def downgrade() -> None:
    op.execute("ALTER TABLE attempt RENAME COLUMN log_name TO log_path")
