"""What has changed in a project since one last looked: a value for each thing that can be shown, equal while it is the
same. One look costs what is under way, however long the history is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from trainflow.insight.snapshot import EngineSnapshot, engine_state
from trainflow.metadata.database import Database
from trainflow.metadata.queries import live_queries
from trainflow.settings.model import Settings
from trainflow.settings.project import Project


class Look(NamedTuple):
    """`topics`: what can be shown → what it is like now. `engine`: alive, slow or none, and `sentence` about it."""

    topics: Mapping[str, Any]
    engine: str
    sentence: str


def look(project: Project, settings: Settings, database: Database, now: datetime) -> Look:
    """Look once. Raises what the database raises."""
    engine = engine_state(project, settings, database, now)
    with database.reading() as connection:
        topics = _topics(connection)
    state, sentence = _of_engine(engine)
    # a sentence of a page may be about the engine
    topics["fleet"] = (*topics["fleet"], state, engine.pid)
    return Look(topics, state, sentence)


def _topics(connection: Connection) -> dict[str, Any]:
    runs = live_queries.unfinished_runs(connection)
    tasks: dict[int, list[Any]] = {}
    for row in live_queries.unfinished_tasks(connection, [run.id for run in runs]):
        tasks.setdefault(row.dag_run_id, []).append(tuple(row))
    topics: dict[str, Any] = {}
    for run in runs:
        mine = (tuple(run), tuple(tasks.get(run.id, ())))
        topics[f"run:{run.dag_id}/{run.run_id}"] = mine
        topics[f"dag:{run.dag_id}"] = (*topics.get(f"dag:{run.dag_id}", ()), mine)
    newest, dags = live_queries.newest_run(connection), live_queries.dags(connection)
    problems = tuple(live_queries.problems(connection))
    for dag in dags:
        topics[f"dag:{dag.dag_id}"] = (*topics.get(f"dag:{dag.dag_id}", ()), tuple(dag))
    under_way = tuple(topics.get(f"run:{run.dag_id}/{run.run_id}") for run in runs)
    topics["runs"] = (newest, tuple(tuple(run) for run in runs))
    topics["waits"] = (under_way, problems, tuple(map(tuple, live_queries.pools(connection))))
    topics["fleet"] = (newest, under_way, tuple(map(tuple, dags)), problems)
    return topics


def _of_engine(engine: EngineSnapshot) -> tuple[str, str]:
    if not engine.alive:
        return "none", "no engine is alive: what is shown is as it was left, and nothing can be done from here"
    return ("alive", "") if engine.problem is None else ("slow", engine.problem)
