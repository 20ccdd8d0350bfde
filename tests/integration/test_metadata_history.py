"""Questions that people and tasks ask all the time cost what they answer, and not the history of a year."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, event

from tests.support.control_plane import ControlPlane, control_plane, empty_task
from tests.support.local_databases import LocalServer
from tests.support.run_histories import write_history
from tests.support.sqlite_steps import steps_of
from trainflow.insight.snapshot import EngineSnapshot, dag_snapshots
from trainflow.metadata.queries import run_queries, status_queries, xcom_queries
from trainflow.serialization.document import ChainDocument, DagDocument
from trainflow.states import DagRunState

#: SQLite reads many DAGs in another order than few
NAMES = [f"d{number:02}" for number in range(20)]
#: more than the newest runs that anything looks at
SHORT, LONG = 25, 100

Question = Callable[[ControlPlane, Connection, int], object]
QUESTIONS: dict[str, Question] = {
    "snapshots": lambda plane, connection, runs: dag_snapshots(
        connection, plane.settings, EngineSnapshot(), plane.clock.now()
    ),
    "newest runs": lambda plane, connection, runs: run_queries.listing(connection, limit=10),
    "newest of a DAG": lambda plane, connection, runs: run_queries.listing(connection, [NAMES[3]], 10),
    "newest of stages": lambda plane, connection, runs: run_queries.listing(connection, NAMES[3:6], 10),
    "newest that ended so": lambda plane, connection, runs: run_queries.listing(
        connection, [NAMES[3]], 10, DagRunState.SUCCESS
    ),
    "unfinished": lambda plane, connection, runs: run_queries.unfinished_of(connection, NAMES[3]),
    "count of unfinished": lambda plane, connection, runs: run_queries.count_unfinished(connection, NAMES[3]),
    "prior values": lambda plane, connection, runs: xcom_queries.prior_values(
        connection, NAMES[3], f"manual__{runs:05}", task_ids=["commit"], key="return_value"
    ),
}


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, ControlPlane]]:
    with ExitStack() as stack:
        yield {runs: stack.enter_context(plane_after(tmp_path_factory.mktemp("plane"), runs)) for runs in (SHORT, LONG)}


@contextmanager
def plane_after(
    root: Path, runs: int, database_url: str | None = None, *, gather_statistics: bool = True
) -> Iterator[ControlPlane]:
    with control_plane(root, database_url=database_url) as plane:
        with plane.database.transaction() as connection:
            for name in () if gather_statistics else ("dag_run", "task_instance", "attempt", "xcom"):
                connection.exec_driver_sql(f"ALTER TABLE {name} SET (autovacuum_enabled = false)")
            for place, name in enumerate(NAMES):
                write_history(connection, document(name), runs, place=place)
        yield plane


def document(name: str) -> DagDocument:
    chain = ChainDocument(pipeline=name, stage="main", branch="main", store="checkpoints")
    tasks = [empty_task("train"), empty_task("commit", "train", role="commit")]
    return DagDocument(dag_id=name, tasks=tasks, chain=chain)


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_takes_as_many_steps_after_a_long_history(planes: dict[int, ControlPlane], question: str) -> None:
    steps = {}
    for runs, plane in planes.items():
        with plane.database.reading() as connection:
            asked = partial(QUESTIONS[question], plane, connection, runs)
            steps[runs] = steps_of(plane.database.engine, asked)
    assert steps[LONG] <= 1.2 * steps[SHORT] + 50


def test_answers_after_a_history(tmp_path: Path, database_url: str | None) -> None:
    with plane_after(tmp_path, SHORT, database_url) as plane, plane.database.reading() as connection:
        found = dag_snapshots(connection, plane.settings, EngineSnapshot(), plane.clock.now())
        assert [each.committed and each.committed.number for each in found] == [SHORT] * len(NAMES)
        of_stages = run_queries.listing(connection, NAMES[3:6], 4)
        assert [(row.dag_id, row.number) for row in of_stages] == [(NAMES[5], SHORT - back) for back in range(4)]
        pulled = xcom_queries.prior_values(
            connection, NAMES[3], "manual__00007", task_ids=["commit", "train"], key="return_value"
        )
    assert list(pulled) == ["commit"]
    assert msgspec.json.decode(pulled["commit"])["number"] == 7


def test_run_takes_as_many_steps_after_a_long_history(tmp_path: Path) -> None:
    steps = {}
    for runs in (SHORT, LONG):
        with plane_after(tmp_path / str(runs), runs) as plane:
            run_to_its_end(plane, "first")
            steps[runs] = steps_of(plane.database.engine, partial(run_to_its_end, plane, "second"))
    assert 0 < steps[LONG] <= 1.2 * steps[SHORT]


def run_to_its_end(plane: ControlPlane, run_id: str) -> None:
    """Two of the DAGs at once."""
    for name in NAMES[:2]:
        plane.add_run(name, run_id)
    for _ in range(2):
        for workload in plane.tick():
            plane.play(workload)
    assert plane.tick() == []
    plane.scheduler.sweep()


@pytest.mark.exhaustive
def test_run_reads_few_blocks_of_postgres_without_statistics(tmp_path: Path, postgres: LocalServer) -> None:
    """As after a restore, until the server has looked at its tables by itself: the smallest has some 240 blocks."""
    with plane_after(tmp_path, 700, postgres.new_database(), gather_statistics=False) as plane:
        run_to_its_end(plane, "first")
        heard = heard_in(plane, partial(run_to_its_end, plane, "second"))
        heard |= heard_in(plane, partial(look_around, plane))
        blocks = {statement: blocks_of(plane, statement, given) for statement, given in heard.items()}
    assert len(blocks) > 10
    assert {statement: read for statement, read in blocks.items() if read > 200} == {}


def look_around(plane: ControlPlane) -> None:
    """At one DAG, as the panel does."""
    with plane.database.reading() as connection:
        assert len(status_queries.shown_runs(connection, [NAMES[3]])) == 1
        assert len(status_queries.newest_results(connection, [NAMES[3]], ["commit"], 20)) == 20
        run_queries.listing(connection, [NAMES[3]], 10)


def heard_in(plane: ControlPlane, call: Callable[[], object]) -> dict[str, Any]:
    """The questions that are asked in a call, each with what was asked last."""
    heard: dict[str, Any] = {}

    def hear(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.startswith("SELECT"):
            heard[statement] = parameters

    event.listen(plane.database.engine, "before_cursor_execute", hear)
    try:
        call()
    finally:
        event.remove(plane.database.engine, "before_cursor_execute", hear)
    return heard


def blocks_of(plane: ControlPlane, statement: str, given: Any) -> int:
    """How many blocks of its tables PostgreSQL reads for an answer."""
    with plane.database.engine.connect() as connection:
        (plan,) = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", given).scalar_one()
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])
