"""Airflow's shapes of DAGs, runs, tasks, and what they are made of here.

What Airflow's clients require is in them; what trainflow has no concept of is left out, or null where a client needs
the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Row

from trainflow.clock import elapsed_seconds
from trainflow.metadata.queries.page_queries import SHOWN_OF_RUN
from trainflow.observability.redaction import redact
from trainflow.serialization.document import DagDocument, TaskDocument


class DagTag(msgspec.Struct, frozen=True):
    """A tag of a DAG."""

    name: str
    dag_id: str
    dag_display_name: str


class Dag(msgspec.Struct, frozen=True, kw_only=True):
    """A DAG as an engine has read it last."""

    dag_id: str
    dag_display_name: str
    is_paused: bool
    is_stale: bool
    last_parsed_time: datetime
    fileloc: str
    relative_fileloc: str
    file_token: str
    description: str | None
    owners: list[str]
    tags: list[DagTag]
    max_active_tasks: int
    max_active_runs: int
    max_consecutive_failed_dag_runs: int = 0
    has_task_concurrency_limits: bool
    has_import_errors: bool
    is_backfillable: bool = False
    timetable_summary: str | None = None
    timetable_partitioned: bool = False
    timetable_periodic: bool = False
    #: pipeline/stage/branch; None: it trains no chain
    chain: str | None


class Dags(msgspec.Struct, frozen=True):
    """DAGs, by id."""

    dags: list[Dag]
    total_entries: int


class DagVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A content of a DAG that a run is pinned to."""

    id: UUID
    version_number: int
    dag_id: str
    dag_display_name: str
    created_at: datetime


class DagDetails(Dag, frozen=True, kw_only=True):
    """A DAG with its params and its newest version."""

    catchup: bool = False
    concurrency: int
    render_template_as_native_obj: bool = False
    doc_md: str | None
    dag_run_timeout: str | None
    params: dict[str, Any]
    is_paused_upon_creation: bool
    latest_dag_version: DagVersion
    active_runs_count: int


class Seconds(msgspec.Struct, frozen=True, kw_only=True):
    """A duration, as Airflow writes one."""

    days: int
    seconds: int
    microseconds: int
    type: str = msgspec.field(default="TimeDelta", name="__type")


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a DAG."""

    task_id: str
    task_display_name: str
    operator_name: str
    role: str | None
    upstream_task_ids: list[str]
    downstream_task_ids: list[str]
    trigger_rule: str
    retries: int
    retry_delay: Seconds
    retry_exponential_backoff: float
    execution_timeout: Seconds | None
    pool: str
    pool_slots: int
    queue: str
    executor: str | None
    priority_weight: int
    depends_on_past: bool
    wait_for_downstream: bool = False
    is_mapped: bool = False
    extra_links: list[str] = []
    template_fields: list[str]
    doc_md: str | None
    class_ref: dict[str, str]


class Tasks(msgspec.Struct, frozen=True):
    """The tasks of a DAG, in the order of the DAG."""

    tasks: list[Task]
    total_entries: int


class DagRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run. `number` counts the runs of its DAG."""

    dag_run_id: str
    dag_id: str
    dag_display_name: str
    number: int
    state: str
    run_type: str
    triggered_by: str
    triggering_user_name: str | None = None
    logical_date: datetime | None
    run_after: datetime
    queued_at: datetime
    start_date: datetime | None
    end_date: datetime | None
    duration: float | None
    data_interval_start: datetime | None = None
    data_interval_end: datetime | None = None
    last_scheduling_decision: datetime | None = None
    conf: dict[str, Any]
    note: str | None
    dag_versions: list[DagVersion] = []
    bundle_version: str | None = None
    partition_key: str | None = None
    partition_date: datetime | None = None


class DagRuns(msgspec.Struct, frozen=True, kw_only=True):
    """A page of runs. `total_entries`: of the first page, counted up to `total_entries_limit`; `next_cursor` and
    `previous_cursor`: of the pages behind and before it."""

    dag_runs: list[DagRun]
    total_entries: int | None
    total_entries_limit: int
    next_cursor: str | None
    previous_cursor: str | None


