"""Alembic's entry: runs on the connection it is given, inside the caller's transaction."""

import logging
from typing import Any

from alembic import context
from sqlalchemy.exc import DBAPIError

from trainflow.metadata.api_models import METADATA

#: MySQL and MariaDB: the table, the column, the index is there already; what is to be dropped is gone
_DONE_BEFORE = frozenset({1050, 1060, 1061, 1091})

log = logging.getLogger(__name__)


def _go_on_after_a_cut(impl: Any) -> None:
    """MySQL keeps each change of a table when it is made, whatever becomes of the transaction: of a migration that was
    cut off, what it has done is done."""
    execute = impl._exec

    def unless_done(*given: Any, **named: Any) -> Any:
        try:
            return execute(*given, **named)
        except DBAPIError as error:
            if error.orig is None or error.orig.args[0] not in _DONE_BEFORE:
                raise
            log.warning("a migration that was cut off goes on: %s", error.orig)
            return None

    impl._exec = unless_done


connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True, transactional_ddl=False)
if connection.dialect.name in ("mysql", "mariadb"):
    _go_on_after_a_cut(context.get_context().impl)
context.run_migrations()
