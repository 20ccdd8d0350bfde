"""A database that was migrated is the same as one that was made anew."""

from __future__ import annotations

import ast
import io
import itertools
import multiprocessing
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import UniqueConstraint, event, inspect, select, text
from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.schema import CreateTable

from tests.support.local_databases import LocalServer
from trainflow.errors import EngineError
from trainflow.metadata import schema
from trainflow.metadata.api_models import METADATA
from trainflow.metadata.database import Database
from trainflow.metadata.queries import pool_queries

NewDatabase = Callable[[], str]


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> NewDatabase:
    """Makes an empty database of one kind; its URL."""
    if request.param != "sqlite":
        server: LocalServer = request.getfixturevalue({"postgresql": "postgres"}.get(request.param, request.param))
        return server.new_database
    numbers = itertools.count()
    return lambda: f"sqlite:///{tmp_path}/home{next(numbers)}/a.db"


@pytest.fixture
def fresh(new_database: NewDatabase) -> Iterator[Database]:
    database = Database(new_database())
    schema.ensure_schema(database)
    yield database
    database.close()


@pytest.fixture
def migrated(new_database: NewDatabase) -> Iterator[Database]:
    """Made by the migrations alone, from a database in which none has run."""
    database = Database(new_database())
    _say_that_none_has_run(database)
    schema.ensure_schema(database)
    yield database
    database.close()


def _say_that_none_has_run(database: Database) -> None:
    if database.file is not None:
        database.file.parent.mkdir(parents=True)
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))


_INDEXES = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name",
    "postgresql": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' "
    "AND tablename != 'alembic_version' ORDER BY indexname",
    "mysql": "SELECT table_name, index_name, seq_in_index, column_name, collation, non_unique FROM "
    "information_schema.statistics WHERE table_schema = DATABASE() AND table_name != 'alembic_version' "
    "ORDER BY table_name, index_name, seq_in_index",
}


def _described(database: Database) -> dict[str, Any]:
    """Everything about the tables that a database tells, in an order of its own."""
    statement = _INDEXES[database.url.get_backend_name()]
    with database.reading() as connection:
        inspector = inspect(connection)
        tables = set(inspector.get_table_names()) - {"alembic_version"}
        return {
            "indexes": [tuple(row) for row in connection.execute(text(statement))],
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
        if database.is_sqlite:
            # elsewhere a sequence never goes back
            with database.reading() as connection:
                made = connection.execute(text("SELECT sql FROM sqlite_master WHERE name = 'trigger'")).scalar_one()
            assert "AUTOINCREMENT" in made


def test_migrated_schema_is_seeded_as_fresh_one(fresh: Database, migrated: Database) -> None:
    pools = []
    for database in (fresh, migrated):
        with database.reading() as connection:
            pools.append([tuple(row) for row in connection.execute(select(pool_queries.POOL))])
    assert pools[0] == pools[1] == [("default_pool", 128, False, "Default pool")]


def test_head_is_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]
    names = sorted(path.name for path in (schema.MIGRATIONS / "versions").glob("*.py"))
    assert all(name[:4].isdigit() and name[4] == "_" for name in names)


#: the first migration of which a build that was running before it takes no notice
_ONLY_ADDS = "0020"
_WHAT_ADDS = {"add_column", "create_table", "create_index"}


def test_migrations_only_add_so_that_what_runs_meanwhile_goes_on() -> None:
    """Hosts of a fleet are upgraded one after another: what is running there writes no new column."""
    for path in sorted((schema.MIGRATIONS / "versions").glob("*.py")):
        if path.name[:4] < _ONLY_ADDS:
            continue
        tree = ast.parse(path.read_text())
        (upgrade,) = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == "upgrade"]
        for call in ast.walk(upgrade):
            if not (isinstance(call, ast.Call) and ast.unparse(call.func).startswith("op.")):
                continue
            what, text = ast.unparse(call.func).removeprefix("op."), ast.unparse(call)
            inserts = what == "execute" and ".insert()" in text
            assert what in _WHAT_ADDS or inserts, f"{path.name}: {text}"
            if what == "add_column":
                assert "nullable=True" in text or "server_default" in text, f"{path.name}: {text}"
            if what == "create_index":
                assert "unique=True" not in text, f"{path.name}: {text}"


def test_ensuring_twice_changes_nothing(fresh: Database) -> None:
    before = _described(fresh)
    schema.ensure_schema(fresh)
    assert _described(fresh) == before
    assert schema.current_revision(fresh) == schema.HEAD


def test_newer_database_is_refused(fresh: Database) -> None:
    with fresh.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(EngineError, match=r"9999: a newer trainflow has migrated it.*upgrade it here") as caught:
        schema.ensure_schema(fresh)
    # to move a file away is one way out; not for a server, which others use
    assert ("move the file away" in str(caught.value)) == (fresh.file is not None)
    assert str(fresh.url.database) in str(caught.value)
    assert schema.current_revision(fresh) == "9999"


