"""Connections of SQLAlchemy's that execute plain statements by the fast path, and statements that are text."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, StatementError

from trainflow.metadata import server_connections
from trainflow.metadata.fast_path import Plans
from trainflow.metadata.sql_text import SqlText


class TextConnection(Connection):
    """A connection that takes `SqlText` as well."""

    def execute(self, statement: Any, parameters: Any = None, **options: Any) -> Any:
        """See `sqlalchemy.Connection.execute`; of a `SqlText` the list of its rows. Raises DBAPIError."""
        if not isinstance(statement, SqlText):
            return super().execute(statement, parameters, **options)
        style = "qmark" if self.dialect.name == "sqlite" else "format"
        sql, values = statement.ready(style, parameters or {})
        return statement.made([tuple(row) for row in self.exec_driver_sql(sql, tuple(values))])


class FastConnection(TextConnection):
    """A connection that executes plain statements itself. Everything else is SQLAlchemy's."""

    plans: Plans

    def execute(self, statement: Any, parameters: Any = None, **options: Any) -> Any:
        """See `sqlalchemy.Connection.execute`; the result has the methods of `FastResult`.

        Raises DBAPIError; StatementError for values that cannot be written.
        """
        is_text = isinstance(statement, SqlText)
        plain = is_text or getattr(statement, "is_select", False) or getattr(statement, "is_dml", False)
        if not plain or options or self.dispatch.before_cursor_execute or not self.in_transaction():
            return super().execute(statement, parameters, **options)
        driver: Any = self.connection.driver_connection
        try:
            if isinstance(driver, sqlite3.Connection):
                if is_text:
                    return statement.made(driver.execute(*statement.ready("qmark", parameters)).fetchall())
                return self.plans.execute(driver, statement, parameters)
            if self.dialect.driver == "pymysql":
                return self._execute_on_mysql(driver, statement, parameters)
            if is_text:
                return statement.made(driver.statements.send(*statement.ready("numeric_dollar", parameters)).rows())
            return self.plans.send(driver.statements, self.wrapped, statement, parameters)
        except self.dialect.loaded_dbapi.Error as error:
            raise self.wrapped(statement, error) from error
        except (KeyError, TypeError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise StatementError(problem, str(statement), None, error, hide_parameters=True) from error

    def _execute_on_mysql(self, driver: Any, statement: Any, parameters: Any) -> Any:
        try:
            if isinstance(statement, SqlText):
                with driver.cursor() as cursor:
                    cursor.execute(*statement.ready("format", parameters))
                    return statement.made(cursor.fetchall())
            return self.plans.execute_on_mysql(driver, statement, parameters)
        except Exception as error:
            server_connections.hide_values(error)
            raise
        except BaseException as stopped:
            # Ctrl-C: the answer that is under way would be taken for that of the next statement
            self.invalidate(stopped)
            raise

    @contextmanager
    def begin_nested(self) -> Iterator[None]:  # type: ignore[override]  # as good a context
        """See `sqlalchemy.Connection.begin_nested`."""
        driver: Any = self.connection.driver_connection
        if self.dialect.driver != "psycopg":
            with super().begin_nested():
                yield
            return
        try:
            with driver.statements.savepoint():
                yield
        except self.dialect.loaded_dbapi.Error as error:
            raise self.wrapped("SAVEPOINT", error) from error

    def wrapped(self, statement: Any, error: Exception) -> StatementError:
        """The driver's error as SQLAlchemy's."""
        driver: Any = self.connection.driver_connection
        made: StatementError = DBAPIError.instance(
            str(statement),
            None,
            error,
            self.dialect.loaded_dbapi.Error,
            hide_parameters=True,
            connection_invalidated=self.dialect.is_disconnect(error, driver, None),  # type: ignore[arg-type]
            dialect=self.dialect,
        )
        if self.dialect.driver == "pymysql" and getattr(made, "connection_invalidated", False):
            self.invalidate(error)
        return made
