"""Two commands at the same moment, over a server: none acts on what the other is just changing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from tests.support.control_plane import START, ControlPlane, control_plane, empty_task
from tests.support.local_databases import LocalServer
from trainflow.actions import marking
from trainflow.actions.chains import promote, repair
from trainflow.actions.first_runs import begin_or_follow
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.stages.init_from import InitFrom
from trainflow.errors import LostTransition
from trainflow.messages.workload import ProcessIdentity
from trainflow.metadata.database import Database
from trainflow.metadata.queries import pool_queries, run_queries, task_queries
from trainflow.serialization.document import ChainDocument, DagDocument
from trainflow.testing.processes import wait_for
from trainflow.workspace.workspace import Workspace

UPSTREAM = ChainKey("p", "base")
BEGUN = InitFrom(UPSTREAM, "promoted")


@pytest.fixture
def plane(tmp_path: Path, postgres: LocalServer) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, database_url=postgres.clean_database()) as plane:
        yield plane


@pytest.fixture
def other(plane: ControlPlane, tmp_path: Path) -> Iterator[ControlPlane]:
    """Another scheduler over the same database."""
    with control_plane(tmp_path, clock=plane.clock, settings=plane.settings) as other:
        other.scheduler.sweep()
        yield other


def _starts(document: DagDocument) -> Callable[[Connection], object]:
    return lambda connection: begin_or_follow(connection, [document], lambda _chain: None, START)


def _repairs(document: DagDocument) -> Callable[[Connection], object]:
    return lambda connection: repair._begin(connection, document.dag_id, {"repair": True}, START)


@pytest.mark.parametrize("begins", [_starts, _repairs])
def test_two_that_begin_at_once_begin_one_run(
    plane: ControlPlane, begins: Callable[[DagDocument], Callable[[Connection], object]]
) -> None:
    work = begins(plane.add_dag("d", empty_task("a")))
    _one_after_the_other(plane, work, lambda database: database.write(work))
    with plane.database.reading() as connection:
        assert len(run_queries.unfinished_of(connection, "d")) == 1


def test_two_promotions_at_once_begin_one_run(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = ChainDocument(pipeline="p", stage="fine", branch="main", store="checkpoints", init_from=BEGUN)
    document = plane.add_dag("d", empty_task("a"), chain=chain)
    monkeypatch.setattr(promote, "chains_to_look_at", lambda _documents, _workspace: lambda _chain: None)

    def promoted(database: Database) -> object:
        workspace = Workspace(plane.project, plane.settings, database)
        return promote.trigger_dependents(workspace, UPSTREAM, "champion", START)

    _one_after_the_other(plane, _starts(document), promoted)
    with plane.database.reading() as connection:
        assert len(run_queries.unfinished_of(connection, "d")) == 1


def _one_after_the_other(
    plane: ControlPlane, first: Callable[[Connection], object], second: Callable[[Database], object]
) -> None:
    """Commit what `first` does once `second`, with connections of its own, waits for that, or has ended."""
    with _connections(plane) as theirs, _connections(plane) as looks:
        thread = threading.Thread(target=second, args=(theirs,))
        with plane.database.transaction() as connection:
            first(connection)
            thread.start()
            wait_for(lambda: not thread.is_alive() or _is_waited_for(looks), "the second to wait for the first")
        thread.join()


@contextmanager
def _connections(plane: ControlPlane) -> Iterator[Database]:
    """Those of another process."""
    with closing(Database.of(plane.project.home, plane.settings)) as database:
        yield database


def _is_waited_for(database: Database) -> bool:
    with database.reading() as connection:
        return bool(connection.execute(text("SELECT 1 FROM pg_locks WHERE NOT granted")).all())


@pytest.fixture
def scheduled(plane: ControlPlane) -> int:
    """A run whose task is about to be claimed, as soon as the other scheduler looks."""
    plane.add_dag("d", empty_task("a"))
    _have_slots(plane, 0)
    run = plane.add_run("d")
    assert plane.tick() == []
    assert plane.states(run) == {"a": "scheduled"}
    _have_slots(plane, 1)
    return run


def _have_slots(plane: ControlPlane, count: int) -> None:
    with plane.database.transaction() as connection:
        pool_queries.put(connection, "default_pool", count, description="", include_deferred=False)


def _begins_task(other: ControlPlane) -> None:
    """Queue the task and claim it, in one transaction."""
    other.executor.waiting = [ProcessIdentity(7, 1.0)]
    other.scheduler.sweep()
    other.tick()


def test_task_that_begins_while_it_is_cleared_is_cleared(
    plane: ControlPlane, other: ControlPlane, scheduled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_all = task_queries.move_all

    def and_begins(*args: Any, **named: Any) -> int:
        moved = move_all(*args, **named)
        monkeypatch.setattr(task_queries, "move_all", move_all)
        _begins_task(other)
        return moved

    with plane.database.transaction() as connection:
        monkeypatch.setattr(task_queries, "move_all", and_begins)
        assert run_queries.clear(connection, scheduled, START) == 1
    assert plane.states(scheduled) == {"a": None}


def test_task_that_begins_while_it_is_marked_is_not_marked_as_done(
    plane: ControlPlane, other: ControlPlane, scheduled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = marking._planned

    def and_begins(*args: Any) -> Any:
        found = planned(*args)
        _begins_task(other)
        return found

    monkeypatch.setattr(marking, "_planned", and_begins)
    workspace = Workspace(plane.project, plane.settings, plane.database)
    with pytest.raises(LostTransition):
        marking.mark_task(workspace, "d", "r1", "a", "skipped", START, note=None)
    assert plane.states(scheduled) == {"a": "running"}
