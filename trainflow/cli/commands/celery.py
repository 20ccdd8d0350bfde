"""`trainflow celery worker`: runs attempts that the Celery executor hands over."""

from __future__ import annotations

from pathlib import Path

import typer

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
    the API server. Until SIGTERM or Ctrl-C: attempts that run save how far they are, and go again elsewhere.

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
    run_celery_worker(
        settings,
        entry,
        queues=names,
        slots=slots or os.cpu_count() or 1,
        project=project,
        clock=SystemClock(),
        name=name,
        root=found.root,
    )
    return 0
