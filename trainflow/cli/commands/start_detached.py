"""`trainflow start --detach`: the same command in the background."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import typer

from trainflow.bootstrap import interpreter
from trainflow.settings.project import Project


def start_detached(project: Project, path: Path, overrides: list[str]) -> int:
    """Start it, and come back once it trains (0) or has ended already (its own exit code)."""
    project.home.create()
    log = project.home.path / "logs" / "start.log"
    reader, writer = os.pipe()
    command = interpreter("trainflow.cli.entry", "start", str(path), "--plain")
    command += ["--ready-descriptor", str(writer), *(word for item in overrides for word in ("--set", item))]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[writer],
            start_new_session=True,
        )
    os.close(writer)
    # it writes when it trains; nothing comes when it ends before
    ready = os.read(reader, 1)
    os.close(reader)
    if ready:
        typer.echo(f"training in the background (pid {process.pid})")
        typer.echo("  trainflow status    where it is      trainflow stop    end it in good order")
        typer.echo(f"  {log}")
        return 0
    process.wait()
    if process.returncode:
        typer.echo(f"it ended at once (exit code {process.returncode}); the end of {log}:", err=True)
        typer.echo("\n".join(log.read_text().splitlines()[-15:]), err=True)
    return process.returncode or 0
