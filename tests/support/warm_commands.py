"""Commands of trainflow whose interpreter has imported it before: most of what a short command costs is that."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from tests.support import warm_interpreter
from tests.support.warm_interpreter import MOST_BYTES, Request

#: what an interpreter, or what it imports, reads once
_READ_ONCE = (
    "PYTHON",
    "LD_",
    "LC_",
    "LANG",
    "TZ",
    "MALLOC_",
    "OMP_",
    "OPENBLAS_",
    "FSSPEC_",
    "ARROW_",
    "TRAINFLOW_FAIL",
)
#: most tests are about training: what they train with needs no pandas, and PyArrow imports it wherever it is found
WITHOUT_PANDAS = {"PYTHONPATH": str(Path(__file__).with_name("without_pandas"))}
#: whether commands of this process are warm (tests/conftest.py)
enabled = False


class CommandProcess(Protocol):
    """A process that was begun, as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


class ForkedCommand:
    """A command that a warm interpreter became. Its exit code, and who it is, come on a line."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._said = line.makefile("rb")
        self.pid = int(self._said.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended. Raises TimeoutExpired."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def _look(self, seconds: float | None) -> int | None:
        if self.returncode is None:
            self._line.settimeout(seconds)
            try:
                self.returncode = int(self._line.recv(64))
            except (BlockingIOError, TimeoutError):
                return None
            self._said.close()
            self._line.close()
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Signal it, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class WarmInterpreter:
    """A process that becomes commands. It ends with this one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        room = "-" * MOST_BYTES
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", warm_interpreter.__file__, str(theirs.fileno()), room],
                env={**environ, "ROOM": room},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def begin(self, request: bytes, output: BinaryIO) -> ForkedCommand:
        """Begin a command."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            socket.send_fds(self._control, [request], [output.fileno(), theirs.fileno()])
        return ForkedCommand(ours)


def begin_command(
    words: Sequence[str], folder: Path, environ: Mapping[str, str], output: BinaryIO, *, cold: bool = False
) -> CommandProcess:
    """Begin `words`, the path of the command and its arguments, in a session of its own.

    `cold`: in an interpreter of its own; so it is where the environment asks for another one than others have.
    """
    if enabled and not cold and (warm := _interpreter_for(environ)) is not None:
        request = msgspec.json.encode(Request([sys.executable, *words], str(folder), dict(environ)))
        if len(request) <= MOST_BYTES:
            return warm.begin(request, output)
    return subprocess.Popen(
        list(words),
        cwd=folder,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _interpreter_for(environ: Mapping[str, str]) -> WarmInterpreter | None:
    usual, wanted = _read_once(os.environ), _read_once(environ)
    if sys.platform != "linux" or wanted not in (usual, {**usual, **WITHOUT_PANDAS}):
        return None
    return _interpreter(wanted == usual)


@functools.cache
def _interpreter(with_pandas: bool) -> WarmInterpreter:
    return WarmInterpreter({**os.environ, **({} if with_pandas else WITHOUT_PANDAS)})


def _read_once(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(_READ_ONCE)}
