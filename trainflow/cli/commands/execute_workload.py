"""`trainflow execute-workload`: one attempt on a host that has no engine."""

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
