"""One process of the event loop as the triggerer sees it: started, spoken to, and what is known once it has ended."""

from __future__ import annotations

import math
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from trainflow.bootstrap import interpreter
from trainflow.clock import Clock
from trainflow.executors.framed_socket import FramedSocket
from trainflow.executors.reactor import Reactor
from trainflow.observability.oom_kills import OomKills
from trainflow.settings.project import Project
from trainflow.triggerer.crash_causes import CrashCause, End, RunningNote

#: threads of `asyncio.to_thread` beside those of the settings
DEFAULT_THREADS = 8
#: signals that a process gets by what it does itself
_OWN_SIGNALS = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS}


class Loop:
    """What watches triggers, and which."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self.send = send
        self.watched: set[int] = set()
        self.heard_at = math.inf
        #: when it was found to be silent for too long; None: it is not
        self.missed_at: float | None = None
        self.spoke = False
        #: alone with what is suspected
        self.is_apart = False

    pid: int | None = None
    has_ended = False

    def kill(self, *, stalled: bool = False) -> None:
        """End it at once; its end is noticed like any other."""

    def hang_up(self) -> None:
        """Let it clean up and end; nothing is said about it any more."""

    def wait(self) -> None:
        """Wait until the process has ended; it is killed when that takes long."""

    def end(self) -> End:
        """What is known about its end."""
        return End(CrashCause.KILLED, frozenset(self.watched))

    def describe_end(self) -> str:
        """Sentence on how it ended, for people."""
        return "ended"


class LoopProcess(Loop):
    """A process that runs `trainflow.triggerer.event_loop`."""

    def __init__(
        self,
        reactor: Reactor,
        clock: Clock,
        project: Project,
        threads: int,
        memory_kills: OomKills,
        on_message: Callable[[Loop, bytes], None],
        on_end: Callable[[Loop], None],
    ) -> None:
        self._memory_kills = memory_kills
        self._kills_before = memory_kills.look()
        self._stalled = False
        self._cause: CrashCause | None = None
        self._note = RunningNote.create(1 + threads + DEFAULT_THREADS)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = self._start(theirs.fileno(), project.root)
        self._peer = FramedSocket(
            reactor, ours, on_message=lambda message: on_message(self, message), on_close=lambda: on_end(self)
        )
        super().__init__(self._peer.send)
        self.pid = self._process.pid
        self.heard_at = clock.monotonic()

    def _start(self, connection: int, root: Path) -> subprocess.Popen[bytes]:
        note = self._note.descriptor
        command = interpreter("trainflow.triggerer.event_loop", str(connection), str(note), str(root))
        return subprocess.Popen(command, pass_fds=[connection, note], stdin=subprocess.DEVNULL, start_new_session=True)

    def kill(self, *, stalled: bool = False) -> None:
        self._stalled = stalled and not _is_stopped(self._process.pid)
        self._process.kill()

    def hang_up(self) -> None:
        self._peer.hang_up()

    def wait(self) -> None:
        try:
            self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def has_ended(self) -> bool:  # type: ignore[override]
        """Whether the process is gone."""
        return self._process.poll() is not None

    def end(self) -> End:
        # one that hung up without ending is not waited for
        if self._peer.closed and self._process.poll() is None:
            self._ended_by_itself()
        code = self._process.wait()
        running = self._note.read()
        self._note.close()
        self._cause = self._cause_of(code)
        return End(self._cause, frozenset(self.watched), running)

    def _ended_by_itself(self) -> None:
        try:
            self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _cause_of(self, code: int) -> CrashCause:
        if self._stalled:
            return CrashCause.STALLED
        if code == -signal.SIGKILL and self._memory_kills.explain(self._kills_before):
            return CrashCause.OUT_OF_MEMORY
        return CrashCause.ITSELF if code >= 0 or -code in _OWN_SIGNALS else CrashCause.KILLED

    def describe_end(self) -> str:
        if self._cause is CrashCause.STALLED:
            return "did not turn any more"
        if self._cause is CrashCause.OUT_OF_MEMORY:
            return "was killed because memory ran out"
        code = self._process.returncode
        return f"ended (exit code {code})" if code >= 0 else f"ended (signal {-code}, {signal.Signals(-code).name})"


def _is_stopped(pid: int) -> bool:
    """Whether it was stopped from outside (SIGSTOP, a debugger): then no trigger blocks it."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except (OSError, IndexError):
        return False
