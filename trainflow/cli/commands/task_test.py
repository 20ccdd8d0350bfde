"""Run one task alone, in this process: what `trainflow tasks test` does. No database is opened, before or after."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import conf_of, moment
from trainflow.cli.render.output import EXIT_FAILED
from trainflow.errors import DagNotFound, InputError, RescheduleException, SkipException, describe
from trainflow.humanize import counted
from trainflow.task_signals import TaskDeferred, TaskTimeout
from trainflow.workspace.names import check_tasks, file_named, is_file

if TYPE_CHECKING:
    from trainflow.authoring.context import Context
    from trainflow.authoring.operator import BaseOperator
    from trainflow.execution.task_instance import RuntimeTaskInstance
    from trainflow.messages.execution_api import Outcome, Progress, Reply, Request, RowsSaved
    from trainflow.settings.project import Project


def run_trial(
    dag: str, task_id: str, *, conf: str | None, xcoms: list[str], overrides: list[str], logical_date: str | None
) -> int:
    """Find the task, execute it, print what came of it. Returns the exit code."""
    from trainflow.cli.arguments import parse_overrides

    given, date, handed = conf_of(conf), moment(logical_date, "--logical-date"), parse_xcoms(xcoms)
    project, task = find_task(dag, task_id, parse_overrides(overrides))
    known = [each.task_id for each in task.dag.tasks]
    check_tasks(handed, known, f"--xcom: DAG '{task.dag_id}'")
    _log_to_stderr()
    params = task.resolve_params(given)
    offline = Offline(handed)
    ti, context = _context(project, task, offline, params=params, conf=given, date=date)
    typer.echo(f"{task!r} of {task.dag_id}, alone: no database, XComs of {', '.join(handed) or 'no task'}", err=True)
    return _execute(task, ti, context)


def find_task(dag: str, task_id: str, overrides: dict[str, str]) -> tuple[Project, BaseOperator]:
    """The task of a DAG id or a pipeline file. Runs user code: loads the file. Raises InputError."""
    from trainflow.settings.project import project_of
    from trainflow.workspace.workspace import find_project

    if is_file(dag):
        path = file_named(dag)
        project = project_of(path)
        dags = _load(project, path, overrides)
        if len(dags) > 1:
            raise InputError(f"{dag} defines {counted(len(dags), 'DAG')}: name one of {', '.join(sorted(dags))}")
        found = next(iter(dags.values()))
    else:
        project = find_project()
        found = _search(project, dag, overrides)
    check_tasks([task_id], [task.task_id for task in found.tasks], f"DAG '{found.dag_id}'")
    return project, found.get_task(task_id)


def _search(project: Project, dag_id: str, overrides: dict[str, str]) -> Any:
    """The DAG of this id, among the files that mention it, likely ones first."""
    from trainflow.dag_processor.files import pipeline_files
    from trainflow.identifiers import did_you_mean
    from trainflow.settings.load import load_settings

    files = pipeline_files(project.root / load_settings(project).dag_processor.folder)
    known: list[str] = []
    problems: list[str] = []
    for path in sorted(files, key=lambda path: path.stem != dag_id):
        try:
            dags = _load(project, path, overrides)
        except InputError as error:
            problems.append(str(error))
            continue
        if dag_id in dags:
            return dags[dag_id]
        known += dags
    unread = f" ({counted(len(problems), 'file')} cannot be read: {problems[0]})" if problems else ""
    raise DagNotFound(f"no DAG is called '{dag_id}'{did_you_mean(dag_id, known)}{unread}")


def _load(project: Project, path: Path, overrides: dict[str, str]) -> dict[str, Any]:
    from trainflow.execution.dag_files import load
    from trainflow.messages.workload import DagSource

    return dict(load(DagSource(project.relative(path), overrides), project).dags)


def parse_xcoms(given: list[str]) -> dict[str, Any]:
    """`task=JSON` pairs. Raises InputError."""
    import json

    values = {}
    for item in given:
        task_id, equals, text = item.partition("=")
        try:
            values[task_id] = json.loads(text)
        except ValueError as error:
            raise InputError(f"--xcom {item}: {error}; write --xcom TASK=JSON") from None
        if not equals or not task_id:
            raise InputError(f"--xcom {item}: write --xcom TASK=JSON")
    return values


class Offline:
    """Answers a task like an engine that knows of no other run; stands in for
    `execution.execution_api_client.ExecutionApiClient`."""

    def __init__(self, xcoms: dict[str, Any]) -> None:
        self._xcoms = xcoms

    def request(self, request: Request) -> Reply:
        """See `ExecutionApiClient.request`."""
        import msgspec

        from trainflow.messages.execution_api import (
            DagRunInfo,
            Done,
            GetDagRunState,
            GetTrackingRun,
            GetXCom,
            TrackingRun,
            TriggerRun,
            XComValues,
        )

        match request:
            case GetXCom():
                wanted = self._xcoms if request.task_ids is None else request.task_ids
                found = {name: self._xcoms[name] for name in wanted if name in self._xcoms}
                if request.xcom_key != "return_value":
                    found = {}
                return XComValues({name: msgspec.Raw(msgspec.json.encode(value)) for name, value in found.items()})
            case TriggerRun():
                typer.echo(f"would trigger now: run {request.run.run_id} of {request.run.dag_id}")
                return Done()
            case GetDagRunState():
                return DagRunInfo(None)
            case GetTrackingRun():
                return TrackingRun(None, None)
        return Done()

    def tell(self, message: Progress | RowsSaved) -> None:
        """See `ExecutionApiClient.tell`."""
        from trainflow.messages.execution_api import RowsSaved

        if isinstance(message, RowsSaved):
            typer.echo(f"saved: {counted(message.rows, 'row')} of the split", err=True)
            return
        total = f" of {message.total:,.0f}" if message.total else ""
        typer.echo(f"progress: {message.done:,.0f}{total} {message.unit} {message.note or ''}".rstrip(), err=True)

    def report_outcome(self, outcome: Outcome) -> Reply | None:
        """See `ExecutionApiClient.conclude`: there is no engine to tell."""
        return None

    def close(self) -> None:
        """See `ExecutionApiClient.close`."""


def _context(
    project: Project, task: BaseOperator, offline: Offline, *, params: dict[str, Any], conf: dict[str, Any], date: Any
) -> tuple[RuntimeTaskInstance, Context]:
    from trainflow.authoring.context import build_context
    from trainflow.clock import SystemClock
    from trainflow.execution.stop_signal import StopSignal
    from trainflow.execution.task_instance import RuntimeTaskInstance
    from trainflow.identifiers import new_attempt_id
    from trainflow.messages.execution_api import RunInfo, Started
    from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask
    from trainflow.settings.load import load_settings
    from trainflow.states import DagRunType

    clock = SystemClock()
    now = clock.now()
    run_id = f"test__{now.isoformat(timespec='seconds')}"
    workload = ExecuteTask(
        key=AttemptKey(new_attempt_id(now)),
        task_instance_id=0,
        dag_id=task.dag_id,
        run_id=run_id,
        task_id=task.task_id,
        map_index=-1,
        source=DagSource(""),
        project_root=str(project.root),
        home=str(project.home.path),
        log_path="",
    )
    run = RunInfo(task.dag_id, run_id, DagRunType.MANUAL, conf, now, started_at=now, run_after=now, logical_date=date)
    started = Started(run, try_number=1, max_tries=0, first_started_at=now)
    ti = RuntimeTaskInstance(
        workload,
        started,
        offline,  # type: ignore[arg-type]
        project_root=project.root,
        home=project.home,
        settings=load_settings(project),
        clock=clock,
        stop=StopSignal(),
    )
    return ti, build_context(task, ti, run, params=params, test_mode=True)


def _execute(task: BaseOperator, ti: RuntimeTaskInstance, context: Context) -> int:
    from trainflow.authoring.context import current_context
    from trainflow.execution.stop_signal import time_limit
    from trainflow.observability.redaction import redact_text

    limit = task.execution_timeout.total_seconds() if task.execution_timeout else None
    try:
        with current_context(context), time_limit(limit):
            task.render_template_fields(context)
            task.pre_execute(context)
            result = task.execute(context)
            task.post_execute(context, result)
        if task.do_xcom_push and result is not None:
            ti.xcom_push("return_value", result)
    except TaskDeferred as deferral:
        return _ended(ti, _deferred(deferral))
    except SkipException as skip:
        return _ended(ti, f"skipped: {skip}" if str(skip) else "skipped")
    except RescheduleException as again:
        return _ended(ti, f"would {again}")
    except KeyboardInterrupt:
        _quietly(task.on_kill)
        raise
    except (Exception, SystemExit, TaskTimeout) as error:
        if isinstance(error, TimeoutError | TaskTimeout):
            _quietly(task.on_kill)
        typer.echo(redact_text("".join(traceback.format_exception(error))), err=True)
        message = f"failed: {describe(error)}"
        return _ended(ti, message, code=EXIT_FAILED)
    return _ended(ti, "success")


def _deferred(deferral: TaskDeferred) -> str:
    from trainflow.authoring.trigger import describe_trigger

    name, kwargs = describe_trigger(deferral.trigger)
    return f"deferred: would wait for {name.rpartition('.')[2]} {kwargs}, and go on in {deferral.method_name}()"


def _ended(ti: RuntimeTaskInstance, message: str, *, code: int = 0) -> int:
    from trainflow.observability.redaction import redact_text

    ti.flush_progress()
    sys.stdout.flush()
    for run in ti.triggered_runs:
        typer.echo(f"would trigger: run {run.run_id} of {run.dag_id} with conf {run.conf}")
    for item in ti.xcoms.values():
        typer.echo(f"XCom {item.key}: {bytes(item.value).decode()}")
    if ti.note:
        typer.echo(f"note: {ti.note}")
    typer.echo(redact_text(message), err=bool(code))
    return code


def _quietly(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception:
        logging.getLogger("trainflow.task").exception("on_kill failed")


def _log_to_stderr() -> None:
    from trainflow.observability.logs import configure_logging

    configure_logging("INFO")
