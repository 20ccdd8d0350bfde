"""What the end of a task means: every exception that may leave it becomes one outcome.

A mistake in the user's code is told from what another try might get over, with the line where it stands.
"""

from __future__ import annotations

import builtins
import difflib
import inspect
import logging
import re
import traceback
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from trainflow.authoring import templates  # noqa: F401 - rendered with in every attempt: imported once
from trainflow.authoring.operator import BaseOperator
from trainflow.authoring.trigger import describe_trigger
from trainflow.bootstrap import is_replaced
from trainflow.clock import Clock
from trainflow.errors import (
    FailException,
    InputError,
    LedgerCorrupt,
    RescheduleException,
    RestartException,
    SampleCheckFailed,
    SampleGap,
    SamplesRefused,
    SampleUnreadable,
    SkipException,
    StoreFailure,
    TemplateError,
    TrainflowError,
    describe,
    message_of,
)
from trainflow.execution.stop_signal import StopSignal
from trainflow.execution.task_instance import RuntimeTaskInstance
from trainflow.messages.execution_api import (
    LONGEST_WAIT_SECONDS,
    AttemptFailure,
    Deferral,
    Outcome,
    OutcomeState,
    Started,
)
from trainflow.messages.workload import ExecuteTask
from trainflow.observability.redacted_output import without_secrets
from trainflow.observability.redaction import presentable
from trainflow.observability.resource_exhaustion import exhausted_resource
from trainflow.observability.store_requests import REQUESTS
from trainflow.task_signals import TaskDeferred, TaskPartLost, TaskTerminated, TaskTimeout

_PACKAGE = Path(__file__).parents[1]
_MISTAKES = (NameError, AttributeError, TypeError)
_UNEXPECTED = re.compile(r"(?P<function>[\w.<>]+)\(\) got an unexpected keyword argument '(?P<name>\w+)'")


def is_programming_error(error: BaseException, root: Path) -> bool:
    """Tell whether `error` comes from what is written in the code, so that every further try ends like this one.

    NameError, AttributeError, TypeError, what trainflow refuses that the project at `root` asks it for, and templates
    that cannot be rendered because of one of these or of what they say. Not where None came instead of a value: that
    is the answer of a service as often as a mistake.
    """
    if isinstance(error, TemplateError):
        cause = error.__cause__
        return (
            cause is None or type(cause).__module__.partition(".")[0] == "jinja2" or is_programming_error(cause, root)
        )
    if isinstance(error, InputError):
        return _place(error, root)[0] is not None
    return isinstance(error, _MISTAKES) and "NoneType" not in message_of(error)


def may_be_of_two_builds(error: BaseException) -> bool:
    """Whether parts of two builds of trainflow in one process may have raised `error`: something could not be imported,
    or its own code broke. Not what it refuses on purpose, and nothing that a task or a library of the task's raised."""
    if isinstance(error, ImportError | TrainflowError):
        return isinstance(error, ImportError)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and Path(frames[-1].f_code.co_filename).is_relative_to(_PACKAGE)


def explain_error(error: BaseException, root: Path) -> str:
    """Say what `error` is, what was probably meant, and the line of the project at `root` it was raised from."""
    said = describe(error)
    frame, line = _place(error, root)
    if frame is None:
        return said
    # newer Pythons say themselves what may have been meant
    meant = None if "did you mean" in said.lower() else _nearest(error, frame)
    path = Path(frame.f_code.co_filename)
    shown = path.relative_to(root) if path.is_relative_to(root) else path
    return f"{said}{f'; did you mean {meant!r}?' if meant else ''} ({shown}:{line})"


def _place(error: BaseException, root: Path) -> tuple[FrameType | None, int]:
    """The innermost frame in a file of the project's own; no frame where the error was not raised from one."""
    found: tuple[FrameType | None, int] = (None, 0)
    traceback = error.__traceback__
    while traceback is not None:
        if _is_own(Path(traceback.tb_frame.f_code.co_filename), root):
            found = traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next
    return found


def _is_own(file: Path, root: Path) -> bool:
    """Whether a file is of the project at `root`, and not of a library or of trainflow, which may lie below it, too."""
    return file.is_relative_to(root) and "site-packages" not in file.parts and not file.is_relative_to(_PACKAGE)


def _nearest(error: BaseException, frame: FrameType) -> str | None:
    name, known = _asked_for(error, frame)
    if not name:
        return None
    return next(iter(difflib.get_close_matches(name, [each for each in known if each != name], n=1)), None)


def _asked_for(error: BaseException, frame: FrameType) -> tuple[str | None, Iterable[str]]:
    """Tell the name that was not there, and the names that were."""
    if isinstance(error, NameError):
        return error.name, [*frame.f_locals, *frame.f_globals, *dir(builtins)]
    if isinstance(error, AttributeError):
        return error.name, _attributes(error.obj)
    unexpected = _UNEXPECTED.search(message_of(error))
    if unexpected is None:
        return None, ()
    function = frame.f_locals.get(unexpected["function"]) or frame.f_globals.get(unexpected["function"])
    try:
        return unexpected["name"], list(inspect.signature(function).parameters) if callable(function) else ()
    except (TypeError, ValueError):
        return None, ()


def _attributes(holder: object) -> list[str]:
    try:
        return dir(holder)
    except Exception:  # a class may say anything here
        return []


log = logging.getLogger("trainflow.task")

#: of what an exception says, this much is kept beside the task; the log has all of it
_MESSAGE_CHARACTERS, _TRACEBACK_CHARACTERS = 4_000, 64_000
#: what no further try could get over: a ledger that was edited stays so until a person restores it
FOR_GOOD = (FailException, LedgerCorrupt, SampleCheckFailed, SampleGap, SamplesRefused)


