"""Run the installed command as a person does, find what runs of it, and end that."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MARK = "PEOPLE_MARK"
#: no command may take longer, on a machine as busy as can be
DEADLINE_SECONDS = 240.0


@dataclass
class Ended:
    """A command that has ended. `code`: negative, the signal that ended it; None: it hangs. `struck`: it was killed,
    or what it worked with was."""

    words: tuple[str, ...]
    code: int | None
    output: str
    struck: bool = False

    def __str__(self) -> str:
        return f"trainflow {' '.join(self.words)} -> {self.code}\n{self.output}"


class Running:
    """A command at work, in a process group of its own as in a terminal."""

    def __init__(self, words: tuple[str, ...], process: subprocess.Popen[bytes], output: Path) -> None:
        self._words = words
        self.process = process
        self._output = output
        self.struck = False

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def wait(self, seconds: float = DEADLINE_SECONDS) -> Ended:
        """Its end; one that hangs is killed."""
        code: int | None
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        return Ended(self._words, code, self._output.read_text(errors="replace"), self.struck)


class Commands:
    """The command of one environment. `command`: its file; all that it starts has a mark by which it is found."""

    def __init__(self, command: Path, logs: Path, environ: Mapping[str, str]) -> None:
        self.command = command
        self._logs = logs
        self._mark = uuid.uuid4().hex
        self._environ = dict(environ)
        self._count = 0
        logs.mkdir(parents=True, exist_ok=True)

    def begin(self, *words: str, at: Path) -> Running:
        """Run `trainflow WORDS` in a folder, and do not wait."""
        self._count += 1
        output = self._logs / f"{self._count:03d}.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINFLOW", "MLFLOW"))}
        with output.open("wb") as file:
            process = subprocess.Popen(
                [str(self.command), *words],
                cwd=at,
                env={**kept, MARK: self._mark, **self._environ},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Running(words, process, output)

    def run(self, *words: str, at: Path) -> Ended:
        """Run it to its end."""
        return self.begin(*words, at=at).wait()

    def processes(self, below: Path | None = None) -> list[int]:
        """What runs of it, also what outlived its parent; only what works in a folder, where one is given."""
        marked = [name for name in os.listdir("/proc") if name.isdigit() and self._is_marked(name)]
        return sorted(int(name) for name in marked if below is None or _works_in(name, below))

    def _is_marked(self, pid: str) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            return state not in "ZX" and f"{MARK}={self._mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    def kill_everything(self) -> None:
        """End all of it at once, as when the power is cut."""
        while left := self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def wait_until_quiet(self, seconds: float = 30.0) -> list[int]:
        """Wait for what is on its way out; what is left then."""
        until = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.02)
        return left


def _works_in(pid: str, folder: Path) -> bool:
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(folder)
    except OSError:
        return False
