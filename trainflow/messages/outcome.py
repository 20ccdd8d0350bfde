"""How one attempt ended: one message, applied in one transaction."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from trainflow.messages.notice import Notice
from trainflow.messages.workload import AttemptKey


class OutcomeState(StrEnum):
    """What the attempt says of itself; the server decides which state follows (retries are its business)."""

    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    DEFERRED = "deferred"
    RESCHEDULED = "rescheduled"
    #: was told to stop and stopped; consumes no retry
    PREEMPTED = "preempted"
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


class Deferral(msgspec.Struct, frozen=True):
    """A wait handed to the triggerer. The task resumes in `method_name(context, event=…, **kwargs)`."""

    trigger_class: str
    trigger_kwargs: dict[str, Any]
    method_name: str
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    deadline: datetime | None = None


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


class Outcome(msgspec.Struct, frozen=True, tag="outcome"):
    """How one attempt ended."""

    key: AttemptKey
    state: OutcomeState
    xcoms: list[XComItem] = msgspec.field(default_factory=list)
    triggered_runs: list[TriggeredRun] = msgspec.field(default_factory=list)
    problem: AttemptFailure | None = None
    deferral: Deferral | None = None
    reschedule_at: datetime | None = None
    #: one sentence shown beside the task ("caught up: …", "waits for 2013-02-01")
    note: str | None = None
    #: rows of the split that its newest save holds; None when it saved none
    saved_rows: int | None = None
    #: the task to run again, where that is how it ended
    restart: str | None = None
    #: the notices to deliver
    notices: list[Notice] = msgspec.field(default_factory=list)
