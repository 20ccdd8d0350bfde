"""The execution API: what an attempt asks of the control plane, the answers, and the outcome with which it ends.

One protocol; task code never knows who answers. In one process it is a function call into the metadata layer
(`trainflow.metadata.execution_service`); from another host it is HTTP with a token of the attempt. An outcome is one
message, applied in one transaction.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Protocol

import msgspec

from trainflow.messages.notice import Notice
from trainflow.messages.workload import AttemptKey, ProcessExit, ProcessIdentity
from trainflow.observability.store_requests import StoreUse


class OutcomeState(StrEnum):
    """What the attempt says of itself; the server decides which state follows (retries are its business)."""

    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    DEFERRED = "deferred"
    RESCHEDULED = "rescheduled"
    #: was told to stop and stopped; consumes no retry
    PREEMPTED = "preempted"
    #: a process of it was ended from outside, and the others with it; consumes no retry, as an attempt that is lost
    PART_LOST = "part_lost"
    #: an earlier task of the run has to run again, and all that follows it; consumes no retry
    RESTARTED = "restarted"


class AttemptFailure(msgspec.Struct, frozen=True):
    """Why an attempt failed: one line for people, the traceback for the log, and whether trying again makes sense."""

    message: str
    traceback: str = ""
    kind: str = ""
    retryable: bool = True


class XComItem(msgspec.Struct, frozen=True):
    """One value to hand over. `value` is JSON, encoded once by the worker."""

    key: str
    value: msgspec.Raw


class HandedXCom(msgspec.Struct, frozen=True):
    """A value that a task of the same run has handed over. `value` is JSON."""

    task_id: str
    key: str
    value: msgspec.Raw


#: a hundred years: what is to be later than that is never
LONGEST_WAIT_SECONDS = 100 * 365.25 * 86400
#: no moment: the clocks of hosts differ, and who takes the message counts by its own
WaitSeconds = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_WAIT_SECONDS)]


class Deferral(msgspec.Struct, frozen=True):
    """A wait handed to the triggerer. The task resumes in `method_name(context, event=…, **kwargs)`. It ends after
    `timeout_seconds`; None: there is no such limit."""

    trigger_class: str
    trigger_kwargs: dict[str, Any]
    method_name: str
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    timeout_seconds: WaitSeconds | None = None
    #: what a worker of version 1 of the protocol says instead: a moment by its own clock
    deadline: datetime | None = None

    def ends_at(self, now: datetime) -> datetime | None:
        """When the wait is over at the latest, where it begins now."""
        return self.deadline if self.timeout_seconds is None else now + timedelta(seconds=self.timeout_seconds)


class TriggeredRun(msgspec.Struct, frozen=True):
    """A run to create (or to find again: the same run id from the same parent task is the same run)."""

    dag_id: str
    run_id: str
    conf: dict[str, Any] = msgspec.field(default_factory=dict)
    logical_date: datetime | None = None
    run_after: datetime | None = None
    reset_dag_run: bool = False
    skip_when_already_exists: bool = False
    fail_when_dag_is_paused: bool = False
    note: str | None = None


#: curves of an attempt, points of one beside its newest, and characters of a metric's name
MOST_CURVES, MOST_CURVE_POINTS, LONGEST_METRIC_NAME = 20, 200, 250
#: a metric while an attempt runs: after how many units, its value (None: it was no number), at which millisecond
_CurvePoint = tuple[float, float | None, Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]]
#: metric → its curve
MetricCurves = dict[str, list[_CurvePoint]]
_BoundedCurves = Annotated[
    dict[
        Annotated[str, msgspec.Meta(max_length=LONGEST_METRIC_NAME)],
        Annotated[list[_CurvePoint], msgspec.Meta(max_length=MOST_CURVE_POINTS + 1)],
    ],
    msgspec.Meta(max_length=MOST_CURVES),
]


class Outcome(msgspec.Struct, frozen=True, tag="outcome"):
    """How one attempt ended."""

    key: AttemptKey
    state: OutcomeState
    xcoms: list[XComItem] = msgspec.field(default_factory=list)
    triggered_runs: list[TriggeredRun] = msgspec.field(default_factory=list)
    problem: AttemptFailure | None = None
    deferral: Deferral | None = None
    #: what a worker of version 1 of the protocol says instead of `reschedule_seconds`: a moment by its own clock
    reschedule_at: datetime | None = None
    #: one sentence shown beside the task ("caught up: …", "waits for 2013-02-01")
    note: str | None = None
    #: rows of the split that its newest save holds; None when it saved none
    saved_rows: int | None = None
    #: the task to run again, where that is how it ended
    restart: str | None = None
    #: the notices to deliver
    notices: list[Notice] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.state is OutcomeState.DEFERRED and self.deferral is None:
            raise ValueError("an outcome 'deferred' holds no deferral")

    #: what its process asked of stores
    store_use: list[StoreUse] = msgspec.field(default_factory=list)
    #: the template fields of the task as they were rendered: without secrets, and cut
    rendered_fields: dict[str, Any] = msgspec.field(default_factory=dict)
    #: as in `Progress`
    curves: _BoundedCurves = msgspec.field(default_factory=dict)
    #: how long to wait before the task looks again; None: not at all
    reschedule_seconds: WaitSeconds | None = None

    def again_at(self, now: datetime) -> datetime:
        """When a task that gave its slot back looks again, where that is taken now."""
        if self.reschedule_seconds is None:
            return self.reschedule_at or now
        return now + timedelta(seconds=self.reschedule_seconds)


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Claim the attempt: queued → running. `process_started` tells this process from a later one with its pid.

    `instead_of`: a process of this host for which the attempt was claimed, and which was never given it.
    """

    key: AttemptKey
    pid: int
    process_started: float
    hostname: str
    instead_of: ProcessIdentity | None = None


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
    """How far the attempt is. No answer. `done` and `total` in `unit`. `curves`: of its metrics from its beginning on;
    empty: not told again this time, as most often."""

    key: AttemptKey
    done: float
    total: float | None = None
    unit: str = "rows"
    #: None stands for what JSON has no form for: a loss that is not a number is news too
    metrics: dict[str, float | None] = msgspec.field(default_factory=dict)
    note: str | None = None
    curves: _BoundedCurves = msgspec.field(default_factory=dict)


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


