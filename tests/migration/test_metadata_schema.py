"""A database that was migrated is the same as one that was made anew."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_mock_engine, inspect, select, text
from sqlalchemy.schema import CreateTable

from trainflow.errors import EngineError
from trainflow.metadata import pool_queries, schema
from trainflow.metadata.database import Database
from trainflow.metadata.models import METADATA


def _database(path: Path) -> Database:
    return Database(f"sqlite:///{path}")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Database]:
    database = _database(tmp_path / "fresh.db")
    schema.ensure_schema(database)
    yield database
    database.close()


@pytest.fixture
def migrated(tmp_path: Path) -> Iterator[Database]:
    """Made by the migrations alone, from a database in which none has run."""
    database = _database(tmp_path / "migrated.db")
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
    schema.ensure_schema(database)
    yield database
    database.close()


def _described(database: Database) -> dict[str, Any]:
    """Everything about the tables that a database tells, in an order of its own."""
    with database.reading() as connection:
        inspector = inspect(connection)
        tables = set(inspector.get_table_names()) - {"alembic_version"}
        indexes = connection.execute(
            text("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name")
        )
        return {
            "indexes": [tuple(row) for row in indexes],
            "tables": {
                name: {
                    "columns": [
                        (column["name"], repr(column["type"]), column["nullable"], column["default"])
                        for column in inspector.get_columns(name)
                    ],
                    "primary key": inspector.get_pk_constraint(name),
                    "unique": sorted(map(repr, inspector.get_unique_constraints(name))),
                    "foreign keys": sorted(map(repr, inspector.get_foreign_keys(name))),
                }
                for name in sorted(tables)
            },
        }


def test_fresh_equals_migrated(fresh: Database, migrated: Database) -> None:
    assert _described(fresh) == _described(migrated)


def test_models_equal_migrated(migrated: Database) -> None:
    def looked_at(_object: Any, name: str | None, kind: str, *_: Any) -> bool:
        # how an index is sorted cannot be read back here; test_fresh_equals_migrated compares its text
        return not (kind == "index" and name == "ix_task_instance_queueing")

    with migrated.reading() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": looked_at})
        assert compare_metadata(context, METADATA) == []
        found = set(inspect(connection).get_table_names())
    assert found - {"alembic_version"} == set(METADATA.tables)


def test_ids_of_waits_are_never_given_twice(migrated: Database, fresh: Database) -> None:
    for database in (migrated, fresh):
        with database.reading() as connection:
            statement = connection.execute(text("SELECT sql FROM sqlite_master WHERE name = 'trigger'")).scalar_one()
        assert "AUTOINCREMENT" in statement


def test_seeded_alike(fresh: Database, migrated: Database) -> None:
    pools = []
    for database in (fresh, migrated):
        with database.reading() as connection:
            pools.append([tuple(row) for row in connection.execute(select(pool_queries.POOL))])
    assert pools[0] == pools[1] == [("default_pool", 128, False, "Default pool")]


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]
    names = sorted(path.name for path in (schema.MIGRATIONS / "versions").glob("*.py"))
    assert all(name[:4].isdigit() and name[4] == "_" for name in names)


def test_ensuring_twice_changes_nothing(fresh: Database) -> None:
    before = _described(fresh)
    schema.ensure_schema(fresh)
    assert _described(fresh) == before
    assert schema.current_revision(fresh) == schema.HEAD


def test_a_newer_database_is_refused(fresh: Database) -> None:
    with fresh.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(EngineError, match=r"9999.*newer trainflow.*may be moved away") as caught:
        schema.ensure_schema(fresh)
    assert str(fresh.file) in str(caught.value)
    assert schema.current_revision(fresh) == "9999"


def test_reset_makes_it_new(fresh: Database) -> None:
    with fresh.transaction() as connection:
        pool_queries.put(connection, "gpu", 2, description="", include_deferred=False)
    schema.reset(fresh)
    with fresh.reading() as connection:
        assert [row.name for row in pool_queries.listing(connection)] == ["default_pool"]


def _ensure(path: str, barrier: Any, results: Any) -> None:
    database = _database(Path(path))
    barrier.wait()
    try:
        schema.ensure_schema(database)
        results.put(schema.current_revision(database))
    except Exception as error:
        results.put(repr(error))


def test_several_processes_may_create_it_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    path = str(tmp_path / "home" / "a.db")
    processes = [context.Process(target=_ensure, args=(path, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [schema.HEAD] * 4
    for process in processes:
        process.join()


@pytest.mark.parametrize("url", ["postgresql+psycopg://", "mysql+pymysql://"])
def test_tables_can_be_written_for_every_database(url: str) -> None:
    """No server is asked: the text must be made, with the long texts and the microseconds each database needs."""
    try:
        engine = create_mock_engine(url, lambda *_: None)
    except ImportError as missing:
        pytest.skip(f"{missing.name} is not installed")
    for table in METADATA.sorted_tables:
        statement = str(CreateTable(table).compile(dialect=engine.dialect))
        if engine.dialect.name == "mysql":
            assert " TEXT" not in statement.replace("note TEXT", "").replace("reason TEXT", "").replace(
                "description TEXT", ""
            )
            assert "DATETIME(6)" in statement or "DATETIME" not in statement
