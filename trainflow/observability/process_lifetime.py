"""When processes end: with their parent, with the attempt that started them, by SIGTERM and a short wait later SIGKILL.

A process dies with its parent and adopts its orphans by means of the kernel where there are some (Linux). Elsewhere a
thread watches the parent, and orphans are found by their process group alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from trainflow.observability.processes import ProcessEntry, is_alive

if TYPE_CHECKING:
    import subprocess

#: how long a process that was left behind may clean up after SIGTERM, in seconds
GRACE_SECONDS = 3.0
#: how long the end of one that was killed is waited for, in seconds
KILL_SECONDS = 5.0
_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36
#: how often it is looked whether a process has ended where the system cannot tell
_LOOK_SECONDS = 0.05
_PARENT_LOOK_SECONDS = 1.0
#: from SIGXCPU, which can be ignored, to SIGKILL
_CPU_KILL_SECONDS = 5


def adopt_orphans() -> None:
    """Become the parent of what descends from this process and loses its own, from now on; do nothing where that cannot
    be had."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def has_children() -> bool:
    """Whether this process has children that it has not waited for. One call of the system."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def die_with_parent(parent: int) -> bool:
    """Be killed as soon as the process `parent`, which started this one, has ended; at once when it has already.

    The kernel binds it to the *thread* that started this process: to be called where that is one that lives as long as
    its process. Returns whether the system can do that; `watch_parent` is for where it cannot.
    """
    is_bound = _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    return is_bound


def watch_parent(parent: int) -> None:
    """Die with the parent as with `die_with_parent`, by a thread: whichever thread of the parent started this
    process."""
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()


def limit_processor_time(seconds: float) -> None:
    """End this process (SIGXCPU, later SIGKILL) once it has used so much, in seconds; a lower limit stays."""
    limit, (_, hard) = math.ceil(seconds), resource.getrlimit(resource.RLIMIT_CPU)
    top = limit + _CPU_KILL_SECONDS if hard == resource.RLIM_INFINITY else min(hard, limit + _CPU_KILL_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (min(limit, top), top))


def _end_with(parent: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        select.select([os.pidfd_open(parent)], [], [])
        os._exit(1)
    done = threading.Event()
    while os.getppid() == parent:
        done.wait(_PARENT_LOOK_SECONDS)
    os._exit(1)


def _prctl(option: int, value: int) -> bool:
    return sys.platform == "linux" and bool(_LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0)


_LIBC = ctypes.CDLL(None)


def signal_all(entries: Iterable[ProcessEntry], number: signal.Signals) -> None:
    """Send a signal to each that is still the same process."""
    for entry in entries:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if is_alive(entry.pid, entry.started):
                os.kill(entry.pid, number)


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group; nothing where it has ended, or belongs to another user."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def end_group(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """End a child and all of the group that it leads: SIGTERM, a wait for the child, SIGKILL. Waits."""
    from subprocess import TimeoutExpired  # what has a child has imported it

    if process.poll() is None:
        signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutExpired):
            process.wait(grace_seconds)
    kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a child and all of the group that it leads by SIGKILL, and wait for it."""
    signal_group(process.pid, signal.SIGKILL)
    process.wait()


class Ending:
    """Tells processes to end: each of them once by SIGTERM, all of them by SIGKILL when their grace is over."""

    def __init__(self) -> None:
        self._told: set[tuple[int, float]] = set()

    @property
    def begun(self) -> bool:
        """Whether any was told."""
        return bool(self._told)

    def tell(self, found: list[ProcessEntry], *, kill: bool) -> None:
        """Signal what was found, which may be more than the last time: they may start others meanwhile."""
        new = [each for each in found if (each.pid, each.started) not in self._told]
        signal_all(found if kill else new, signal.SIGKILL if kill else signal.SIGTERM)
        self._told |= {(each.pid, each.started) for each in new}


def terminate_processes(find: Callable[[], list[ProcessEntry]], grace_seconds: float) -> list[ProcessEntry]:
    """End what `find` finds, again and again until it finds nothing.

    Waits. Returns what cannot be ended.
    """
    ending = Ending()
    end_of_grace = time.monotonic() + grace_seconds
    end_of_all = end_of_grace + KILL_SECONDS
    while found := find():
        now = time.monotonic()
        if now >= end_of_all:
            return found
        kill = now >= end_of_grace
        ending.tell(found, kill=kill)
        _wait_for_one(found, (end_of_all if kill else end_of_grace) - now)
    return []


def _wait_for_one(entries: list[ProcessEntry], seconds: float) -> None:
    """Wait until one of them has ended, at most so long."""
    with contextlib.ExitStack() as stack:
        descriptors = []
        for entry in entries:
            try:
                descriptor = os.pidfd_open(entry.pid)
            except ProcessLookupError:
                return
            except (AttributeError, OSError):
                seconds = min(seconds, _LOOK_SECONDS)
                continue
            stack.callback(os.close, descriptor)
            descriptors.append(descriptor)
        select.select(descriptors, [], [], seconds)
