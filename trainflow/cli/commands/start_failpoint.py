"""`trainflow start --failpoint SEED`: the same training, with attempts, workers and the engine killed at named steps.

The command in the terminal starts the engine as a process of its own, and again whenever failpoint has killed it. When
the chain is caught up it lists what was killed, and runs `trainflow audit`: whatever died, nothing was trained twice.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import typer

from trainflow.bootstrap import interpreter
from trainflow.engine.lock import running_engine
from trainflow.errors import InputError
from trainflow.failpoint import VARIABLE, Failpoints, RecordedKill
from trainflow.humanize import counted
from trainflow.settings.project import Project


def start_with_failpoints(project: Project, path: Path, seed: int, options: Sequence[str]) -> int:
    """Train under failpoint, then audit. `options` go to both commands. Returns the worse of the two exit codes."""
    alive = running_engine(project.home)
    if alive is not None:
        raise InputError(
            f"an engine is alive in {project.home.path} (pid {alive}), and failpoint does not touch what it has not "
            "started: end it with 'trainflow stop', then start again"
        )
    project.home.create()
    with tempfile.TemporaryDirectory(prefix="failpoint-", dir=project.home.path) as folder:
        failpoint = Failpoints(seed, Path(folder))
        typer.echo(f"failpoint {seed}: attempts, workers and the engine die at random steps; this is a development run")
        trained = _until_it_lives(failpoint, ["start", str(path), *options])
        _tell(failpoint.kills())
    sys.stdout.flush()
    audited = subprocess.run([*_TRAINFLOW, "audit", str(path), *(word for word in options if word != "--plain")])
    return trained or audited.returncode


_TRAINFLOW = interpreter("trainflow.cli.entry")


def _until_it_lives(failpoint: Failpoints, arguments: Sequence[str]) -> int:
    """Run the command again as long as failpoint kills it. Returns its exit code."""
    environment = {**os.environ, VARIABLE: failpoint.variable}
    while True:
        before = len(failpoint.kills())
        code = _run([*_TRAINFLOW, *arguments], environment)
        new = [kill for kill in failpoint.kills()[before:] if kill.kind == "engine"]
        if code != -signal.SIGKILL or not new:
            return code if code >= 0 else 128 - code
        typer.echo(f"failpoint: the engine was killed after '{new[-1].step}'; starting it again")


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a command, and return its exit code. Ctrl-C reaches the whole terminal: the engine stops in good order, and
    this waits for it."""
    process = subprocess.Popen(command, env=environment)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    passing_on = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, passing_on)


def _tell(kills: Sequence[RecordedKill]) -> None:
    counts = {kind: sum(kill.kind == kind for kill in kills) for kind in ("engine", "worker", "attempt")}
    killed = [counted(counts[kind], kind) for kind in counts]
    typer.echo(
        f"failpoint: {killed[0]}, {killed[1]} and {killed[2]} were killed:"
        if kills
        else "failpoint: nothing was killed (there was too little to do)"
    )
    for kill in kills:
        typer.echo(f"  {kill.kind:<8} {kill.signal:<8} after '{kill.step}'")
