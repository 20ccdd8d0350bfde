"""Have the holes of a chain trained that have arrived: what that comes to, and how it is begun.

Runs of the chain's own DAG do it, told by their conf, so a kill, a retry and the fence mean what they always mean. A
run that is under way takes it on: it, or the one it triggers, repairs first and triggers an ordinary run then.
Otherwise a new run is queued.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from trainflow.identifiers import manual_run_id
from trainflow.insight.progress import View
from trainflow.insight.progress_feed import Following
from trainflow.metadata import dag_queries, run_creation, run_queries, task_queries
from trainflow.metadata.dag_queries import Versions
from trainflow.metadata.database import Database
from trainflow.operators.run_conf import CONF_REPAIR, CONF_SKIPPED, REPAIR_FIRST
from trainflow.samples.next_split import Seen
from trainflow.samples.pace import Pace
from trainflow.samples.repair import next_repair, without_stretch
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.samples.split_content import Columns, Hole
from trainflow.serialization.document import DagDocument
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.states import DagRunState, DagRunType, TaskInstanceState, TriggeredBy

_WAITING = (TaskInstanceState.DEFERRED, TaskInstanceState.UP_FOR_RESCHEDULE)


class PlannedRepair(msgspec.Struct, frozen=True):
    """One run to come; `start` and `end` (exclusive) bound what it trains."""

    number: int
    start: datetime
    end: datetime
    partitions: int
    rows: int | None
    bytes: int
    estimated_seconds: float | None


def planned(
    samples: Samples, holes: Sequence[Hole], limits: SplitLimits, seen: Seen, pace: Pace, columns: Columns = ()
) -> list[PlannedRepair]:
    """The runs that would train what has arrived in `holes`. Raises SampleUnreadable."""
    found: list[PlannedRepair] = []
    left = list(holes)
    while (split := next_repair(samples, left, limits, seen, columns)) is not None:
        seconds = pace.estimate(len(split.partitions), split.rows)
        found.append(
            PlannedRepair(
                len(found) + 1, split.start, split.end, len(split.partitions), split.rows, split.bytes, seconds
            )
        )
        left, columns = without_stretch(left, split.start, split.end), split.columns
    return found


def repairing(dag_id: str, *, skipped: bool) -> Callable[[Database, Project, Settings, str, datetime], list[Following]]:
    """Begins the repair of one DAG's chain where `trainflow.actions.start.begin` would begin to train."""
    conf = {CONF_REPAIR: True, **({CONF_SKIPPED: True} if skipped else {})}

    def begin(
        database: Database, _project: Project, _settings: Settings, _stored_path: str, now: datetime
    ) -> list[Following]:
        return [database.write(lambda connection: _begin(connection, dag_id, conf, now))]

    return begin


def _begin(connection: Connection, dag_id: str, conf: dict[str, Any], now: datetime) -> Following:
    dag = dag_queries.get(connection, dag_id)
    document, _ = Versions().get(connection, dag.version_id)
    unfinished = run_queries.unfinished_of(connection, dag_id)
    if not unfinished:
        run_id = manual_run_id(now, os.urandom(3).hex())
        root_id = run_creation.create(
            connection,
            dag_id=dag_id,
            run_id=run_id,
            run_type=DagRunType.MANUAL,
            triggered_by=TriggeredBy.CLI,
            conf=conf,
            now=now,
        )
        return RepairFollowing(dag_id, root_id, document.chain, now, roots=frozenset({root_id}))
    run = unfinished[-1]
    known = run.conf.get(CONF_REPAIR)
    run_queries.add_conf(connection, run.id, {**conf, CONF_REPAIR: known or REPAIR_FIRST})
    if run.state == DagRunState.RUNNING and _waits(connection, run.id, document):
        # it has read its conf already: begin it anew
        run_queries.clear(connection, run.id, now)
    root_id = run.root_id or run.id
    following = RepairFollowing(dag_id, root_id, document.chain, now, roots=frozenset({root_id}))
    following.begins_after(run.id - 1, joined=True)
    return following


def _waits(connection: Connection, dag_run_id: int, document: DagDocument) -> bool:
    """Whether the run only waits for samples."""
    states = task_queries.states_in_run(connection, dag_run_id)
    return any(task.role == "samples" and states.get(task.task_id) in _WAITING for task in document.tasks)


class RepairFollowing(Following):
    """Follows until no run of the DAG repairs any more, whatever is trained after it."""

    def look(self, connection: Connection, now: datetime) -> View:
        view = super().look(connection, now)
        unfinished = run_queries.unfinished_of(connection, self.dag_id)
        return msgspec.structs.replace(view, finished=not any(run.conf.get(CONF_REPAIR) for run in unfinished))
