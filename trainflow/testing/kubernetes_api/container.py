"""One container: a process of this machine with the command, the variables and the log of it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

#: what is kept of a log as the message of a container that failed
_MESSAGE_BYTES, _MESSAGE_LINES = 2048, 80


class ContainerEnd(NamedTuple):
    """How a container ended, as its status says it."""

    code: int
    reason: str
    message: str = ""


class Container:
    """A container that is about to run. `spec`: as in the pod, `environ`: all its variables."""

    def __init__(self, spec: Mapping[str, Any], environ: Mapping[str, str], folder: Path) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.environ = dict(environ)
        self.folder = folder
        self.log = folder / f"{self.name}.log"
        #: why it is killed, where that is another reason than its exit code
        self.killed_for: str | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._told_to_stop = False
        self._lock = threading.Lock()

    @property
    def command(self) -> list[str]:
        """What is executed, with `$(NAME)` replaced."""
        words = [*(self.spec.get("command") or ()), *(self.spec.get("args") or ())]
        for name, value in self.environ.items():
            words = [word.replace(f"$({name})", value) for word in words]
        return words

    def run(self, on_start: Callable[[], None]) -> ContainerEnd:
        """Run it to its end; `on_start` is called when its process is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            with self._lock:
                if self._told_to_stop:
                    return ContainerEnd(143, "Error")
                try:
                    self.process = self._started(output.fileno())
                except (OSError, IndexError) as error:
                    return ContainerEnd(128, "StartError", f"failed to create containerd task: {self._why(error)}")
            on_start()
        code = self.process.wait()
        # nothing of a container is left when its first process has ended
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self._ended(128 - code if code < 0 else code)

    def _why(self, error: OSError | IndexError) -> str:
        return f'exec: "{self.command[0]}": {error.strerror}' if isinstance(error, OSError) else "no command is given"

    def _started(self, output: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command,
            env=self.environ,
            cwd=self.spec.get("workingDir") or self.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def _ended(self, code: int) -> ContainerEnd:
        if self.killed_for is not None:
            return ContainerEnd(code, self.killed_for)
        message = ""
        if code != 0 and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            tail = self.log.read_bytes()[-_MESSAGE_BYTES:].decode(errors="replace")
            message = "".join(tail.splitlines(keepends=True)[-_MESSAGE_LINES:])
        return ContainerEnd(code, "Error" if code else "Completed", message)

    def signal(self, number: int) -> None:
        """Send a signal to its first process; to all of it, when that is SIGKILL."""
        with self._lock:
            self._told_to_stop = True
            if self.process is None or self.process.returncode is not None:
                return
            with suppress(ProcessLookupError):
                if number == signal.SIGKILL:
                    os.killpg(self.process.pid, number)
                else:
                    os.kill(self.process.pid, number)
