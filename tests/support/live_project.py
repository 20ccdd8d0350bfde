"""A project whose pipelines are run by the installed command, in processes of their own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from tests.support.warm_commands import WITHOUT_PANDAS, CommandProcess, begin_command
from trainflow.checkpoints.audit.audit import AuditReport
from trainflow.checkpoints.ledger.entries import Checkpoint
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.settings.home import Home
from trainflow.testing.processes import DEADLINE_SECONDS, MARK, Found, ProcessKind, marked, wait_for

COMMAND = Path(sys.executable).with_name("trainflow")
#: no MLflow: most tests are about training, and importing it costs seconds of processor time in each engine
WITHOUT_MLFLOW = "[tracking]\nenabled = false\n"
#: others run beside, and there is one port
_ALONE = {"TRAINFLOW__API__ENABLED": "false"}
#: those of this process that may have something running
_begun: set[LiveProject] = set()


def close_all() -> None:
    """End everything that runs in any project of this process: whatever fails, nothing outlives its test."""
    while _begun:
        _begun.pop().close()


class Ended(NamedTuple):
    """A command that has ended. `output`: standard output and error, in the order they came."""

    code: int
    output: str


class Running:
    """A command at work, in a process group of its own as in a terminal."""

    def __init__(self, process: CommandProcess, output: Path) -> None:
        self.process = process
        self._output = output

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def wait(self, seconds: float = DEADLINE_SECONDS) -> Ended:
        """Wait for its end. Raises AssertionError with what it printed when that takes too long."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"has not ended after {seconds:g} s:\n{self.output}") from None
        return Ended(code, self.output)

    def control_c(self) -> None:
        """Send SIGINT as a terminal does: to everything in the process group."""
        os.killpg(self.pid, signal.SIGINT)

    def signal(self, number: int) -> None:
        """To the process alone."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL, and wait for its end."""
        self.process.kill()
        self.process.wait()

    def wait_for_output(self, pattern: str) -> str:
        """Wait until it has printed what matches; the match."""

        def look() -> str | None:
            match = re.search(pattern, self.output)
            if match is None and self.ended and not re.search(pattern, self.output):
                raise AssertionError(f"ended ({self.process.returncode}) without printing {pattern!r}:\n{self.output}")
            return match and (match[0] or " ")

        return wait_for(look, lambda: f"{pattern!r} in:\n{self.output}")