def test_reset_makes_it_new(fresh: Database) -> None:
    with fresh.transaction() as connection:
        pool_queries.put(connection, "gpu", 2, description="", include_deferred=False)
    schema.reset(fresh)
    with fresh.reading() as connection:
        assert [row.name for row in pool_queries.listing(connection)] == ["default_pool"]


def _ensure(url: str, barrier: Any, results: Any) -> None:
    database = Database(url)
    barrier.wait()
    try:
        schema.ensure_schema(database)
        results.put(schema.current_revision(database))
    except Exception as error:
        results.put(repr(error))


@pytest.mark.exhaustive
@pytest.mark.parametrize("old", [False, True], ids=["created", "migrated"])
def test_migration_by_several_processes_runs_once(new_database: NewDatabase, old: bool) -> None:
    url = new_database()
    if old:
        database = Database(url)
        _say_that_none_has_run(database)
        database.close()
    # they must not inherit connections
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainflow.metadata.schema", "trainflow.metadata.database"])
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_ensure, args=(url, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=240) for _ in processes] == [schema.HEAD] * 4
    for process in processes:
        process.join()


def _written_for_mysql() -> list[str]:
    """Statements that make every table, as the models say it."""
    return [str(CreateTable(table).compile(dialect=MySQLDialect())) for table in METADATA.sorted_tables]


def _migrated_on_mysql() -> list[str]:
    """Statements that make every table, as the migrations say it."""
    written = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="mysql", opts={"as_sql": True, "output_buffer": written, "literal_binds": True}
    )
    for path in sorted((schema.MIGRATIONS / "versions").glob("*.py")):
        migration = runpy.run_path(str(path))
        with Operations.context(context):
            migration["upgrade"]()
    return [statement for statement in written.getvalue().split(";") if "CREATE TABLE" in statement]


@pytest.mark.parametrize("written", [_written_for_mysql, _migrated_on_mysql])
def test_tables_on_mysql(written: Callable[[], list[str]]) -> None:
    """No server is asked: long texts are long there, moments have microseconds, and names differ by their case."""
    statements = written()
    assert len(statements) == len(METADATA.tables)
    for statement in statements:
        for short in ("note TEXT", "reason TEXT", "description TEXT"):
            statement = statement.replace(short, "")
        assert not re.search(r" TEXT\b", statement), statement
        assert "DATETIME(6)" in statement or "DATETIME" not in statement
        assert "CHARSET=utf8mb4" in statement
        assert re.search("COLLATE utf8mb4_(0900_)?bin", statement), statement


class CutOff(BaseException):
    """The process is killed."""


def _cut_off_after(database: Database, number: int) -> Callable[[], None]:
    """Kill what changes tables of this database after its `number`-th such statement; call it to let it live."""
    done = itertools.count(1)

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.split()[0] in ("CREATE", "ALTER", "DROP") and next(done) == number:
            raise CutOff

    event.listen(database.engine, "after_cursor_execute", count)
    return lambda: event.remove(database.engine, "after_cursor_execute", count)


@pytest.mark.parametrize(("made", "number"), [("created", 1), ("created", 14), ("migrated", 14), ("migrated", 23)])
def test_start_after_one_that_was_cut_off_completes_it(mariadb: LocalServer, made: str, number: int) -> None:
    """MariaDB and MySQL keep each change of a table, whatever becomes of the transaction."""
    database = Database(mariadb.new_database())
    if made == "migrated":
        _say_that_none_has_run(database)
    live = _cut_off_after(database, number)
    with pytest.raises(CutOff):
        schema.ensure_schema(database)
    live()
    assert schema.current_revision(database) != schema.HEAD
    schema.ensure_schema(database)
    assert schema.current_revision(database) == schema.HEAD
    whole = Database(mariadb.clean_database())
    assert _described(database) == _described(whole)
    with database.reading() as connection:
        assert pool_queries.slots(connection)["default_pool"].slots == schema.DEFAULT_POOL_SLOTS
    database.close()
    whole.close()


def test_unique_columns_are_never_null() -> None:
    """No database takes two empty values for equal: a unique key with one in it would hold nothing apart. Only what
    triggered a run may be empty, for runs that nothing triggered, and then all of it is."""
    triggered_by = {"parent_id", "parent_task_id", "parent_map_index"}
    for table in METADATA.tables.values():
        keys = [key for key in table.constraints if isinstance(key, UniqueConstraint)]
        for key in [*keys, *(index for index in table.indexes if index.unique)]:
            empty = {column.name for column in key.columns if column.nullable}
            assert not empty or (table.name == "dag_run" and empty == triggered_by), f"{table.name}: {empty}"
