"""The tables. Invariants that two processes could break live here, as unique indexes.

Each is a class whose attributes are its columns, made into a table of SQLAlchemy's core: the mapper is not used, and
importing it would take as long as everything else here together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateTable, SchemaItem
from sqlalchemy.types import TypeEngine

from trainflow.metadata.column_types import BigKey, Float64, Json, LongText, UtcDateTime

_T = TypeVar("_T")
_Id = TypeVar("_Id", int, str)

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


@compiles(CreateTable, "mysql", "mariadb")
def _create_table(create: CreateTable, compiler: Any, **options: Any) -> str:
    """MySQL and MariaDB take names for equal that differ in case, accents or trailing blanks only, unless told not
    to."""
    made: str = compiler.visit_create_table(create, **options)
    ours = create.element.metadata is METADATA
    collation = "utf8mb4_nopad_bin" if compiler.dialect.is_mariadb else "utf8mb4_0900_bin"
    return f"{made.rstrip()}CHARSET=utf8mb4 COLLATE {collation}\n\n" if ours else made


class TableModel:
    """A table, written as a class of typed columns."""

    table: ClassVar[Table]
    #: what holds over several columns, and indexes
    constraints: ClassVar[Sequence[SchemaItem]] = ()

    def __init_subclass__(cls, *, name: str, **options: Any) -> None:
        columns: list[Column[Any]] = []
        for attribute, value in vars(cls).items():
            if isinstance(value, Column):
                value.name = value.key = attribute
                columns.append(value)
        cls.table = Table(name, METADATA, *columns, *cls.constraints, **options)


def required(type_: TypeEngine[_T], *constraints: SchemaItem, **options: Any) -> Column[_T]:
    """A column that always has a value."""
    return Column(type_, *constraints, nullable=False, **options)


def optional(type_: TypeEngine[_T], **options: Any) -> Column[_T | None]:
    """A column that may be empty."""
    return Column(type_, nullable=True, **options)


class DagTable(TableModel, name="dag"):
    """A DAG that some file defines (or defined: `missing_since`)."""

    dag_id = required(String(250), primary_key=True)
    path = required(String(1000))
    version_id = optional(BigKey)
    is_paused = required(Boolean(), default=False)
    #: taken from the version: read by the statement that starts runs
    max_active_runs = required(Integer(), default=16)
    parsed_at = required(UtcDateTime())
    missing_since = optional(UtcDateTime())


class DagVersionTable(TableModel, name="dag_version"):
    """One content of one DAG. A run is pinned to its version."""

    constraints = (UniqueConstraint("dag_id", "digest"), UniqueConstraint("dag_id", "number"))

    id = required(BigKey, primary_key=True, autoincrement=True)
    dag_id = required(String(250))
    number = required(Integer())
    digest = required(String(80))
    document = required(LongText())
    source = required(Json())
    created_at = required(UtcDateTime())


class DagRunTable(TableModel, name="dag_run", sqlite_autoincrement=True):
    """One run. At most one per (parent run, task) exists: one successor, however often it is triggered.

    No id is given twice: what the outbox remembers of a run that was deleted is not about a later one.
    """

    constraints = (
        UniqueConstraint("dag_id", "run_id"),
        UniqueConstraint("dag_id", "number"),
        UniqueConstraint("parent_id", "parent_task_id", "parent_map_index"),
        Index("ix_dag_run_state", "state", "dag_id", "number"),
        # the run of a DAG that ended last
        Index("ix_dag_run_ended_at", "dag_id", "ended_at", "number"),
    )

    id = required(BigKey, primary_key=True, autoincrement=True)
    dag_id = required(String(250))
    run_id = required(String(250))
    #: order of creation within the DAG: the order in which queued runs start
    number = required(Integer())
    version_id = required(BigKey, ForeignKey("dag_version.id"))
    state = required(String(20))
    run_type = required(String(30))
    triggered_by = required(String(20))
    conf = required(Json())
    logical_date = optional(UtcDateTime())
    run_after = required(UtcDateTime())
    queued_at = required(UtcDateTime())
    started_at = optional(UtcDateTime())
    ended_at = optional(UtcDateTime())
    #: who triggered it
    parent_id = optional(BigKey)
    parent_task_id = optional(String(250))
    parent_map_index = optional(Integer())
    #: the run that a person started and of which this one is a descendant
    root_id = optional(BigKey, index=True)
    #: counts clears: a wait for this run from before a clear is not ended by what happened before it
    clear_number = required(Integer(), default=0)
    note = optional(Text())
    mlflow_uri = optional(String(500))
    mlflow_run_id = optional(String(64))
    #: since when it has nothing left to do but tasks that the next run does not wait for
    released_at = optional(UtcDateTime())
    #: W3C's, of the span that it was asked for in
    traceparent = optional(String(55))


class TaskInstanceTable(TableModel, name="task_instance"):
    """One task of one run."""

    constraints = (
        UniqueConstraint("dag_run_id", "task_id", "map_index"),
        # the order in which scheduled tasks are looked at
        Index(
            "ix_task_instance_queueing",
            *("state", text("resumed DESC"), text("priority_weight DESC"), "scheduled_at", "id"),
        ),
        Index("ix_task_instance_attempt_id", "attempt_id"),
    )

    id = required(BigKey, primary_key=True, autoincrement=True)
    dag_run_id = required(BigKey, ForeignKey("dag_run.id", ondelete="CASCADE"))
    task_id = required(String(250))
    map_index = required(Integer(), default=-1)
    state = optional(String(20))
    #: attempts that failed by their own fault; the current try is failures + 1
    failures = required(Integer(), default=0)
    max_tries = required(Integer(), default=0)
    #: attempts in a row that infrastructure lost
    lost = required(Integer(), default=0)
    attempt_id = optional(String(32))
    deferral_number = required(Integer(), default=0)
    reschedules = required(Integer(), default=0)
    pool = required(String(250))
    pool_slots = required(Integer(), default=1)
    priority_weight = required(Integer(), default=1)
    queue = required(String(250), default="default")
    scheduled_at = optional(UtcDateTime())
    queued_at = optional(UtcDateTime())
    #: first start since it was made or cleared: what a sensor's timeout counts from
    started_at = optional(UtcDateTime())
    ended_at = optional(UtcDateTime())
    retry_at = optional(UtcDateTime())
    hostname = optional(String(250))
    pid = optional(Integer())
    #: seconds since boot at which the process started: tells it from a later one with its pid
    process_started = optional(Float64)
    heartbeat_at = optional(UtcDateTime())
    #: the scheduler whose executor holds it
    service_id = optional(BigKey)
    #: scheduled after a wait: goes first, since it has waited already and holds what it waited for
    resumed = required(Boolean(), default=False)
    next_method = optional(String(250))
    next_kwargs = optional(Json())
    progress = optional(Json())
    problem = optional(LongText())
    note = optional(Text())
    #: when a person last cleared it: what was saved inside its split before is not gone on from
    cleared_at = optional(UtcDateTime())
    #: rows that the furthest save inside its split holds, since it was made or cleared
    saved_rows = optional(BigInteger())
    #: rows that were saved when its budgets last began anew: what is further counts as progress
    credited_rows = optional(BigInteger())
    #: when `retry_at` was written
    waits_since = optional(UtcDateTime())
    #: the executor that it is handed to; None, until it is queued: the one of tasks that name none
    executor = optional(String(250))


class AttemptTable(TableModel, name="attempt"):
    """One try of one task instance: history, for people."""

    attempt_id = required(String(32), primary_key=True)
    task_instance_id = required(BigKey, ForeignKey("task_instance.id", ondelete="CASCADE"), index=True)
    try_number = required(Integer())
    #: how it ended, in one word; None while it lasts
    outcome = optional(String(20))
    queued_at = required(UtcDateTime())
    started_at = optional(UtcDateTime())
    ended_at = optional(UtcDateTime())
    problem = optional(LongText())
    #: relative to the logs of a home: another host reads the row too
    log_name = required(String(1000))
    #: what its processes asked of stores: list of `trainflow.observability.store_requests.StoreUse`
    store_use = optional(Json())
    #: the scheduler that handed it out
    service_id = optional(BigKey)
    #: where it ran the last time
    hostname = optional(String(250))
    #: when it was heard again, and told to stop, after it had been given up
    refused_at = optional(UtcDateTime())
    #: the template fields of its task as it has rendered them
    rendered_fields = optional(Json())
    #: when it waited in the triggerer: list of [from, until]
    waits = optional(Json())


class AttemptCurvesTable(TableModel, name="attempt_curves"):
    """The metrics that an attempt reported while it ran, kept of the newest runs only (`queries.curve_queries`)."""

    constraints = (UniqueConstraint("dag_id", "run_number", "attempt_id"),)

    attempt_id = required(String(32), ForeignKey("attempt.attempt_id", ondelete="CASCADE"), primary_key=True)
    dag_id = required(String(250))
    run_number = required(Integer())
    dag_run_id = required(BigKey)
    #: a `trainflow.messages.execution_api.MetricCurves`
    curves = required(Json())


class AttemptCredentialTable(TableModel, name="attempt_credential"):
    """What a worker on another host proves with that it speaks for one stay of an attempt. Digests only."""

    attempt_id = required(String(32), ForeignKey("attempt.attempt_id", ondelete="CASCADE"), primary_key=True)
    deferral_number = required(Integer(), primary_key=True)
    claim_hash = required(String(64))
    #: of the token for which the claim secret was exchanged
    token_hash = optional(String(64), index=True)
    #: rises as long as the worker says that the attempt lives
    heartbeats = required(Integer(), default=0)
    #: how much of its log was taken
    log_bytes = required(BigInteger(), default=0)
    #: where its first rank is (host:port), while its ranks wait for each other
    rank_address = optional(String(300))


class XComTable(TableModel, name="xcom"):
    """A value that a task handed over."""

    dag_run_id = required(BigKey, ForeignKey("dag_run.id", ondelete="CASCADE"), primary_key=True)
    task_id = required(String(250), primary_key=True)
    map_index = required(Integer(), primary_key=True, default=-1)
    key = required(String(250), primary_key=True)
    value = required(LongText())
    created_at = required(UtcDateTime())


class TriggerTable(TableModel, name="trigger", sqlite_autoincrement=True):
    """A wait handed to the triggerer: one per deferred task instance.

    No id is given twice: an event that comes late must not end another wait.
    """

    id = required(BigKey, primary_key=True, autoincrement=True)
    task_instance_id = required(BigKey, ForeignKey("task_instance.id", ondelete="CASCADE"), unique=True)
    attempt_id = required(String(32))
    deferral_number = required(Integer())
    trigger_class = required(String(500))
    kwargs = required(Json())
    deadline = optional(UtcDateTime(), index=True)
    created_at = required(UtcDateTime())
    #: the triggerer that watches it
    service_id = optional(BigKey, index=True)
    #: how often the task has started over before, one time after another, because its wait could not be taken up
    start_overs = optional(Integer())


class PoolTable(TableModel, name="pool"):
    """A limit shared by tasks. `slots` -1: no limit."""

    name = required(String(250), primary_key=True)
    slots = required(Integer())
    include_deferred = required(Boolean(), default=False)
    description = optional(Text())


class ServiceTable(TableModel, name="service"):
    """A living part of the control plane, or a worker, and its lease."""

    id = required(BigKey, primary_key=True, autoincrement=True)
    kind = required(String(30))
    hostname = required(String(250))
    pid = required(Integer())
    process_started = required(Float64)
    started_at = required(UtcDateTime())
    #: for people; others go by the counter
    heartbeat_at = required(UtcDateTime())
    stopped_at = optional(UtcDateTime())
    #: rises as long as it lives (see `service_queries`)
    heartbeats = optional(Integer())
    #: its executors, each an `ExecutorState`
    executors = optional(Json())
    #: a `ServiceDetails`
    details = optional(Json())


class InstallationTable(TableModel, name="installation"):
    """What tells this database from any other: one row, made with it."""

    id = required(String(32), primary_key=True)


class DrainTable(TableModel, name="drain"):
    """What takes nothing new, and finishes what it has: a worker (by its name), a queue, a DAG."""

    kind = required(String(20), primary_key=True)
    name = required(String(250), primary_key=True)
    since = required(UtcDateTime())
    note = optional(Text())


class ImportProblemTable(TableModel, name="import_problem"):
    """Why a pipeline file gives no DAG."""

    path = required(String(500), primary_key=True)
    message = required(LongText())
    traceback = required(LongText())
    line = optional(Integer())
    column = optional(Integer())
    at = required(UtcDateTime())


class OutboxTable(TableModel, name="outbox"):
    """A delivery to a system outside that is still to be made. Written in the transaction it tells about."""

    constraints = (
        Index("ix_outbox_delivered_at", "channel", "delivered_at", "id"),
        UniqueConstraint("key", "channel", name="uq_outbox_key"),
    )

    id = required(BigKey, primary_key=True, autoincrement=True)
    #: what makes a second delivery of the same fact recognisable
    key = required(String(500))
    dag_run_id = optional(BigKey)
    kind = required(String(30))
    created_at = required(UtcDateTime())
    failures = required(Integer(), default=0)
    next_attempt_at = required(UtcDateTime())
    delivered_at = optional(UtcDateTime())
    reason = optional(Text())
    #: the delivery itself, where it is about no run
    payload = optional(Json())
    #: an `OutboxChannel`: which system is told
    channel = required(String(30))


class NotificationTable(TableModel, name="notification"):
    """A notice to be told, written in the transaction it tells about. A row stays: it is told once."""

    constraints = (Index("ix_notification_delivered_at", "delivered_at", "next_attempt_at"),)

    id = required(BigKey, primary_key=True, autoincrement=True)
    #: what makes the same fact recognisable
    key = required(String(80), unique=True)
    #: a Notice
    notice = required(Json())
    created_at = required(UtcDateTime())
    #: names of the targets that have it
    taken_by = required(String(1000), default="")
    failures = required(Integer(), default=0)
    next_attempt_at = required(UtcDateTime())
    delivered_at = optional(UtcDateTime())
    reason = optional(Text())
