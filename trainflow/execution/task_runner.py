"""Run one attempt: claim, load, render, execute, report. Everything that can end it becomes one outcome."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Any

from trainflow.authoring import templates  # noqa: F401 - rendered with in every attempt: imported once
from trainflow.authoring.context import build_context, current_context
from trainflow.authoring.operator import BaseOperator
from trainflow.authoring.python_call import end_forked_copies
from trainflow.bootstrap import importing
from trainflow.checkpoints.file_progress import tell_files
from trainflow.clock import Clock
from trainflow.deadlines import counting_clock
from trainflow.errors import (
    EngineError,
    InputError,
)
from trainflow.execution.attempt_ending import AttemptEnding
from trainflow.execution.dag_files import DagFiles
from trainflow.execution.execution_api_client import ExecutionApiClient, is_refused
from trainflow.execution.stop_signal import StopSignal, time_limit
from trainflow.execution.task_instance import RuntimeTaskInstance, rendered_fields
from trainflow.failpoint import enter, hit
from trainflow.messages.execution_api import (
    AttemptFailure,
    Failed,
    Outcome,
    OutcomeState,
    Reply,
    Start,
    Started,
)
from trainflow.messages.workload import ExecuteTask
from trainflow.observability.redacted_output import hide_values
from trainflow.observability.redaction import secret_values
from trainflow.observability.resource_exhaustion import UNHEARD
from trainflow.observability.store_requests import sentence_about
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.storage.retries import tell_waits
from trainflow.task_signals import TaskTerminated

log = logging.getLogger("trainflow.task")

#: exit code of an attempt that reported a failure; the report decides, the code is for people who look at processes
FAILED_EXIT_CODE = 1


def conduct(
    workload: ExecuteTask,
    claim: Start,
    connection: ExecutionApiClient,
    project: Project,
    settings: Settings,
    files: DagFiles,
    *,
    stop: StopSignal,
    clock: Clock,
    clean_up: Callable[[], object] = lambda: None,
    imported: Callable[[], object] | None = None,
    started: Started | None = None,
) -> int:
    """Claim an attempt over `connection`, execute it, report how it ended (`imported`: see `Prepared`). Its exit code.

    `clean_up` ends what the task has started; only a process that runs nothing else may end all its children.
    `started`: the answer to a claim that was made for this process; None: it claims the attempt.
    """
    if started is None:
        reply = _answer_to(claim, connection)
        if not isinstance(reply, Started):
            # a second delivery of an attempt that another process holds, or of one that is not waited for any more
            return UNHEARD if reply is None else 0
        started = reply
    enter("attempt")
    hit("attempt: claimed")
    host_clock, clock = clock, counting_clock(started.control_plane_time, clock)
    ti = RuntimeTaskInstance(
        workload,
        started,
        connection,
        project_root=project.root,
        home=project.home,
        settings=settings,
        clock=clock,
        stop=stop,
    )
    tell_waits(ti.report_waiting)
    tell_files(ti.report_waiting)
    outcome = _Attempt(workload, started, ti, stop, clock, host_clock, imported).outcome(files)
    tell_waits(None)
    tell_files(None)
    if outcome.store_use:
        log.info("store: %s", sentence_about(outcome.store_use))
    # before it is reported: the task that comes next may read what these still write
    clean_up()
    ti.flush_progress()
    hit("attempt: before the report")
    answer = connection.report_outcome(outcome)
    hit("attempt: after the report")
    if is_refused(answer):
        log.warning("the outcome (%s) was refused: the attempt is stale and changed nothing", outcome.state)
    not_kept = isinstance(answer, Failed)
    if isinstance(answer, Failed):
        log.error("the attempt fails: %s", answer.message)
    connection.close()
    sys.stdout.flush()
    sys.stderr.flush()
    return FAILED_EXIT_CODE if not_kept or outcome.state is OutcomeState.FAILED else 0


def _answer_to(claim: Start, connection: ExecutionApiClient) -> Reply | None:
    try:
        # not interrupted: once the claim is sent, only its answer says whether there is an attempt to give back
        return connection.request(claim)
    except (TaskTerminated, EngineError):
        return None


class _Attempt(AttemptEnding):
    """One claimed attempt: execute it."""

    def outcome(self, files: DagFiles) -> Outcome:
        """Execute the task; never raises."""
        try:
            with self._stop.interrupting():
                outcome = self._executed(files)
        except BaseException as error:
            outcome = self._judged(error)
        if self._stop.received and outcome.state is not OutcomeState.PREEMPTED:
            # it was told to stop: whatever it says, it has not done what it was for; and a failure on the way out
            # (of a loader whose workers were stopped, say) is none of its own
            return self._ended(
                OutcomeState.PREEMPTED, problem=AttemptFailure("was told to stop", kind="TaskTerminated")
            )
        return outcome

    def _executed(self, files: DagFiles) -> Outcome:
        self._task = task = self._find(files)
        params = task.resolve_params(self._started.run.conf)
        hide_values(secret_values(params))
        context = build_context(task, self._ti, self._started.run, params=params)
        limit = task.execution_timeout.total_seconds() if task.execution_timeout else None
        with current_context(context), time_limit(limit, spent=self._started.elapsed_seconds):
            task.render_template_fields(context)
            hide_values(secret_values({field: vars(task).get(field) for field in task.template_fields}))
            self._rendered = rendered_fields(task)
            hit("attempt: rendered")
            with end_forked_copies():
                self._import(task)
                task.pre_execute(context)
                if self._started.next_method is None:
                    result = task.execute(context)
                else:
                    result = task.resume_execution(self._started.next_method, self._started.next_kwargs, context)
                hit("attempt: executed")
                task.post_execute(context, result)
        self._push(task, result)
        return self._ended(OutcomeState.SUCCESS)

    def _import(self, task: BaseOperator) -> None:
        """Import what the task imports, where it is waited for that. What is wrong with it the task says itself."""
        with contextlib.suppress(Exception):
            if self._imported is not None:
                with importing():
                    task.warm_up(self._ti.project_root)
                self._imported()

    def _find(self, files: DagFiles) -> BaseOperator:
        loaded = files.get(self._workload.source)
        dags, path = loaded.dags, self._workload.source.path
        dag = dags.get(self._workload.dag_id)
        if dag is None:
            raise InputError(f"{path} does not define DAG '{self._workload.dag_id}' any more")
        if self._workload.version:
            from trainflow.execution.code_bundles import check_version

            check_version(dag, loaded.content, self._workload.project_root, self._workload.version)
        if not dag.has_task(self._workload.task_id):
            raise InputError(f"{path}: DAG '{dag.dag_id}' has no task '{self._workload.task_id}' any more")
        return dag.get_task(self._workload.task_id)

    def _push(self, task: BaseOperator, result: Any) -> None:
        if not task.do_xcom_push or result is None:
            return
        if task.multiple_outputs:
            if not isinstance(result, dict):
                raise TypeError(f"multiple_outputs: task '{task.task_id}' returned {type(result).__name__}, not a dict")
            for key, value in result.items():
                self._ti.xcom_push(str(key), value)
        self._ti.xcom_push("return_value", result)
