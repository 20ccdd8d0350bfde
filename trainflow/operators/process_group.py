"""Run one program in a process group of its own, and leave nothing of it behind.

The program is followed in the calling thread: a signal handler that raises (the task was told to stop, or ran out of
time) interrupts the wait, and on the way out the whole group is ended - SIGTERM, a grace, SIGKILL. What a program
leaves running in its group when it exits is ended as well: an attempt owns its processes, and a straggler could go on
writing into a folder whose digests are being taken.

A process killed with SIGKILL ends nothing itself, and a trainer that goes on would share the machine with the next try.
So a small shell waits at a pipe: a line means that all went well, the end of the pipe that its owner is gone.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from trainflow.clock import SystemClock
from trainflow.observability.oom_kills import OomKills, memory_ran_out
from trainflow.observability.process_lifetime import end_group, kill_group, signal_group
from trainflow.observability.redaction import redact_text

#: how long a group may clean up after SIGTERM, in tenths of a second
_GRACE_TENTHS = 100
_WATCH = """
read -r line && exit 0
kill -s TERM -- "-$1" 2>/dev/null
left=$2
while [ "$left" -gt 0 ] && kill -s 0 -- "-$1" 2>/dev/null; do left=$((left - 1)); sleep 0.1; done
kill -s KILL -- "-$1" 2>/dev/null
"""


class ParentDeathWatch:
    """Watches over the process group `group`, from now until `release`."""

    def __init__(self, group: int) -> None:
        """Raises OSError when no shell can be started."""
        reading, self._writing = os.pipe()
        try:
            self._watcher = subprocess.Popen(
                ["/bin/sh", "-c", _WATCH, "death-watch", str(group), str(_GRACE_TENTHS)],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # not in the caller's group: what is sent to that one must not end the watch
                process_group=0,
            )
        except BaseException:
            os.close(self._writing)
            raise
        finally:
            os.close(reading)

    def release(self) -> None:
        """The group has ended in the ordinary way."""
        with contextlib.suppress(OSError):
            os.write(self._writing, b"\n")
        os.close(self._writing)
        self._watcher.wait()


#: how often a running program's `on_idle` is called, in seconds
IDLE_SECONDS = 0.5
#: how long a program may clean up after SIGTERM, in seconds
GRACE_SECONDS = 10.0
_MAX_LINE = 1 << 20
_CHUNK = 1 << 16


class ProcessGroup:
    """One program and all processes it starts.

    `on_line` gets each line of its output (stdout and stderr as they come, without the line end); `on_idle` is called
    at least twice a second while it runs, and once at the end. Secrets in a line are masked, and what `hide` holds.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | str,
        env: Mapping[str, str],
        on_line: Callable[[str], None],
        on_idle: Callable[[], None] = lambda: None,
        encoding: str = "utf-8",
        grace_seconds: float = GRACE_SECONDS,
        tail_lines: int = 20,
        hide: Iterable[str] = (),
    ) -> None:
        self.tail: deque[str] = deque(maxlen=tail_lines)
        #: what is said of it where the kernel has killed it for want of memory; "" otherwise
        self.out_of_memory = ""
        self._memory, self._kills_before = OomKills(SystemClock()), 0
        self._argv = list(argv)
        self._cwd = cwd
        self._env = dict(env)
        self._on_line = on_line
        self._on_idle = on_idle
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="backslashreplace")
        self._grace_seconds = grace_seconds
        self._hidden = tuple(hide)
        self._rest = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._death_watch: ParentDeathWatch | None = None
        self._terminated = False
        self._code: int | None = None

    def run(self) -> int:
        """Start, follow to the end, return the exit code (negative: killed by that signal).

        Raises OSError when the program cannot be started.
        """
        try:
            process = self._start()
            self._follow(process)
            return process.returncode
        except BaseException:
            self.stop()
            raise
        finally:
            self._forget()

    def start(self) -> None:
        """Start the program, which is to be followed by `follow` then. Raises OSError when it cannot be started."""
        self._start()

    def follow(self) -> int:
        """Follow what `start` has started to the end, in whatever thread; the exit code as `run` returns it."""
        process = self._process
        assert process is not None
        try:
            self._follow(process)
            return process.returncode
        finally:
            self._forget()

    @property
    def code(self) -> int | None:
        """The exit code of the program, as soon as it has one."""
        process = self._process
        return self._code if process is None else process.poll()

    def close(self) -> None:
        """End what was started and is followed by no thread."""
        self.stop()
        self._forget()

    def stop(self) -> None:
        """End the whole group: SIGTERM, wait for the grace, SIGKILL. Safe to call at any time and again.

        One that was told to stop before has had its grace.
        """
        process = self._process
        if process is None:
            return
        if self._terminated:
            kill_group(process)
        else:
            self._terminated = True
            end_group(process, self._grace_seconds)

    def terminate(self) -> None:
        """SIGTERM to the whole group, once; it goes on being followed. Fit for a signal handler."""
        process = self._process
        if process is not None and not self._terminated:
            self._terminated = True
            signal_group(process.pid, signal.SIGTERM)

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the program, from a thread: a signal handler that raises while the main thread is inside of Popen would
        leave a program behind that is not known."""
        guard, abandoned, failed = threading.Lock(), threading.Event(), list[Exception]()

        def start() -> None:
            with guard:
                try:
                    self._process = None if abandoned.is_set() else self._open()
                except Exception as error:
                    failed.append(error)

        thread = threading.Thread(target=start, name="start-program", daemon=True)
        try:
            thread.start()
            thread.join()
        except BaseException:
            with guard:
                abandoned.set()
            raise
        if failed:
            raise failed[0]
        assert self._process is not None
        return self._process

    def _open(self) -> subprocess.Popen[bytes]:
        self._kills_before = self._memory.look()
        process = subprocess.Popen(
            self._argv,
            cwd=self._cwd,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        with contextlib.suppress(OSError):
            self._death_watch = ParentDeathWatch(process.pid)
        return process

    def _forget(self) -> None:
        """End what is left; from then on the process id may belong to another process."""
        process = self._process
        if process is None:
            return
        self._code, self._process = process.poll(), None
        signal_group(process.pid, signal.SIGKILL)
        if process.stdout is not None:
            process.stdout.close()
        if self._death_watch is not None:
            self._death_watch.release()
            self._death_watch = None

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        os.set_blocking(descriptor, False)
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while process.poll() is None or selector.get_map():
                if not selector.get_map():
                    self._wait_closed(process)
                elif selector.select(IDLE_SECONDS):
                    if not self._read(descriptor):
                        selector.unregister(descriptor)
                elif process.poll() is not None:
                    # ended, and something it left behind holds the pipe open
                    signal_group(process.pid, signal.SIGKILL)
                    self._read(descriptor)
                    break
                self._memory.look()
                self._on_idle()
        if process.returncode == -signal.SIGKILL and not self._terminated and self._memory.explain(self._kills_before):
            self.out_of_memory = memory_ran_out()
        self._flush()
        self._on_idle()

    def _wait_closed(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(IDLE_SECONDS)

    def _read(self, descriptor: int) -> bool:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return True
        self._take(self._decoder.decode(data))
        return bool(data)

    def _take(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)
        if len(self._rest) > _MAX_LINE:
            self._flush()

    def _flush(self) -> None:
        if self._rest:
            self._line(self._rest)
            self._rest = ""

    def _line(self, line: str) -> None:
        # a progress bar redraws its line with carriage returns; its last state is the line
        shown = redact_text(line.rstrip("\r").rpartition("\r")[2], self._hidden)
        self.tail.append(shown)
        self._on_line(shown)
