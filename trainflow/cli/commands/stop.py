"""`trainflow stop`: end the engine of this home."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from trainflow.cli.exit_codes import EXIT_FAILED

if TYPE_CHECKING:
    from trainflow.settings.home import Home

_LOOK_SECONDS = 0.05


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
    from trainflow.engine.lock import running_engine
    from trainflow.workspace.workspace import find_project

    home = find_project().home
    pid = running_engine(home)
    if pid is None:
        typer.echo("no engine is alive")
        return 0
    _tell(pid, home, concurrent_map=now)
    if not _gone(home, pid, wait):
        typer.echo(f"the engine (pid {pid}) still runs after {wait:g} s; 'trainflow stop --now' ends it", err=True)
        return EXIT_FAILED
    typer.echo(f"the engine (pid {pid}) has stopped")
    return 0


def _tell(pid: int, home: Home, *, concurrent_map: bool) -> None:
    import os
    import signal

    from trainflow.errors import EngineError

    if pid == 0:
        raise EngineError(f"{home.engine_lock} is held by a process that does not say its pid: try again")
    # two signals that are alike may arrive as one; asked twice, the engine stops at once
    signals = [signal.SIGTERM, signal.SIGINT] if concurrent_map else [signal.SIGTERM]
    for number in signals:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError:
            raise EngineError(f"the engine (pid {pid}) belongs to another user: they have to stop it") from None


def _gone(home: Home, pid: int, wait: float | None) -> bool:
    from trainflow.clock import SystemClock
    from trainflow.engine.lock import running_engine

    clock = SystemClock()
    deadline = None if wait is None else clock.monotonic() + wait
    # another engine that took over meanwhile is not the one that was to stop
    while running_engine(home) in (pid, 0):
        if deadline is not None and clock.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True
