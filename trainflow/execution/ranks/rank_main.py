"""Run one rank of an attempt that calls a training function: an interpreter of its own, told by `TRAINFLOW_TASK`.

It is started by the process of the attempt, which alone speaks to the engine, or on another host by `agent`. What it
answers lies in files: metrics, saves, progress, and why it has failed.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
import traceback
from pathlib import Path

import msgspec

from trainflow.authoring.python_call import ends_forked_copies
from trainflow.errors import InputError, describe
from trainflow.execution.attempt_ending import FOR_GOOD, explain_error, is_programming_error
from trainflow.execution.code_bundles import check_version
from trainflow.execution.dag_files import DagFiles
from trainflow.execution.leftover_processes import exit_process
from trainflow.execution.task_runner import FAILED_EXIT_CODE
from trainflow.observability import redacted_output
from trainflow.observability.resource_exhaustion import BROKEN
from trainflow.operators.function_reference import reference_of
from trainflow.operators.train import TrainOperator
from trainflow.operators.training.rank_protocol import RankProblem
from trainflow.operators.training.training_context import checked_metrics
from trainflow.operators.training.training_task import TrainingTask, context_of, read_task
from trainflow.settings.load import load_settings
from trainflow.settings.project import Project, project_at
from trainflow.storage.atomic_files import replace_whole
from trainflow.task_signals import TaskPreempted


def main() -> int:
    """Call the function. Returns the exit code."""
    redacted_output.install()
    task = read_task(os.environ)
    project = project_at(Path(task.project))
    settings = load_settings(project)
    if task.rank:
        _leave_stops_to_first_rank()
    logging.basicConfig(level=settings.logging.level.upper(), format="%(levelname)s %(name)s: %(message)s")
    try:
        operator = _operator(task, project)
        training = context_of(task, operator.options_of_samples(settings))
        function = operator.resolved_function(project.root)
        metrics = checked_metrics(
            ends_forked_copies(function)(training), f"the training function {reference_of(function)}"
        )
        if training.unread is not None:
            training.logger.warning("%s", training.unread)
        replace_whole(Path(task.metrics), json.dumps(metrics).encode())
        return 0
    except BaseException as error:
        at = time.monotonic()
        if not isinstance(error, TaskPreempted):
            traceback.print_exc()
        replace_whole(Path(task.problem), msgspec.json.encode(_problem(error, project, at)))
        return FAILED_EXIT_CODE


def _leave_stops_to_first_rank() -> None:
    """Go on after SIGTERM, which may have been sent to all processes of the attempt: the first rank is to get to its
    next save, and ends all. What is forked or started by this process ends by it as any does."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _operator(task: TrainingTask, project: Project) -> TrainOperator:
    if task.function is None:
        raise InputError("no function is named to this rank: its task trains with a command")
    source = task.function.source
    loaded = DagFiles(project).get(source)
    dag = loaded.dags.get(task.dag_id)
    if dag is None or not dag.has_task(task.task_id):
        raise InputError(f"{source.path} does not define DAG '{task.dag_id}' with task '{task.task_id}' any more")
    if task.function.version:
        check_version(dag, loaded.content, project.root, task.function.version)
    operator = dag.get_task(task.task_id)
    if not isinstance(operator, TrainOperator):
        raise InputError(f"{source.path}: task '{task.task_id}' of DAG '{task.dag_id}' is no TrainOperator any more")
    return operator


def _problem(error: BaseException, project: Project, at: float) -> RankProblem:
    mistake = is_programming_error(error, project.root)
    return RankProblem(
        explain_error(error, project.root) if mistake else describe(error),
        "".join(traceback.format_exception(error)),
        type(error).__name__,
        for_good=isinstance(error, FOR_GOOD),
        is_mistake=mistake,
        at=at,
    )


if __name__ == "__main__":
    code = BROKEN
    try:
        code = main()
    except BaseException:
        traceback.print_exc()
    finally:
        exit_process(code)
