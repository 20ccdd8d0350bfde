"""What `execute` is given, and what it can ask of the attempt it runs in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict

from trainflow.authoring.arguments import NOTSET, ArgNotSet

if TYPE_CHECKING:
    import logging
    import socket
    from pathlib import Path

    from trainflow.authoring.dag import DAG
    from trainflow.authoring.operator import BaseOperator
    from trainflow.clock import Clock
    from trainflow.messages.execution_api import EarlierAttempt, RunInfo, TrackingRun, TriggeredRun
    from trainflow.messages.notice import Notice
    from trainflow.messages.workload import DagSource
    from trainflow.settings.home import Home
    from trainflow.settings.model import Settings


class Macros:
    """Names under `macros.` in a template (Airflow's)."""

    datetime = datetime
    date = date
    time = time
    timedelta = timedelta

    @staticmethod
    def ds_add(ds: str, days: int) -> str:
        """The day `days` after the day `ds` (YYYY-MM-DD)."""
        return (date.fromisoformat(ds) + timedelta(days=days)).isoformat()

    @staticmethod
    def ds_format(ds: str, input_format: str, output_format: str) -> str:
        """`ds` in another format (strptime, strftime)."""
        return datetime.strptime(ds, input_format).strftime(output_format)  # noqa: DTZ007 - a calendar day


MACROS: Final = Macros()


class TaskInstance(Protocol):
    """The attempt, as task code sees it (`context["ti"]`)."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    #: 1 for the first try
    try_number: int
    #: how many retries are allowed
    max_tries: int
    attempt_id: str
    #: when this task instance first started: a sensor's timeout counts from here
    first_started_at: datetime | None
    #: when a person last cleared it
    cleared_at: datetime | None
    #: whether no attempt at it has started before
    first_attempt: bool
    #: those that have, oldest first
    earlier_attempts: Sequence[EarlierAttempt]
    #: how often it gave its slot back so far
    reschedule_count: int
    #: whether it has said or saved how far it is
    has_progressed: bool
    #: where the code of its DAG is
    source: DagSource
    #: connections to the other ranks, in order, where those are on hosts of their own
    other_ranks: list[socket.socket]
    project_root: Path
    home: Home
    settings: Settings
    #: of the control plane; that of the host may differ
    clock: Clock

    @property
    def log(self) -> logging.Logger:
        """The logger of the task."""
        ...

    @property
    def terminated(self) -> bool:
        """True once the task was told to stop."""
        ...

    def hold_stop(self, on_stop: Callable[[], None] | None = None) -> None:
        """Raise no stop from now on: look at `terminated`, and end within the grace. `on_stop` is called in the signal
        handler. When most of the grace is over, TaskTerminated is raised after all."""
        ...

    def release_stop(self) -> None:
        """The end of `hold_stop`. Raises TaskTerminated when told to stop meanwhile."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait, by `clock`. Raises TaskTerminated when told to stop meanwhile."""
        ...

    def xcom_push(self, key: str, value: Any) -> None:
        """Hand over a JSON value under `key`; applied with the outcome of the attempt."""
        ...

    def xcom_pull(
        self,
        task_ids: str | Sequence[str] | None = None,
        dag_id: str | None = None,
        key: str = "return_value",
        include_prior_dates: bool = False,
        *,
        map_indexes: int | ArgNotSet = NOTSET,
        default: Any = None,
        run_id: str | None = None,
    ) -> Any:
        """What a task pushed, or `default`; a list for a list of task ids."""
        ...

    def report_progress(
        self,
        done: float,
        total: float | None = None,
        unit: str = "rows",
        metrics: dict[str, float] | None = None,
        note: str | None = None,
    ) -> None:
        """Say how far the work is; may be called as often as one likes."""
        ...

    def report_saved(self, rows: int) -> None:
        """Say that so many rows of the split are saved: a failure after more than ever before uses up no try."""
        ...

    def set_note(self, text: str) -> None:
        """One sentence shown beside the task."""
        ...

    def notify(self, notice: Notice) -> None:
        """Send a notice (`[notifications]` of the settings); applied with the outcome of the attempt, told once
        for each key of a notice."""
        ...

    def trigger_dag_run(self, run: TriggeredRun, now: bool = False) -> None:
        """Create a run: with the outcome of the attempt, or at once when `now`."""
        ...

    def get_dag_run_state(self, dag_id: str, run_id: str) -> str | None:
        """State of a run; None when there is none."""
        ...

    def get_tracking_run(self) -> TrackingRun:
        """The MLflow run that mirrors this run, as far as it exists."""
        ...


class Context(TypedDict, total=False):
    """What `execute` is given and templates see. A key that has no value in this run is absent, not None."""

    dag: DAG
    dag_run: RunInfo
    run_id: str
    ti: TaskInstance
    task_instance: TaskInstance
    task: BaseOperator
    params: dict[str, Any]
    try_number: int
    map_index: int
    macros: Macros
    task_instance_key_str: str
    test_mode: bool
    #: the day of the logical date; it and those below are there only for a run that has one
    logical_date: datetime
    ds: str
    ds_nodash: str
    ts: str
    ts_nodash: str
    ts_nodash_with_tz: str
    #: set once the attempt has failed, or ends for a reason worth naming
    exception: BaseException
    reason: str


#: names a function of `@task` may ask for as parameters
CONTEXT_KEYS = frozenset(Context.__annotations__)

_current: ContextVar[Context | None] = ContextVar("trainflow_context", default=None)


def build_context(
    task: BaseOperator, ti: TaskInstance, run: RunInfo, *, params: dict[str, Any], test_mode: bool = False
) -> Context:
    """The context of one attempt."""
    context: Context = {
        "dag": task.dag,
        "dag_run": run,
        "run_id": run.run_id,
        "ti": ti,
        "task_instance": ti,
        "task": task,
        "params": params,
        "try_number": ti.try_number,
        "map_index": ti.map_index,
        "macros": MACROS,
        "task_instance_key_str": f"{run.dag_id}__{task.task_id}__{run.run_id}",
        "test_mode": test_mode,
    }
    if run.logical_date is not None:
        _add_dates(context, run.logical_date)
        context["task_instance_key_str"] = f"{run.dag_id}__{task.task_id}__{context['ds_nodash']}"
    return context


def _add_dates(context: Context, logical_date: datetime) -> None:
    context["logical_date"] = logical_date
    context["ds"] = logical_date.strftime("%Y-%m-%d")
    context["ds_nodash"] = logical_date.strftime("%Y%m%d")
    context["ts"] = logical_date.isoformat()
    context["ts_nodash"] = logical_date.strftime("%Y%m%dT%H%M%S")
    context["ts_nodash_with_tz"] = logical_date.isoformat().replace("-", "").replace(":", "")


def get_current_context() -> Context:
    """The context of the task that is running. Raises RuntimeError outside of a task."""
    context = _current.get()
    if context is None:
        raise RuntimeError("there is no current context: get_current_context() works only while a task runs")
    return context


def clock_of_task() -> Clock | None:
    """The clock by which the task decides that is running; None outside of a task."""
    context = _current.get()
    return None if context is None else context["ti"].clock


@contextmanager
def current_context(context: Context) -> Iterator[Context]:
    """`context` is the current one inside."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
