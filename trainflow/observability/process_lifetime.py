"""What a process is to its parent and to its orphans: it dies with the one and adopts the others.

By means of the kernel where there are some (Linux). Elsewhere a thread watches the parent, and orphans are found by
their process group alone.
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

_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36
_LOOK_SECONDS = 1.0
#: from SIGXCPU, which can be ignored, to SIGKILL
_KILL_SECONDS = 5


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
    top = limit + _KILL_SECONDS if hard == resource.RLIM_INFINITY else min(hard, limit + _KILL_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (min(limit, top), top))


def _end_with(parent: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        select.select([os.pidfd_open(parent)], [], [])
        os._exit(1)
    done = threading.Event()
    while os.getppid() == parent:
        done.wait(_LOOK_SECONDS)
    os._exit(1)


def _prctl(option: int, value: int) -> bool:
    return sys.platform == "linux" and bool(_LIBC.prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0)


_LIBC = ctypes.CDLL(None)
