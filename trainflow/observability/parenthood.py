"""What a process is to its parent and to its orphans: it dies with the one and adopts the others.

By means of the kernel where there are some (Linux). Elsewhere a thread watches the parent, and orphans are found by
their process group alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading

_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36
_LOOK_SECONDS = 1.0


def adopt_orphans() -> None:
    """From now on what descends from this process and loses its parent becomes its child; nothing where that cannot
    be had."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def has_children() -> bool:
    """Has this process children that it has not waited for? One call of the system."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def die_with_parent(parent: int) -> None:
    """Be killed as soon as the process `parent`, which started this one, has ended; at once when it has already.

    The kernel binds it to the *thread* that started this process, which is why everything that calls this is started
    by a main thread; a watching thread serves where another one may have (`watch_parent`).
    """
    if not _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL):
        watch_parent(parent)
    if os.getppid() != parent:
        os._exit(1)


def watch_parent(parent: int) -> None:
    """As `die_with_parent`, by a thread: whichever thread of the parent started this process."""
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()


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
