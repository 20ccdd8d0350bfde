"""Projects with homes of their own over one database, and what is in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, select

from tests.support.live_project import WITHOUT_MLFLOW, LiveProject
from trainflow.clock import SystemClock
from trainflow.metadata import run_creation, schema
from trainflow.metadata.database import Database
from trainflow.metadata.models import AttemptTable, DagRunTable, TaskInstanceTable
from trainflow.metadata.queries import dag_queries, service_list_queries
from trainflow.states import RUN_FINISHED, DagRunType, TriggeredBy
from trainflow.testing.processes import wait_for

RUN, TASK, ATTEMPT = DagRunTable.table, TaskInstanceTable.table, AttemptTable.table

# a scheduler stamps what it does with the moment at which its pass began: across two of them the order of the stamps
# is not that of the transactions. A sequence of the server is, where one transaction waits for the other's commit
_RECORDED = (
    "CREATE TABLE changes_of_state (id bigserial PRIMARY KEY, run_id integer, state text)",
    "CREATE FUNCTION record_change_of_state() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN INSERT INTO changes_of_state (run_id, state) VALUES (NEW.id, NEW.state); RETURN NULL; END $$",
    f"CREATE TRIGGER change_of_state AFTER UPDATE OF state ON {RUN.name}"
    " FOR EACH ROW EXECUTE FUNCTION record_change_of_state()",
)


class SharedDatabase:
    """What several schedulers share, as a test sees it."""

    def __init__(self, url: str, projects: Sequence[LiveProject]) -> None:
        self.url = url
        self.projects = projects
        self.database = Database(url)
        schema.ensure_schema(self.database)

    def rows(self, ask: Callable[[Connection], Any]) -> Any:
        """What is there now."""
        return self.database.read(ask)

    def wait_for_dag(self, dag_id: str) -> None:
        """Wait until a pipeline was read."""
        wait_for(lambda: dag_id in {row.dag_id for row in self.rows(dag_queries.everything)}, f"{dag_id} to be read")

    def add_runs(self, dag_id: str, count: int = 1) -> list[int]:
        """Queue runs; their ids."""
        now = SystemClock().now()

        def create(connection: Connection) -> list[int]:
            return [
                run_creation.create(
                    connection,
                    dag_id=dag_id,
                    run_id=f"{dag_id}-{now:%H%M%S%f}-{number:04d}",
                    run_type=DagRunType.MANUAL,
                    triggered_by=TriggeredBy.TEST,
                    conf={},
                    now=now,
                )
                for number in range(count)
            ]

        return self.database.write(create)

    def record_changes_of_state(self) -> None:
        """Have the server itself write down, in the order in which they happen, which state each run enters."""
        with self.database.transaction() as connection:
            for statement in _RECORDED:
                connection.exec_driver_sql(statement)

    def changes_of_state(self) -> list[tuple[int, str]]:
        """(id of a run, state that it entered), in the order in which the server did it."""
        asked = "SELECT run_id, state FROM changes_of_state ORDER BY id"
        return [(row[0], row[1]) for row in self.rows(lambda connection: connection.exec_driver_sql(asked).all())]

    def runs(self, ids: Sequence[int]) -> list[Row[Any]]:
        """Rows of runs, in order."""
        asked = select(RUN).where(RUN.c.id.in_(ids)).order_by(RUN.c.number)
        return list(self.rows(lambda connection: connection.execute(asked).all()))

    def wait_for_end(self, ids: Sequence[int]) -> list[Row[Any]]:
        """Wait until all of these runs have ended."""
        wait_for(
            lambda: all(row.state in RUN_FINISHED for row in self.runs(ids)),
            lambda: f"the end of {[(row.run_id, row.state) for row in self.runs(ids)]}",
        )
        return self.runs(ids)

    def attempts(self, ids: Sequence[int]) -> list[Row[Any]]:
        """The attempts of runs, in the order in which they were handed out."""
        asked = (
            select(ATTEMPT, TASK.c.state, TASK.c.dag_run_id, TASK.c.task_id)
            .join(TASK, TASK.c.id == ATTEMPT.c.task_instance_id)
            .where(TASK.c.dag_run_id.in_(ids))
            .order_by(ATTEMPT.c.queued_at, ATTEMPT.c.attempt_id)
        )
        return list(self.rows(lambda connection: connection.execute(asked).all()))

    def services(self, kind: str | None = None) -> list[Row[Any]]:
        """The parts that have not ended in good order, oldest first."""
        rows = self.rows(service_list_queries.not_stopped)
        return [row for row in rows if kind in (None, row.kind)]


@contextmanager
def shared_database(folder: Path, url: str, pipeline: str, settings: str = "") -> Iterator[SharedDatabase]:
    """Two projects with the same pipeline and homes of their own over the database at `url`."""
    text = (
        f'{WITHOUT_MLFLOW}[database]\nurl = "{url}"\n'
        "[engine]\nheartbeat_seconds = 0.3\ndead_after_seconds = 6\npoll_seconds = 0.5\nstop_grace_seconds = 5\n"
        f"[executors.local]\nslots = 4\n{settings}"
    )
    projects = [LiveProject(folder / name / "project", settings=text) for name in ("first", "second")]
    for project in projects:
        project.write("pipelines/work.py", pipeline)
    shared = SharedDatabase(url, projects)
    try:
        yield shared
    finally:
        for project in projects:
            project.close()
        shared.database.close()
