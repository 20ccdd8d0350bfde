"""The attempt as task code sees it, `context["ti"]`, and what is kept of its template fields."""

from __future__ import annotations

import logging
import math
import socket
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from trainflow.authoring.arguments import NOTSET, ArgNotSet
from trainflow.authoring.context import TaskInstance
from trainflow.authoring.operator import BaseOperator
from trainflow.bounds import MOST_NESTING, check_nesting, check_text
from trainflow.clock import Clock
from trainflow.errors import (
    DagNotFound,
    DagRunAlreadyExists,
    FailException,
    InputError,
    ParamValidationError,
    SkipException,
    TrainflowError,
    XComTooLarge,
)
from trainflow.execution.execution_api_client import ExecutionApiClient
from trainflow.execution.progress_reports import ProgressReporter
from trainflow.execution.stop_signal import StopSignal
from trainflow.humanize import agreeing, counted
from trainflow.messages.execution_api import (
    DagRunInfo,
    Failed,
    GetDagRunState,
    GetTrackingRun,
    GetXCom,
    MetricCurves,
    Refused,
    Reply,
    Request,
    RowsSaved,
    Started,
    TrackingRun,
    TriggeredRun,
    TriggerRun,
    XComItem,
    XComValues,
)
from trainflow.messages.notice import Notice
from trainflow.messages.workload import ExecuteTask
from trainflow.observability.processes import hostname
from trainflow.observability.redacted_output import without_secrets
from trainflow.observability.redaction import check_no_secrets, may_hold_secrets, presentable, redact, secret_paths
from trainflow.settings.home import Home
from trainflow.settings.model import Settings
from trainflow.task_signals import TaskTerminated

#: larger values belong into a file
MAX_XCOM_BYTES = 64 * 1024 * 1024

_ERRORS: dict[str, type[Exception]] = {
    each.__name__: each for each in (DagNotFound, SkipException, FailException, InputError, ParamValidationError)
}