def _shown(text: str, longest: int) -> str:
    """A text of the task's as it is kept and shown: without the values of secrets that the task was given."""
    return presentable(without_secrets(text), longest)


class AttemptEnding:
    """A claimed attempt, and how it ends."""

    def __init__(
        self,
        workload: ExecuteTask,
        started: Started,
        ti: RuntimeTaskInstance,
        stop: StopSignal,
        clock: Clock,
        host_clock: Clock,
        imported: Callable[[], object] | None,
    ) -> None:
        self._workload = workload
        self._started = started
        self._ti = ti
        self._stop = stop
        self._clock = clock
        #: what code of users reads
        self._host_clock = host_clock
        self._imported = imported
        self._task: BaseOperator | None = None
        self._rendered: dict[str, Any] = {}
        self._began = clock.monotonic()

    def _judged(self, error: BaseException) -> Outcome:
        match error:
            case TaskDeferred():
                return self._deferred(error)
            case SkipException():
                return self._ended(OutcomeState.SKIPPED, note=self._ti.note or str(error) or None)
            case RescheduleException():
                return self._ended(
                    OutcomeState.RESCHEDULED, reschedule_seconds=self._seconds_until(error.reschedule_at)
                )
            case RestartException():
                log.warning("%s", error)
                message = _shown(str(error), _MESSAGE_CHARACTERS)
                problem = AttemptFailure(message, kind=type(error).__name__, retryable=False)
                return self._ended(OutcomeState.RESTARTED, restart=error.task_id, problem=problem)
            case TaskPartLost():
                log.error("%s", error)
                problem = AttemptFailure(_shown(str(error), _MESSAGE_CHARACTERS), kind=type(error).__name__)
                return self._ended(OutcomeState.PART_LOST, problem=problem)
            case TaskTerminated():
                self._kill()
                return self._ended(OutcomeState.PREEMPTED, problem=AttemptFailure(str(error), kind="TaskTerminated"))
            case SystemExit():
                message = f"the task called sys.exit({error.code!r}) instead of returning or raising"
                return self._failed(error, message, retryable=True)
        if isinstance(error, TimeoutError | TaskTimeout):
            self._kill()
        if may_be_of_two_builds(error) and is_replaced():
            # lost, and not preempted: a worker that goes on with two builds would have it run for ever
            message = _shown(f"trainflow was installed anew meanwhile: {describe(error)}", _MESSAGE_CHARACTERS)
            log.error("%s", message, exc_info=error)
            return self._ended(OutcomeState.PART_LOST, problem=AttemptFailure(message, kind=type(error).__name__))
        if is_programming_error(error, self._ti.project_root):
            message = explain_error(error, self._ti.project_root)
            again = self._ti.has_progressed or self._ti.settings.executor.retry_programming_errors
            return self._failed(error, message, retryable=again)
        message = describe(error)
        if not isinstance(error, StoreFailure | SampleUnreadable) and (ran_out := exhausted_resource(error)):
            message = f"{message}: {ran_out}"
        return self._failed(error, message, retryable=not isinstance(error, FOR_GOOD))

    def _failed(self, error: BaseException, message: str, *, retryable: bool) -> Outcome:
        log.error("the task failed: %s", message, exc_info=error)
        trace = _shown("".join(traceback.format_exception(error)), _TRACEBACK_CHARACTERS)
        problem = AttemptFailure(_shown(message, _MESSAGE_CHARACTERS), trace, type(error).__name__, retryable)
        return self._ended(OutcomeState.FAILED, problem=problem)

    def _deferred(self, deferred: TaskDeferred) -> Outcome:
        try:
            trigger_class, trigger_kwargs = describe_trigger(deferred.trigger)
        except Exception as error:
            return self._failed(error, f"the trigger cannot be serialized: {error}", retryable=False)
        limits = [seconds for seconds in (deferred.timeout_seconds, self._seconds_left) if seconds is not None]
        longest = min((*limits, LONGEST_WAIT_SECONDS)) if limits else None
        deferral = Deferral(trigger_class, trigger_kwargs, deferred.method_name, deferred.kwargs, longest)
        return self._ended(OutcomeState.DEFERRED, deferral=deferral)

    def _seconds_until(self, when: datetime | timedelta) -> float:
        """Seconds for which a task wants to wait that gives its slot back."""
        wait = when if isinstance(when, timedelta) else when - self._host_clock.now()
        return min(max(wait.total_seconds(), 0.0), LONGEST_WAIT_SECONDS)

    @property
    def _seconds_left(self) -> float | None:
        """Seconds left of the `execution_timeout`, which goes on while the attempt waits; None without one."""
        if self._task is None or self._task.execution_timeout is None:
            return None
        spent = self._started.elapsed_seconds + self._clock.monotonic() - self._began
        return max(self._task.execution_timeout.total_seconds() - spent, 0.0)

    def _kill(self) -> None:
        if self._task is None:
            return
        try:
            self._task.on_kill()
        except Exception:
            log.exception("on_kill failed")

    def _ended(self, state: OutcomeState, **facts: Any) -> Outcome:
        note = facts.pop("note", self._ti.note)
        facts["note"] = None if note is None else _shown(note, _MESSAGE_CHARACTERS)
        return Outcome(
            self._workload.key,
            state,
            xcoms=list(self._ti.xcoms.values()),
            # what a task wants to have triggered happens when it ends well, or while it waits for it
            triggered_runs=self._ti.triggered_runs
            if state in (OutcomeState.SUCCESS, OutcomeState.SKIPPED, OutcomeState.DEFERRED)
            else [],
            saved_rows=self._ti.saved_rows,
            notices=self._ti.notices,
            store_use=REQUESTS.use(),
            rendered_fields=self._rendered,
            curves=self._ti.curves,
            **facts,
        )