#: earlier attempts that an attempt is told of
MOST_EARLIER = 20


class EarlierAttempt(msgspec.Struct, frozen=True):
    """An attempt that began before at the same task instance. `outcome`: how it ended, in one word (`lost`)."""

    attempt_id: str
    outcome: str | None = None
    hostname: str | None = None


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
    #: no attempt at this task instance has started before
    first_attempt: bool = False
    #: those that have, oldest first, at most so many as `MOST_EARLIER`
    earlier_attempts: list[EarlierAttempt] = msgspec.field(default_factory=list)
    #: seconds since the attempt began, where it resumes: `execution_timeout` counts its waits
    elapsed_seconds: float = 0.0
    #: the newest small values of the run's tasks that have succeeded: most often what the task would ask for next
    xcoms: list[HandedXCom] = msgspec.field(default_factory=list)
    #: the time by the clock of the control plane, which counts, where the attempt is on another host
    control_plane_time: datetime | None = None


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


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """The attempt lives: said by the process that looks after it on another host."""

    key: AttemptKey


class AppendLog(msgspec.Struct, frozen=True, tag="append_log"):
    """A part of the log of an attempt on another host. `offset`: how many bytes come before it. `data` is base64 in
    JSON: a log may hold anything."""

    key: AttemptKey
    offset: Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
    data: bytes


class ProcessEnded(msgspec.Struct, frozen=True, tag="process_ended"):
    """The process of the attempt has ended, and the attempt had not said how it ends: what is worth a try more, and
    what uses up none, is decided as for a process of the engine's host."""

    key: AttemptKey
    exit: ProcessExit


class LogTaken(msgspec.Struct, frozen=True, tag="log_taken"):
    """How much of the log there is: the offset of the part that is wanted next."""

    size: int


class MeetRanks(msgspec.Struct, frozen=True, tag="meet_ranks"):
    """Find the first rank of an attempt whose ranks are on several hosts, before the attempt begins: it says its
    `address` (host:port), the others ask for it (None). Shows the claim secret, which stays good."""

    key: AttemptKey
    address: Annotated[str, msgspec.Meta(max_length=300, pattern=r"^[\w.:%\[\]-]+:\d{1,5}$")] | None = None


class RanksMeet(msgspec.Struct, frozen=True, tag="ranks_meet"):
    """The address of the first rank; None: it has not said it yet."""

    address: str | None


#: what the process says for itself that looks after an attempt on another host
SupervisorRequest = Heartbeat | AppendLog | ProcessEnded | MeetRanks
SupervisorReply = LogTaken | RanksMeet | Done | Refused | Failed


class ExecutionApi(Protocol):
    """Answers requests of attempts. Each call is one transaction, applied or not applied as a whole."""

    def handle(self, request: Request) -> Reply:
        """Apply `request` and answer it.

        A request of a stale attempt is answered with `Refused` and changes nothing. Sending a request twice has the
        effect of sending it once. Raises only when the control plane itself is out of order; the caller then tries
        again.
        """
        ...
