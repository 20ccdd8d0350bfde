"""`trainflow execute-workload` and `celery worker`: run one attempt, or those that the Celery executor hands over, on a
host that has no engine."""

from __future__ import annotations

from pathlib import Path

import typer

from trainflow.cli.render.output import EXIT_FAILED
from trainflow.errors import EngineError, InputError


def execute_workload(
    workload: str | None = typer.Argument(
        None, metavar="[WORKLOAD]", help="The workload as JSON; other users of the host may see arguments."
    ),
    file: Path | None = typer.Option(None, "--file", metavar="FILE", help="A file with the workload."),
    project: Path | None = typer.Option(
        None, "--project", metavar="DIR", help="The project is there, whatever workers.code says."
    ),
) -> int:
    """Run one attempt that an executor handed over.

    The workload is the argument, a file, or the environment variable TRAINFLOW_WORKLOAD. No database is needed: the
    attempt is claimed at the API server that the workload names, and what it asks, logs and reports goes there. While
    that cannot be reached the attempt goes on, and reports late. SIGTERM has it save how far it is, and end as
    preempted.

    Exit codes: 0 its outcome was delivered, or another process has the attempt; 1 neither; 2 wrong input.
    """
    from trainflow.actions.execute_workload import execute_workload as execute
    from trainflow.actions.execute_workload import read_workload
    from trainflow.clock import SystemClock
    from trainflow.messages.workload import WORKLOAD_VARIABLE
    from trainflow.observability import redacted_output
    from trainflow.observability.logs import configure_logging
    from trainflow.settings.environment import take_secret

    redacted_output.install()
    configure_logging("INFO")
    given = [text for text in (workload, _text_of(file), take_secret(WORKLOAD_VARIABLE)) if text]
    if not given:
        raise InputError("no workload: give it as the argument, with --file, or in TRAINFLOW_WORKLOAD")
    task = read_workload(given[0])
    try:
        ended = execute(task, project=project, clock=SystemClock())
    except EngineError as error:
        typer.echo(f"attempt {task.key.attempt_id}: {error}", err=True)
        return EXIT_FAILED
    typer.echo(f"attempt {task.key.attempt_id}: {ended.message}", err=True)
    return 0 if ended.done else EXIT_FAILED


def _text_of(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None


celery = typer.Typer(name="celery", help="Workers of the Celery executor.", no_args_is_help=True)


@celery.callback()
def _group() -> None:
    """Keep `worker` a command of its own, although it is the only one."""


@celery.command("worker")
def worker(
    queues: str = typer.Option("default", "--queues", metavar="NAMES", help="Take tasks of these queues, by comma."),
    slots: int | None = typer.Option(
        None, "--slots", min=1, metavar="N", help="Attempts at a time; default: processors."
    ),
    executor: str | None = typer.Option(
        None, "--executor", metavar="NAME", help="Of which executor in [executors]; default: the only one of its kind."
    ),
    name: str | None = typer.Option(
        None, "--name", metavar="NAME", help="What 'trainflow fleet' calls it; default: the name of this host."
    ),
    project: Path | None = typer.Option(
        None, "--project", metavar="DIR", help="The project is there, whatever workers.code says."
    ),
) -> int:
    """Take tasks from a broker and run them on this host.

    It needs the code and the settings of the project, above all the broker, and no database: attempts are claimed at
    the API server. Until SIGTERM or Ctrl-C: attempts that run save how far they are, and go again elsewhere. SIGHUP,
    and another trainflow that is installed here, have it begin again the same way.

    Exit codes: 0 stopped, 2 wrong input.
    """
    import os

    from trainflow.actions.celery_worker import celery_executor, run_celery_worker
    from trainflow.actions.start import check_executors
    from trainflow.clock import SystemClock
    from trainflow.observability import redacted_output
    from trainflow.observability.logs import configure_logging
    from trainflow.settings.load import load_settings
    from trainflow.settings.project import project_at
    from trainflow.workspace.workspace import find_project

    found = project_at(project) if project is not None else find_project()
    settings = load_settings(found)
    check_executors(found, settings)
    redacted_output.install()
    configure_logging(settings.logging.level)
    entry = celery_executor(settings, executor)
    names = [name.strip() for name in queues.split(",") if name.strip()]
    begins_again = run_celery_worker(
        settings,
        entry,
        queues=names,
        slots=slots or os.cpu_count() or 1,
        project=project,
        clock=SystemClock(),
        name=name,
        root=found.root,
    )
    if begins_again:
        from trainflow.cli.start_or_follow import as_installed_now

        return as_installed_now()
    return 0
