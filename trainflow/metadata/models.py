"""The tables. Invariants that two processes could break live here, as unique indexes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.mysql import DATETIME as MYSQL_DATETIME
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

LongText = Text().with_variant(LONGTEXT(), "mysql", "mariadb")
BigKey = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC instant, to the microsecond, on every database. Refuses naive values."""

    impl = DateTime(timezone=True).with_variant(MYSQL_DATETIME(fsp=6), "mysql", "mariadb")
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r} given to the database")
        moved = value.astimezone(UTC)
        return moved if dialect.name == "postgresql" else moved.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """JSON as text: the same on every database, and never unpickled."""

    impl = LongText
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else msgspec.json.decode(value)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: Json}  # noqa: RUF012 (read by SQLAlchemy)


class Dag(Base):
    """A DAG that some file defines (or defined: `missing_since`)."""

    __tablename__ = "dag"

    dag_id: Mapped[str] = mapped_column(String(250), primary_key=True)
    path: Mapped[str] = mapped_column(String(1000))
    version_id: Mapped[int | None] = mapped_column(BigKey)
    is_paused: Mapped[bool] = mapped_column(default=False)
    #: taken from the version: read by the statement that starts runs
    max_active_runs: Mapped[int] = mapped_column(default=16)
    parsed_at: Mapped[datetime]
    missing_since: Mapped[datetime | None]


