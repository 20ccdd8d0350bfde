"""What an attempt may ask while it runs, and the answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from trainflow.messages.outcome import Outcome, TriggeredRun
from trainflow.messages.workload import AttemptKey


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Claim the attempt: queued → running. `process_started` tells this process from a later one with its pid."""

    key: AttemptKey
    pid: int
    process_started: float
    hostname: str


class GetXCom(msgspec.Struct, frozen=True, tag="get_xcom"):
    """Read XComs of a run. `task_ids` None: every task that pushed `key`."""

    key: AttemptKey
    dag_id: str
    run_id: str
    task_ids: list[str] | None
    xcom_key: str
    map_index: int | None = -1
    include_prior_dates: bool = False


class TriggerRun(msgspec.Struct, frozen=True, tag="trigger_run"):
    """Create a run now, before the attempt ends (in order to wait for it)."""

    key: AttemptKey
    run: TriggeredRun


class GetDagRunState(msgspec.Struct, frozen=True, tag="get_dag_run_state"):
    """Ask where a run is."""

    key: AttemptKey
    dag_id: str
    run_id: str


class GetTrackingRun(msgspec.Struct, frozen=True, tag="get_tracking_run"):
    """Ask for the MLflow run that mirrors this attempt's run, if it exists already."""

    key: AttemptKey


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """How far the attempt is. No answer. `done` and `total` in `unit`."""

    key: AttemptKey
    done: float
    total: float | None = None
    unit: str = "rows"
    #: None stands for what JSON has no form for: a loss that is not a number is news too
    metrics: dict[str, float | None] = msgspec.field(default_factory=dict)
    note: str | None = None


class RowsSaved(msgspec.Struct, frozen=True, tag="saved"):
    """The attempt has saved how far it is inside its split: so many rows of it. No answer."""

    key: AttemptKey
    rows: int


Request = Start | GetXCom | TriggerRun | GetDagRunState | GetTrackingRun | Progress | RowsSaved | Outcome


class RunInfo(msgspec.Struct, frozen=True):
    """The run an attempt belongs to."""

    dag_id: str
    run_id: str
    run_type: str
    conf: dict[str, Any]
    queued_at: datetime
    started_at: datetime | None = None
    run_after: datetime | None = None
    logical_date: datetime | None = None
    note: str | None = None


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The claim is won: what the task needs to know."""

    run: RunInfo
    try_number: int
    max_tries: int
    #: set when the attempt resumes after a deferral
    next_method: str | None = None
    next_kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    #: when this task instance first started (a sensor's timeout counts from here)
    first_started_at: datetime | None = None
    reschedule_count: int = 0
    #: when it was last cleared: what earlier attempts saved inside the split is not gone on from
    cleared_at: datetime | None = None
    #: seconds since the attempt began, where it resumes: `execution_timeout` counts its waits
    elapsed_seconds: float = 0.0


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The attempt is not (or no longer) the one the database knows: stop, change nothing."""

    reason: str


class XComValues(msgspec.Struct, frozen=True, tag="xcom_values"):
    """Task id → JSON value, for every task that has one. In the order of the tasks asked for."""

    values: dict[str, msgspec.Raw]


class DagRunInfo(msgspec.Struct, frozen=True, tag="dag_run_info"):
    """State of a run; None when there is none."""

    state: str | None


class TrackingRun(msgspec.Struct, frozen=True, tag="tracking_run"):
    """The MLflow run of this run, when the mirror has made it."""

    tracking_uri: str | None
    run_id: str | None


class Done(msgspec.Struct, frozen=True, tag="done"):
    """Applied."""


#: `error` of the answer to an outcome that could not be kept: the attempt has failed by it
OUTCOME_REFUSED = "OutcomeRefused"


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The request was understood and cannot be satisfied; the attempt goes on with this error."""

    error: str
    message: str


Reply = Started | Refused | XComValues | DagRunInfo | TrackingRun | Done | Failed
