"""`trainflow stop`: end the engine of this home."""

from __future__ import annotations

import typer

from trainflow.cli.exit_codes import EXIT_FAILED


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("stop")(stop)


def stop(
    now: bool = typer.Option(False, "--now", help="At once: do not let tasks finish; they are tried again later."),
    wait: float | None = typer.Option(None, "--wait", metavar="SECONDS", help="Give up waiting; default: never."),
) -> int:
    """Stop the engine of this project.

    Waits until it has stopped. It tells the attempts that run to stop, gives them engine.stop_grace_seconds, and lets a
    commit come to its end. What was stopped is not counted as a failure: the next start goes on from there.

    Exit code 0 when no engine is alive (any more), 1 when it still is after --wait.
    """
    from trainflow.actions.stop import tell_to_stop, wait_until_stopped
    from trainflow.clock import SystemClock
    from trainflow.workspace.workspace import find_project

    home = find_project().home
    pid = tell_to_stop(home, at_once=now)
    if pid is None:
        typer.echo("no engine is alive")
        return 0
    if not wait_until_stopped(home, pid, SystemClock(), seconds=wait):
        typer.echo(f"the engine (pid {pid}) still runs after {wait:g} s; 'trainflow stop --now' ends it", err=True)
        return EXIT_FAILED
    typer.echo(f"the engine (pid {pid}) has stopped")
    return 0
