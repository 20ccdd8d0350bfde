"""What is waited for, what pools hold, which parts of the control plane live, and which files give no DAG."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection
from starlette.requests import Request

from trainflow.insight.runs.dags import import_problems
from trainflow.insight.runs.pools import list_pools
from trainflow.insight.runs.tasks import task_summaries
from trainflow.metadata.queries import live_queries, run_queries, service_list_queries
from trainflow.pages.site import Answer, Site

#: runs whose tasks are looked at
_MOST_RUNS = 200


class WaitingTask(NamedTuple):
    """A task that does not run, and why."""

    dag_id: str
    run_id: str
    number: int
    task_id: str
    state: str
    since: datetime | None
    sentence: str


def waits(site: Site, _request: Request) -> Answer:
    """The page."""
    now = site.now
    dead_after = timedelta(seconds=site.workspace.settings.engine.dead_after_seconds)

    def read(connection: Connection) -> dict[str, Any]:
        living = service_list_queries.shown_as_living(connection, now, dead_after)
        return {
            "waits": _waits(site, connection, now),
            "services": [(row, service_list_queries.executors_of(row)) for row in living],
        }

    values = {
        "title": "Waits and pools",
        "pools": list_pools(site.workspace),
        "problems": import_problems(site.workspace),
        **site.workspace.database.read(read),
    }
    return Answer("waits.html", values, ("waits", "fleet"))


def _waits(site: Site, connection: Connection, now: datetime) -> list[WaitingTask]:
    found = []
    for run in live_queries.unfinished_runs(connection)[:_MOST_RUNS]:
        row = run_queries.by_id(connection, run.id)
        found += [
            WaitingTask(
                each.dag_id, each.run_id, row.number, each.task_id, each.state or "none", each.started_at, each.waiting
            )
            for each in task_summaries(site.workspace, connection, row, now)
            if each.waiting is not None and each.state is not None
        ]
    return found
