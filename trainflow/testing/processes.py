"""Find the processes of a command under test, whatever their parent is by now, wait for conditions, and hold ports
while their server is away."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, TypeVar

from trainflow.observability.processes import is_alive, started_at

#: every process of a command under test has this variable; it is inherited by what it starts
MARK = "ACCEPTANCE_MARK"
#: far more than anything takes, on a machine as busy as can be: only what never comes is not waited for
DEADLINE_SECONDS = 240.0
_PAUSE_SECONDS = 0.01

_T = TypeVar("_T")


class ProcessKind(StrEnum):
    """What a process is there for."""

    COMMAND = "command"
    WARM_WORKER = "warm worker"
    #: an attempt, a child that waits for one, or a file that is being read
    CHILD = "child"
    EVENT_LOOP = "event loop"
    DELIVERER = "deliverer"
    OTHER = "other"


class Found(NamedTuple):
    """One process."""

    pid: int
    parent: int
    kind: ProcessKind
    command: str
    started: float

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Send a signal; False when it has ended before."""
        with contextlib.suppress(ProcessLookupError):
            if self.alive:
                os.kill(self.pid, number)
                return True
        return False

    @property
    def alive(self) -> bool:
        """Whether this very process is there, and not just its entry."""
        return is_alive(self.pid, self.started)


def marked(mark: str) -> list[Found]:
    """Every living process that was started with the mark, oldest first."""
    wanted = f"{MARK}={mark}\0".encode()
    raw: dict[int, tuple[int, str, float]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError, ProcessLookupError):
            if wanted not in _environment(name):
                continue
            entry = Path("/proc") / name
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            raw[int(name)] = (parent, command, started_at(int(name)))
    found = [
        Found(pid, parent, _kind(command, parent, raw), command, started)
        for pid, (parent, command, started) in raw.items()
    ]
    return sorted(found, key=lambda each: (each.started, each.pid))


def _environment(pid: str) -> bytes:
    """The variables of a process. Asked of every process of the machine, often: without the machinery of files."""
    descriptor = os.open(f"/proc/{pid}/environ", os.O_RDONLY)
    try:
        return os.read(descriptor, 1 << 18)
    finally:
        os.close(descriptor)


def _kind(command: str, parent: int, others: dict[int, tuple[int, str, float]]) -> ProcessKind:
    if "trainflow.execution.forkserver" in command:
        parent_command = others[parent][1] if parent in others else ""
        # an orphan is taken for a child: a warm worker without its engine ends at once
        is_worker = parent in others and "trainflow.execution.forkserver" not in parent_command
        return ProcessKind.WARM_WORKER if is_worker else ProcessKind.CHILD
    if "trainflow.execution.attempt_main" in command:
        return ProcessKind.CHILD
    if "trainflow.triggerer.event_loop" in command:
        return ProcessKind.EVENT_LOOP
    if "trainflow.tracking.deliverer" in command:
        return ProcessKind.DELIVERER
    if "trainflow" in command and " start " in f" {command} ":
        return ProcessKind.COMMAND
    return ProcessKind.OTHER


def wait_for(condition: Callable[[], _T | None], what: str | Callable[[], str]) -> _T:
    """Look until the condition is true, and return what it gave. Raises TimeoutError with `what` was waited for."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {DEADLINE_SECONDS:g} s for {what if isinstance(what, str) else what()}")
        time.sleep(_PAUSE_SECONDS)


class HeldPort:
    """A free port of this host, held until `release`: no other process is given it, and what connects is refused
    unless a server listens there. The server has to set SO_REUSEADDR, as those of the standard library do."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Give it back."""
        self._socket.close()