class TaskInstanceShape(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a run. `try_number`: how many attempts it has had; `problem`: why its last attempt failed; `progress`:
    what it reports while it runs."""

    id: UUID
    task_id: str
    task_display_name: str
    dag_id: str
    dag_display_name: str
    dag_run_id: str
    map_index: int
    state: str | None
    try_number: int
    max_tries: int
    run_after: datetime
    logical_date: datetime | None
    scheduled_when: datetime | None
    queued_when: datetime | None
    start_date: datetime | None
    end_date: datetime | None
    duration: float | None
    hostname: str | None
    pid: int | None
    unixname: str | None = None
    pool: str
    pool_slots: int
    queue: str
    executor: str | None
    executor_config: str = "{}"
    priority_weight: int
    operator: str | None
    operator_name: str | None
    note: str | None
    rendered_fields: dict[str, Any] = {}
    rendered_map_index: str | None = None
    trigger: None = None
    triggerer_job: None = None
    problem: str | None
    progress: dict[str, Any] | None


class TaskInstances(msgspec.Struct, frozen=True, kw_only=True):
    """A page of task instances, as of `DagRuns`."""

    task_instances: list[TaskInstanceShape]
    total_entries: int | None
    total_entries_limit: int
    next_cursor: str | None
    previous_cursor: str | None


def dag_of(row: Row[Any], document: DagDocument, *, broken: bool) -> Dag:
    """A row of `dag` with its document."""
    return Dag(**_dag(row, document, broken=broken))


def _dag(row: Row[Any], document: DagDocument, *, broken: bool) -> dict[str, Any]:
    chain = document.chain
    limited = any(each.max_active_tis_per_dag or each.max_active_tis_per_dagrun for each in document.tasks)
    return {
        "dag_id": row.dag_id,
        "dag_display_name": row.dag_id,
        "is_paused": row.is_paused,
        "is_stale": row.missing_since is not None,
        "last_parsed_time": row.parsed_at,
        "fileloc": row.path,
        "relative_fileloc": row.path,
        "file_token": row.path,
        "description": document.description,
        "owners": [],
        "tags": [DagTag(tag, row.dag_id, row.dag_id) for tag in document.tags],
        "max_active_tasks": document.max_active_tasks,
        "max_active_runs": row.max_active_runs,
        "has_task_concurrency_limits": limited,
        "has_import_errors": broken,
        "chain": f"{chain.pipeline}/{chain.stage}/{chain.branch}" if chain else None,
    }


def dag_details_of(row: Row[Any], document: DagDocument, version: Row[Any], *, broken: bool, active: int) -> DagDetails:
    """The same in detail, with its version and how many runs are under way."""
    timeout = document.dagrun_timeout_seconds
    return DagDetails(
        **_dag(row, document, broken=broken),
        concurrency=document.max_active_tasks,
        doc_md=document.doc,
        dag_run_timeout=None if timeout is None else f"PT{timeout:g}S",
        params=redact(document.params),
        is_paused_upon_creation=document.is_paused_upon_creation,
        latest_dag_version=DagVersion(
            id=UUID(int=version.id),
            version_number=version.number,
            dag_id=row.dag_id,
            dag_display_name=row.dag_id,
            created_at=version.created_at,
        ),
        active_runs_count=active,
    )


def tasks_of(document: DagDocument) -> Tasks:
    """The tasks of a document."""
    return Tasks([_task(each, document) for each in document.tasks], len(document.tasks))


def task_of(task: TaskDocument, document: DagDocument) -> Task:
    """One of them."""
    return _task(task, document)


def _task(task: TaskDocument, document: DagDocument) -> Task:
    module, _, name = task.operator.rpartition(".")
    timeout = task.execution_timeout_seconds
    return Task(
        task_id=task.task_id,
        task_display_name=task.task_id,
        operator_name=name,
        role=task.role,
        upstream_task_ids=task.upstream,
        downstream_task_ids=[each.task_id for each in document.tasks if task.task_id in each.upstream],
        trigger_rule=task.trigger_rule,
        retries=task.retry.retries,
        retry_delay=_seconds(task.retry.delay_seconds),
        retry_exponential_backoff=task.retry.multiplier,
        execution_timeout=None if timeout is None else _seconds(timeout),
        pool=task.pool,
        pool_slots=task.pool_slots,
        queue=task.queue,
        executor=task.executor,
        priority_weight=task.priority_weight,
        depends_on_past=task.depends_on_past,
        template_fields=sorted(task.template_fields),
        doc_md=task.doc,
        class_ref={"module_path": module, "class_name": name},
    )


def _seconds(value: float) -> Seconds:
    delta = timedelta(seconds=value)
    return Seconds(days=delta.days, seconds=delta.seconds, microseconds=delta.microseconds)


def run_of(row: Row[Any]) -> DagRun:
    """A row of `dag_run`."""
    return listed_run([getattr(row, name) for name in SHOWN_OF_RUN])


def listed_run(row: Iterable[Any]) -> DagRun:
    """The columns `SHOWN_OF_RUN` by their places: to look up names in a row takes as long as all else of this."""
    _, dag_id, run_id, number, state, run_type, triggered_by, conf, note, *moments = row
    logical_date, run_after, queued_at, started_at, ended_at = moments
    return DagRun(
        dag_run_id=run_id,
        dag_id=dag_id,
        dag_display_name=dag_id,
        number=number,
        state=state,
        run_type=run_type,
        triggered_by=triggered_by,
        logical_date=logical_date,
        run_after=run_after,
        queued_at=queued_at,
        start_date=started_at,
        end_date=ended_at,
        duration=elapsed_seconds(started_at, ended_at),
        conf=redact(conf) if conf else conf,
        note=note,
    )


class TaskRun(NamedTuple):
    """What a task instance is shown with, of its run."""

    dag_id: str
    run_id: str
    run_after: datetime
    logical_date: datetime | None


def task_instance_of(
    row: Row[Any], run: TaskRun, described: TaskDocument | None, attempts: int, rendered: Mapping[str, Any] | None
) -> TaskInstanceShape:
    """A row of `task_instance`; `attempts`: how many it has had; `rendered`: its template fields."""
    operator = described.operator.rpartition(".")[2] if described else None
    return TaskInstanceShape(
        id=UUID(int=row.id),
        task_id=row.task_id,
        task_display_name=row.task_id,
        dag_id=run.dag_id,
        dag_display_name=run.dag_id,
        dag_run_id=run.run_id,
        map_index=row.map_index,
        state=row.state,
        try_number=attempts,
        max_tries=row.max_tries,
        run_after=run.run_after,
        logical_date=run.logical_date,
        scheduled_when=row.scheduled_at,
        queued_when=row.queued_at,
        start_date=row.started_at,
        end_date=row.ended_at,
        duration=elapsed_seconds(row.started_at, row.ended_at),
        hostname=row.hostname,
        pid=row.pid,
        pool=row.pool,
        pool_slots=row.pool_slots,
        queue=row.queue,
        executor=row.executor,
        priority_weight=row.priority_weight,
        operator=operator,
        operator_name=operator,
        note=row.note,
        rendered_fields=dict(rendered or {}),
        problem=row.problem,
        progress=row.progress,
    )
