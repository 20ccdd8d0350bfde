"""SQLite, PostgreSQL and MariaDB in turns: transition, self-retriggering run, statements and round trips of each task.

The servers are started for it and keep what they commit, as one in production does. With `DBOS_PYTHON`, the interpreter
of an environment that has `dbos` and `psycopg`, DBOS does the same work on the same server in the same turns.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks import process_floor, retrigger, transition, workbench
from tests.support.local_databases import LocalServer, local_mariadb, local_postgres
from trainflow.metadata.database import Database
from trainflow.metadata.fast_connection import FastConnection
from trainflow.metadata.sql_text import SqlText

PEER = Path(__file__).parent / "dbos_peer.py"
_KINDS = ("select", "insert", "update", "delete")


def main(turns: int = 2) -> None:
    """Print both figures for each database, in turns, and what a task asks of it."""
    with ExitStack() as stack:
        servers: dict[str, LocalServer | None] = {
            "SQLite": None,
            "PostgreSQL": stack.enter_context(local_postgres(durable=True)),
            "MariaDB": stack.enter_context(local_mariadb(durable=True)),
        }
        for _ in range(turns):
            for name, server in servers.items():
                print(f"-- {name}")
                url = None if server is None else server.new_database()
                for benchmark, tasks_of_run in ((transition, 30), (retrigger, 4)):
                    with _over(url, benchmark, tasks_of_run):
                        benchmark.main(1)
            postgres = servers["PostgreSQL"]
            assert postgres is not None
            print("-- nothing but processes and commits, on PostgreSQL", flush=True)
            process_floor.main(postgres.new_database())
            if "DBOS_PYTHON" in os.environ:
                print("-- DBOS, in one process, on PostgreSQL", flush=True)
                subprocess.run([os.environ["DBOS_PYTHON"], PEER, postgres.new_database()], check=True)


@contextmanager
def _over(url: str | None, benchmark: Any, tasks_of_run: int) -> Iterator[None]:
    """Let a benchmark use this database, and print what its last round has asked of it."""
    counted: Counter[str] = Counter()

    @contextmanager
    def bench(settings: str = "", **pipelines: str) -> Iterator[Any]:
        database = "" if url is None else f'[database]\nurl = "{url}"\n'
        with workbench.bench(settings + database, **pipelines) as made:
            run_to_end = made.run_to_end

            def counting(root_id: int) -> list[Any]:
                with _counting(made.engine.database) as asked:
                    runs = run_to_end(root_id)
                counted.clear()
                counted.update({what: count / tasks_of_run / len(runs) for what, count in asked.items()})  # type: ignore[misc]
                return runs

            made.run_to_end = counting
            yield made

    before, benchmark.bench = benchmark.bench, bench
    try:
        yield
    finally:
        benchmark.bench = before
    print("   a task: " + ", ".join(f"{counted[what]:.1f} {what}" for what in sorted(counted)), flush=True)


@contextmanager
def _counting(database: Database) -> Iterator[Counter[str]]:
    """What is asked of a database, but for looks at whether the runs have ended."""
    counted: Counter[str] = Counter()
    with ExitStack() as stack:
        if database._plans is not None:
            stack.enter_context(_patched(FastConnection, "execute", lambda *given: counted.update([_kind(given[1])])))
        else:
            from sqlalchemy import event

            def heard(*given: Any) -> None:
                counted.update([str(given[2]).split()[0].lower()])

            event.listen(database.engine, "before_cursor_execute", heard)
            stack.callback(event.remove, database.engine, "before_cursor_execute", heard)
        if database.engine.dialect.name == "postgresql":
            from trainflow.metadata.postgres_pipeline import StatementPipeline

            def waits(pipeline: Any) -> None:
                counted["round trips"] += any(each is not None for each in pipeline._unanswered)

            stack.enter_context(_patched(StatementPipeline, "receive", waits))
        stack.enter_context(_patched(Database, "transaction", lambda _self: counted.update(["commits"])))
        yield counted


def _kind(statement: Any) -> str:
    return next(
        (kind for kind in _KINDS if getattr(statement, f"is_{kind}", False)),
        "select" if isinstance(statement, SqlText) else "other",
    )


@contextmanager
def _patched(owner: Any, name: str, before: Any) -> Iterator[None]:
    real = getattr(owner, name)

    def called(*given: Any, **named: Any) -> Any:
        before(*given)
        return real(*given, **named)

    setattr(owner, name, called)
    try:
        yield
    finally:
        setattr(owner, name, real)


if __name__ == "__main__":
    main()
