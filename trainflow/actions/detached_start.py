"""Train in the background: a process of its own, from which the terminal is given back.

Imports nothing of the engine: the other process does that.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trainflow.bootstrap import interpreter

if TYPE_CHECKING:
    from trainflow.actions.start import TrainingRequest


class DetachedTraining(NamedTuple):
    """A process that trains in the background; `exit_code`: it has ended already, and `said` what is in the log."""

    pid: int
    log: Path
    exit_code: int | None
    said: str


def train_detached(request: TrainingRequest) -> DetachedTraining:
    """Start a process that trains in the background, and come back once it trains or has ended already."""
    home = request.workspace.project.home
    home.create()
    log = home.path / "logs" / "start.log"
    reader, writer = os.pipe()
    words = ("--plain", "--ready-descriptor", str(writer))
    options = [word for name, value in request.overrides.items() for word in ("--set", f"{name}={value}")]
    with log.open("ab") as output:
        begun_at = output.tell()
        process = subprocess.Popen(
            interpreter("trainflow.cli.entry", "start", str(request.path), *words, *options),
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
        return DetachedTraining(process.pid, log, None, "")
    exit_code = process.wait()
    with log.open("rb") as written:
        written.seek(begun_at)
        return DetachedTraining(process.pid, log, exit_code, written.read().decode(errors="replace"))