class RuntimeTaskInstance(TaskInstance):
    """See `trainflow.authoring.context.TaskInstance`, whose words hold here."""

    def __init__(
        self,
        workload: ExecuteTask,
        started: Started,
        connection: ExecutionApiClient,
        *,
        project_root: Path,
        home: Home,
        settings: Settings,
        clock: Clock,
        stop: StopSignal,
    ) -> None:
        self.dag_id = workload.dag_id
        self.run_id = workload.run_id
        self.task_id = workload.task_id
        self.map_index = workload.map_index
        self.attempt_id = workload.key.attempt_id
        self.try_number = started.try_number
        self.max_tries = started.max_tries
        self.first_started_at: datetime | None = started.first_started_at
        self.cleared_at: datetime | None = started.cleared_at
        self.first_attempt = started.first_attempt
        self.earlier_attempts = tuple(started.earlier_attempts)
        self.reschedule_count = started.reschedule_count
        self.source = workload.source
        self.other_ranks = [socket.socket(fileno=descriptor) for descriptor in workload.rank_sockets]
        self.hostname = hostname()
        self.project_root = project_root
        self.home = home
        self.settings = settings
        self.clock = clock
        #: what goes out with the outcome
        self.xcoms: dict[str, XComItem] = {}
        self.triggered_runs: list[TriggeredRun] = []
        self.note: str | None = None
        self.saved_rows: int | None = None
        self.notices: list[Notice] = []
        #: values that came along with the claim, each good for one pull: what is asked for again may have changed. What
        #: commits asks: the answer says as well that it is still waited for, and not cleared since
        self._handed = {} if workload.shielded else {(xcom.task_id, xcom.key): xcom.value for xcom in started.xcoms}
        self._key = workload.key
        self._connection = connection
        self._stop = stop
        self._progress = ProgressReporter(self._key, connection.tell, clock)
        #: whether it has said or saved how far it is: from then on what goes wrong may be due to the data
        self.has_progressed = False

    @cached_property
    def log(self) -> logging.Logger:
        return logging.getLogger(f"trainflow.task.{self.task_id}")

    @property
    def terminated(self) -> bool:
        return self._stop.received

    def hold_stop(self, on_stop: Callable[[], None] | None = None) -> None:
        self._stop.hold(on_stop)

    def release_stop(self) -> None:
        self._stop.release()

    def sleep(self, seconds: float) -> None:
        self._stop.sleep(seconds)

    # -- XComs -----------------------------------------------------------------------------------------------------

    def xcom_push(self, key: str, value: Any) -> None:
        check_text(key, f"key of an XCom of task '{self.task_id}'")
        try:
            encoded = encode_value(value)
        except (TypeError, ValueError, RecursionError, InputError) as error:
            raise TypeError(
                f"XCom '{key}' of task '{self.task_id}' is no JSON value ({error}): "
                "hand over numbers, strings, lists and dicts, or write it to a file and hand over where it is"
            ) from None
        if len(encoded) > MAX_XCOM_BYTES:
            raise XComTooLarge(
                f"XCom '{key}' of task '{self.task_id}' has {counted(len(encoded), 'byte')}, at most "
                f"{MAX_XCOM_BYTES} are "
                "handed over: write it to a file and hand over where it is"
            )
        if may_hold_secrets(encoded):
            encoded = self._without_secrets(key, encoded)
        self.xcoms[key] = XComItem(key, msgspec.Raw(encoded))

    def _without_secrets(self, key: str, encoded: bytes) -> bytes:
        value = msgspec.json.decode(encoded)
        found = list(secret_paths(value, key))
        if not found:
            return encoded
        self.log.warning(
            "XCom '%s': %s %s like a secret and the database keeps *** instead: read it from the environment in the "
            "task that needs it",
            key,
            ", ".join(found),
            agreeing(len(found), "looks", "look"),
        )
        return encode_value(redact(value, key))

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
        wanted = [task_ids] if isinstance(task_ids, str) else None if task_ids is None else list(task_ids)
        asked = GetXCom(
            self._key,
            dag_id or self.dag_id,
            run_id or self.run_id,
            wanted,
            key,
            map_index=-1 if isinstance(map_indexes, ArgNotSet) else map_indexes,
            include_prior_dates=include_prior_dates,
        )
        values = self._take_handed(asked)
        if values is None:
            reply = self._ask(asked)
            assert isinstance(reply, XComValues)
            values = reply.values
        found = {task_id: msgspec.json.decode(value) for task_id, value in values.items()}
        if isinstance(task_ids, str):
            return found.get(task_ids, default)
        if wanted is None:
            return next(reversed(found.values()), default)
        return [found.get(task_id, default) for task_id in wanted]

    def _take_handed(self, asked: GetXCom) -> dict[str, msgspec.Raw] | None:
        """The answer, where all of it came along with the claim."""
        own_run = (asked.dag_id, asked.run_id, asked.map_index) == (self.dag_id, self.run_id, -1)
        if not own_run or asked.include_prior_dates or not asked.task_ids:
            return None
        names = [(task_id, asked.xcom_key) for task_id in asked.task_ids]
        if not all(name in self._handed for name in names):
            return None
        return {name[0]: self._handed.pop(name) for name in dict.fromkeys(names)}

    # -- what goes out with the outcome ----------------------------------------------------------------------------

    def set_note(self, text: str) -> None:
        self.note = text

    def notify(self, notice: Notice) -> None:
        self.notices.append(notice)

    def trigger_dag_run(self, run: TriggeredRun, now: bool = False) -> None:
        check_no_secrets(run.conf, f"the conf of the triggered run {run.run_id} of {run.dag_id}", "conf")
        if now:
            self._ask(TriggerRun(self._key, run))
        else:
            self.triggered_runs.append(run)

    # -- while it runs ---------------------------------------------------------------------------------------------

    def get_dag_run_state(self, dag_id: str, run_id: str) -> str | None:
        reply = self._ask(GetDagRunState(self._key, dag_id, run_id))
        assert isinstance(reply, DagRunInfo)
        return reply.state

    def get_tracking_run(self) -> TrackingRun:
        reply = self._ask(GetTrackingRun(self._key))
        assert isinstance(reply, TrackingRun)
        return reply

    def report_progress(
        self,
        done: float,
        total: float | None = None,
        unit: str = "rows",
        metrics: dict[str, float] | None = None,
        note: str | None = None,
    ) -> None:
        self.has_progressed = True
        self._progress.report(done, total, unit, metrics, note)

    def report_waiting(self, note: str | None) -> None:
        """Show what the attempt waits for beside how far it is; None: it goes on. Of the main thread alone: others may
        wait while it asks something."""
        if threading.current_thread() is threading.main_thread():
            self._progress.report_waiting(note)

    def flush_progress(self) -> None:
        """Send what was reported last."""
        self._progress.flush()

    @property
    def curves(self) -> MetricCurves:
        """The metrics that it has reported, from its beginning on."""
        return self._progress.curves()

    def report_saved(self, rows: int) -> None:
        self.saved_rows = rows
        self.has_progressed = True
        self._connection.tell(RowsSaved(self._key, rows))

    def _ask(self, request: Request) -> Reply:
        reply = self._connection.request(request)
        match reply:
            case Refused(reason):
                # another attempt holds the task instance now: whatever this attempt does is in vain
                self._stop.received = True
                raise TaskTerminated(reason)
            case Failed("DagRunAlreadyExists", message):
                raise DagRunAlreadyExists(message, dag_id=self.dag_id, run_id=self.run_id)
            case Failed(error, message):
                raise _ERRORS.get(error, TrainflowError)(message)
        return reply


