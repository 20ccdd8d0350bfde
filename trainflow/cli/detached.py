"""`trainflow start --detach`: the same command in the background."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import typer

from trainflow.engine.lock import running_engine
from trainflow.settings.project import Project

_LOOK_SECONDS = 0.05


def start_detached(project: Project, path: Path, overrides: list[str]) -> int:
    """Start it, and come back once it trains (0) or has ended already (its own exit code)."""
    project.home.create()
    log = project.home.path / "logs" / "start.log"
    command = [sys.executable, "-m", "trainflow.cli.main", "start", str(path), "--plain"]
    command += [word for item in overrides for word in ("--set", item)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    while process.poll() is None and running_engine(project.home) is None:
        time.sleep(_LOOK_SECONDS)
    if process.poll() is None:
        typer.echo(f"training in the background (pid {process.pid})")
        typer.echo("  trainflow status    where it is      trainflow stop    end it in good order")
        typer.echo(f"  {log}")
        return 0
    if process.returncode:
        typer.echo(f"it ended at once (exit code {process.returncode}); the end of {log}:", err=True)
        typer.echo("\n".join(log.read_text().splitlines()[-15:]), err=True)
    return process.returncode or 0
