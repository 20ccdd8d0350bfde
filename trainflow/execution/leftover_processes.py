"""The end of a process that ran an attempt, the same for a forked one and for an interpreter of its own.

What the task has started is ended before it is said how the task ended. A straggler could go on writing into a folder
whose digests are being taken, and a subprocess of a failed try would share the machine with the next one. So nothing of
an attempt outlives it: SIGTERM, a short wait, SIGKILL. A process that shall stay is to be started by something that is
not a task (a service manager, a cluster).
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import struct
import sys
from collections.abc import Collection, Iterator
from typing import NoReturn

from trainflow.humanize import counted
from trainflow.observability.process_lifetime import has_children, terminate_processes
from trainflow.observability.processes import ProcessEntry, descendants, process_table

log = logging.getLogger("trainflow.task")

#: the form of what is said to `clean`: the pid
CLEAN = struct.Struct("=q")
#: ends by itself when the process that started it does, and cleans up behind it what is shared by then
_TRACKER = b"multiprocessing.resource_tracker"


def end_descendants(grace_seconds: float) -> None:
    """End every process that descends from this one. Costs one call of the system where there is none."""
    told = _found() if has_children() else []
    if not told:
        return
    left = terminate_processes(_found, grace_seconds)
    pids = ", ".join(str(entry.pid) for entry in told)
    log.warning("the task left %s running (%s): ended with it", counted(len(told), "process"), pids)
    if left:
        log.error("cannot end %s: they hang in the kernel", ", ".join(str(entry.pid) for entry in left))


def _found() -> list[ProcessEntry]:
    return [entry for entry in descendants([os.getpid()], process_table()) if not _is_tracker(entry.pid)]


def _is_tracker(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return _TRACKER in file.read()
    except OSError:
        return False


def parse_clean_pids(data: bytes) -> Iterator[int]:
    """The pids in what was said on `clean`. Code of the user's that writes into descriptors which it did not open says
    anything: the reader knows which pids there can be."""
    whole = len(data) - len(data) % CLEAN.size
    return (pid for (pid,) in CLEAN.iter_unpack(data[:whole]))


class CleanEnds:
    """A pipe on which children say, at their very end, that nothing of what they started is left."""

    def __init__(self) -> None:
        self._read, self.write_end = os.pipe()
        os.set_blocking(self._read, False)
        self._said: set[int] = set()

    def note(self, pid: int) -> None:
        """A child ended in good order without saying so."""
        self._said.add(pid)

    def forget(self, pid: int, children: Collection[int]) -> bool:
        """Whether a child that has ended said so. `children`: the others that may have said something."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._read, CLEAN.size * 512):
                self._said.update(each for each in parse_clean_pids(data) if each == pid or each in children)
        clean = pid in self._said
        self._said.discard(pid)
        return clean


def exit_process(code: int, clean: int | None = None) -> NoReturn:
    """Run what was registered for the exit, write out what was printed, end.

    `clean`: a pipe on which it is said that nothing of what this process started is left, where that is so.

    Threads that are left are not waited for: the attempt has said how it ended.
    """
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        if clean is not None and not has_children():
            os.write(clean, CLEAN.pack(os.getpid()))
    finally:
        os._exit(code)
