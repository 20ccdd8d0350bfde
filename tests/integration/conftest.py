"""Services the integration tests share, started once and only when a test asks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.dialects.mysql.base import MySQLDialect

from trainflow.metadata import straight
from trainflow.testing.local_s3 import LocalS3, local_s3


@pytest.fixture(scope="session")
def s3() -> Iterator[LocalS3]:
    with local_s3() as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def _whatever_was_asked_could_be_asked_of_mysql() -> Iterator[None]:
    """No MySQL server can be run everywhere. So every statement that any of these tests has executed on SQLite is
    written for MySQL as well, and must not hold what MySQL refuses. (An error here is about any test before it.)"""
    asked: dict[str, Any] = {}

    class Remembered(straight._Plan):
        def __init__(self, compiled: Any, dialect: Any) -> None:
            super().__init__(compiled, dialect)
            asked.setdefault(compiled.string, compiled.statement)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(straight, "_Plan", Remembered)
        yield
    dialect = MySQLDialect(paramstyle="format")
    for statement, made in asked.items():
        # raises where MySQL has no words for it
        written = re.sub(r"\s+", " ", str(made.compile(dialect=dialect)))
        assert "RETURNING" not in written, f"MySQL has no RETURNING: {statement}"
        limited = re.search(r"IN \(SELECT [^()]*\bLIMIT\b", written)
        assert limited is None, f"MySQL has no LIMIT in a subquery of IN: {statement}"
        updated = re.match(r"(?:UPDATE|DELETE FROM) `?(\w+)`? .*\(SELECT .*\bFROM `?\1`?\b", written)
        assert updated is None, f"MySQL does not read the table that it changes: {statement}"