class LiveProject:
    """A project in a folder, with what was started in it."""

    def __init__(self, root: Path, settings: str = WITHOUT_MLFLOW, environ: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.mark = uuid.uuid4().hex
        self.home = Home(root / ".trainflow")
        needs_pandas = WITHOUT_MLFLOW not in settings or "PYTHONPATH" in os.environ
        self.environ = {**({} if needs_pandas else WITHOUT_PANDAS), **(environ or {})}
        #: whether each command has an interpreter of its own, as for a person
        self.cold = False
        self._commands: list[Running] = []
        self._logs = root.parent / f"{root.name}-commands"
        self._logs.mkdir(parents=True, exist_ok=True)
        self.write("configs/trainflow.toml", settings)

    # -- files -----------------------------------------------------------------------------------------------------

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def copy_of(self, folder: Path, *names: str) -> None:
        """Copy folders of another project. Files are linked: what is in `folder` must not be written to in place."""
        for name in names:
            shutil.copytree(
                folder / name,
                self.root / name,
                copy_function=os.link,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("__pycache__", "trainflow.toml"),
            )

    # -- commands --------------------------------------------------------------------------------------------------

    def begin(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Running:
        """Run `trainflow …` and do not wait."""
        output = self._logs / f"{len(self._commands):03d}.log"
        with output.open("wb") as file:
            words = [str(COMMAND), *arguments]
            process = begin_command(words, self.root, self._environment(environ), file, cold=self.cold)
        running = Running(process, output)
        self._commands.append(running)
        _begun.add(self)
        return running

    def _environment(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINFLOW", "MLFLOW"))}
        return {**kept, MARK: self.mark, **_ALONE, **self.environ, **(extra or {})}

    def run(
        self, *arguments: str, environ: Mapping[str, str] | None = None, seconds: float = DEADLINE_SECONDS
    ) -> Ended:
        """Run `trainflow …` to its end."""
        return self.begin(*arguments, environ=environ).wait(seconds)

    def ask(self, *arguments: str) -> Ended:
        """What `trainflow …` says, run in this process: for commands that begin no run and are not what is tested."""
        from tests.support.command_line import run_command

        said = io.StringIO()
        environ = {MARK: self.mark, **_ALONE, **self.environ}
        with (
            contextlib.chdir(self.root),
            mock.patch.dict(os.environ, environ),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            code = run_command(*arguments)
        return Ended(code, said.getvalue())

    def start(self, pipeline: str, *arguments: str, **options: Any) -> Ended:
        """`trainflow start PIPELINE` to its end."""
        return self.run("start", pipeline, *arguments, **options)

    def begin_start(self, pipeline: str, *arguments: str, **options: Any) -> Running:
        """`trainflow start PIPELINE`, not waited for."""
        return self.begin("start", pipeline, *arguments, **options)

    # -- processes -------------------------------------------------------------------------------------------------

    def processes(self, kind: ProcessKind | None = None) -> list[Found]:
        """What runs for this project now."""
        return [found for found in marked(self.mark) if kind in (None, found.kind)]

    def wait_for_process(self, kind: ProcessKind) -> Found:
        """Wait for a process of a kind; the oldest."""
        return wait_for(lambda: self.processes(kind), lambda: f"a {kind} among {self.processes()}")[0]

    def wait_until_quiet(self) -> None:
        """Wait for what is on its way out: nothing of this project may be left running."""
        wait_for(lambda: not self.processes(), lambda: f"the end of {self.processes()}")

    def kill_everything(self) -> None:
        """Kill all processes, as when the power is cut. When this returns nothing of it writes into the project any
        more."""
        for running in self._commands:
            if not running.ended:
                running.kill()
        # what is being forked while one looks is there the next time
        while left := self.processes():
            for found in left:
                found.kill()

    def close(self) -> None:
        """End everything that is left. After each test that is done for all (tests/conftest.py)."""
        _begun.discard(self)
        self.kill_everything()
        with contextlib.suppress(OSError):
            self.home.socket_path.unlink(missing_ok=True)

    # -- what came of it -------------------------------------------------------------------------------------------

    def ledger(self, pipeline: str, store: str = "checkpoints", stage: str = "main") -> Ledger:
        """The ledger of a chain of a pipeline, read here and now."""
        from trainflow.checkpoints.chain import ChainKey
        from trainflow.storage.urls import open_store

        return Ledger(open_store(store, root=self.root), ChainKey(pipeline, stage))

    def checkpoints(self, pipeline: str, stage: str = "main") -> list[Checkpoint]:
        """What was committed, in order."""
        return [entry for entry in self.ledger(pipeline, stage=stage).entries() if isinstance(entry, Checkpoint)]

    def boundaries(self, pipeline: str) -> list[tuple[datetime, datetime]]:
        """(start, end) of the split of each checkpoint."""
        return [(each.split.start, each.split.end) for each in self.checkpoints(pipeline)]

    def committed(self, pipeline: str) -> int:
        """How many ledger entries there are in all its chains. Counts files, so that it is cheap to ask often."""
        return sum(1 for _ in (self.root / "checkpoints" / pipeline).glob("*/*/ledger/*.json"))

    def audit(self, pipeline: str, samples: Any = None, stage: str = "main") -> AuditReport:
        """Audit in this process, reading every file."""
        from trainflow.checkpoints.audit.audit import audit

        return audit(self.ledger(pipeline, stage=stage), samples)

    def audit_command(self, pipeline: str) -> dict[str, Any]:
        """What `trainflow audit --json` says."""
        ended = self.ask("audit", pipeline, "--json")
        facts: dict[str, Any] = json.loads(ended.output)
        facts["exit_code"] = ended.code
        return facts

    def journal(self) -> list[list[str]]:
        """What the pipeline's own functions have noted: words, line by line."""
        path = self.root / "journal.txt"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def engine_log(self) -> str:
        """What the engine has logged."""
        return self.home.engine_log.read_text() if self.home.engine_log.exists() else ""