class DagVersion(Base):
    """One content of one DAG. A run is pinned to its version."""

    __tablename__ = "dag_version"
    __table_args__ = (UniqueConstraint("dag_id", "digest"), UniqueConstraint("dag_id", "number"))

    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    dag_id: Mapped[str] = mapped_column(String(250))
    number: Mapped[int]
    digest: Mapped[str] = mapped_column(String(80))
    document: Mapped[str] = mapped_column(LongText)
    source: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class DagRun(Base):
    """One run. At most one per (parent run, task) exists: one successor, however often it is triggered."""

    __tablename__ = "dag_run"
    __table_args__ = (
        UniqueConstraint("dag_id", "run_id"),
        UniqueConstraint("dag_id", "number"),
        UniqueConstraint("parent_id", "parent_task_id", "parent_map_index"),
        Index("ix_dag_run_state", "state", "dag_id", "number"),
        # what the outbox remembers of a run that was deleted is not about a later one
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    dag_id: Mapped[str] = mapped_column(String(250))
    run_id: Mapped[str] = mapped_column(String(250))
    #: order of creation within the DAG: the order in which queued runs start
    number: Mapped[int]
    version_id: Mapped[int] = mapped_column(ForeignKey("dag_version.id"))
    state: Mapped[str] = mapped_column(String(20))
    run_type: Mapped[str] = mapped_column(String(30))
    triggered_by: Mapped[str] = mapped_column(String(20))
    conf: Mapped[dict[str, Any]]
    logical_date: Mapped[datetime | None]
    run_after: Mapped[datetime]
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    #: who triggered it
    parent_id: Mapped[int | None] = mapped_column(BigKey)
    parent_task_id: Mapped[str | None] = mapped_column(String(250))
    parent_map_index: Mapped[int | None]
    #: the run that a person started and of which this one is a descendant
    root_id: Mapped[int | None] = mapped_column(BigKey, index=True)
    #: counts clears: a wait for this run from before a clear is not ended by what happened before it
    clear_number: Mapped[int] = mapped_column(default=0)
    note: Mapped[str | None] = mapped_column(Text)
    mlflow_uri: Mapped[str | None] = mapped_column(String(500))
    mlflow_run_id: Mapped[str | None] = mapped_column(String(64))


class TaskInstance(Base):
    """One task of one run."""

    __tablename__ = "task_instance"
    __table_args__ = (
        UniqueConstraint("dag_run_id", "task_id", "map_index"),
        # the order in which scheduled tasks are looked at
        Index("ix_task_instance_queueing", "state", text("resumed DESC"), text("priority_weight DESC"), "id"),
        Index("ix_task_instance_attempt_id", "attempt_id"),
    )

    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    dag_run_id: Mapped[int] = mapped_column(ForeignKey("dag_run.id", ondelete="CASCADE"))
    task_id: Mapped[str] = mapped_column(String(250))
    map_index: Mapped[int] = mapped_column(default=-1)
    state: Mapped[str | None] = mapped_column(String(20))
    #: attempts that failed by their own fault; the current try is failures + 1
    failures: Mapped[int] = mapped_column(default=0)
    max_tries: Mapped[int] = mapped_column(default=0)
    #: attempts in a row that infrastructure lost
    lost: Mapped[int] = mapped_column(default=0)
    attempt_id: Mapped[str | None] = mapped_column(String(32))
    deferral_number: Mapped[int] = mapped_column(default=0)
    reschedules: Mapped[int] = mapped_column(default=0)
    pool: Mapped[str] = mapped_column(String(250))
    pool_slots: Mapped[int] = mapped_column(default=1)
    priority_weight: Mapped[int] = mapped_column(default=1)
    queue: Mapped[str] = mapped_column(String(250), default="default")
    scheduled_at: Mapped[datetime | None]
    queued_at: Mapped[datetime | None]
    #: first start since it was made or cleared: what a sensor's timeout counts from
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    retry_at: Mapped[datetime | None]
    hostname: Mapped[str | None] = mapped_column(String(250))
    pid: Mapped[int | None]
    #: seconds since boot at which the process started: tells it from a later one with its pid
    process_started: Mapped[float | None] = mapped_column(Float)
    heartbeat_at: Mapped[datetime | None]
    #: the scheduler whose executor holds it
    service_id: Mapped[int | None] = mapped_column(BigKey)
    #: scheduled after a wait: goes first, since it has waited already and holds what it waited for
    resumed: Mapped[bool] = mapped_column(default=False)
    next_method: Mapped[str | None] = mapped_column(String(250))
    next_kwargs: Mapped[dict[str, Any] | None]
    progress: Mapped[dict[str, Any] | None]
    problem: Mapped[str | None] = mapped_column(LongText)
    note: Mapped[str | None] = mapped_column(Text)


class Attempt(Base):
    """One try of one task instance: history, for people."""

    __tablename__ = "attempt"

    attempt_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    task_instance_id: Mapped[int] = mapped_column(ForeignKey("task_instance.id", ondelete="CASCADE"), index=True)
    try_number: Mapped[int]
    #: how it ended, in one word; None while it lasts
    outcome: Mapped[str | None] = mapped_column(String(20))
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(LongText)
    log_path: Mapped[str] = mapped_column(String(1000))


class XCom(Base):
    """A value that a task handed over."""

    __tablename__ = "xcom"

    dag_run_id: Mapped[int] = mapped_column(ForeignKey("dag_run.id", ondelete="CASCADE"), primary_key=True)
    task_id: Mapped[str] = mapped_column(String(250), primary_key=True)
    map_index: Mapped[int] = mapped_column(primary_key=True, default=-1)
    key: Mapped[str] = mapped_column(String(250), primary_key=True)
    value: Mapped[str] = mapped_column(LongText)
    created_at: Mapped[datetime]


class Trigger(Base):
    """A wait handed to the triggerer: one per deferred task instance."""

    __tablename__ = "trigger"
    #: an id is never given twice: an event that comes late must not end somebody else's wait
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 (read by SQLAlchemy)

    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    task_instance_id: Mapped[int] = mapped_column(ForeignKey("task_instance.id", ondelete="CASCADE"), unique=True)
    attempt_id: Mapped[str] = mapped_column(String(32))
    deferral_number: Mapped[int]
    trigger_class: Mapped[str] = mapped_column(String(500))
    kwargs: Mapped[dict[str, Any]]
    deadline: Mapped[datetime | None] = mapped_column(index=True)
    created_at: Mapped[datetime]
    #: the triggerer that watches it
    service_id: Mapped[int | None] = mapped_column(BigKey, index=True)


class Pool(Base):
    """A limit shared by tasks. `slots` -1: no limit."""

    __tablename__ = "pool"

    name: Mapped[str] = mapped_column(String(250), primary_key=True)
    slots: Mapped[int]
    include_deferred: Mapped[bool] = mapped_column(default=False)
    description: Mapped[str | None] = mapped_column(Text)


class Service(Base):
    """A living part of the control plane, and its lease."""

    __tablename__ = "service"

    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(30))
    hostname: Mapped[str] = mapped_column(String(250))
    pid: Mapped[int]
    process_started: Mapped[float] = mapped_column(Float)
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    stopped_at: Mapped[datetime | None]


class ImportProblem(Base):
    """Why a pipeline file gives no DAG."""

    __tablename__ = "import_problem"

    path: Mapped[str] = mapped_column(String(500), primary_key=True)
    message: Mapped[str] = mapped_column(LongText)
    traceback: Mapped[str] = mapped_column(LongText)
    line: Mapped[int | None]
    column: Mapped[int | None]
    at: Mapped[datetime]


class Outbox(Base):
    """A delivery to the mirror that is still to be made. Written in the transaction it tells about."""

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_delivered_at", "delivered_at", "id"),)

    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    #: what makes a second delivery of the same fact recognisable
    key: Mapped[str] = mapped_column(String(500), unique=True)
    dag_run_id: Mapped[int | None] = mapped_column(BigKey)
    kind: Mapped[str] = mapped_column(String(30))
    created_at: Mapped[datetime]
    failures: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(Text)