def encode_value(value: Any) -> bytes:
    """`value` as JSON. Numbers of NumPy and the like (`.item()`) are taken as the numbers they are.

    Raises TypeError or ValueError for what JSON has no form for; also for nan and the infinities, which would arrive
    as null; InputError for lists and mappings nested too deeply.
    """
    encoded = _ENCODER.encode(value)
    if encoded.count(b"[") + encoded.count(b"{") > MOST_NESTING:
        check_nesting(value, "it")
    if b"null" in encoded:
        _refuse_not_finite(value)
    return encoded


def _scalar(value: Any) -> Any:
    """What a number of a library is in plain Python. Raises TypeError when it is none."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        return item()
    raise TypeError(f"objects of type {type(value).__module__}.{type(value).__qualname__}")


def _refuse_not_finite(value: Any) -> None:
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} has no form in JSON; str() of it has, and so has None")
    if isinstance(value, dict):
        for item in value.values():
            _refuse_not_finite(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            _refuse_not_finite(item)


_ENCODER = msgspec.json.Encoder(enc_hook=_scalar)


#: characters of a text, and of anything else, as JSON: most of that is an XCom, which is kept as such
_LONGEST_TEXT, _LONGEST_VALUE = 4_000, 1_000


def rendered_fields(task: BaseOperator) -> dict[str, Any]:
    """The template fields of a task that has rendered them. One that is too long is cut, and is a text then."""
    attributes = vars(task)
    given = {field: attributes.get(field) for field in task.template_fields}
    return {field: _shown(value) for field, value in given.items() if value is not None}


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return presentable(without_secrets(value), _LONGEST_TEXT)
    if isinstance(value, bool | int | float):
        return value
    try:
        text = without_secrets(msgspec.json.encode(value, enc_hook=str).decode())
    except Exception as error:
        # an object of the task's own, which says so itself
        return f"{type(value).__name__} cannot be written as JSON: {type(error).__name__}"
    if len(text) > _LONGEST_VALUE:
        return presentable(text, _LONGEST_VALUE)
    return redact(msgspec.json.decode(text))
