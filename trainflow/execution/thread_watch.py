"""Notice threads that the imports of a project have started: a process that has some must not be forked.

A fork copies the calling thread alone. A lock that another thread holds stays locked in the child for ever, and a pool
whose workers are gone waits for them: the child hangs, today or on a busier day. Threads of Python and native ones
(data frames, RPC, arrays) count alike.

Libraries that know about fork end their threads before one (`pthread_atfork`: OpenBLAS, which NumPy brings), so a child
is forked for trial and what is left after it is counted. The thread with which jemalloc gives memory back stays, and
survives: PyArrow brings it, so every chain has it, and jemalloc makes it anew in the child.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import select
import signal
import struct
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

#: how long the child forked for trial may take to end, in seconds; one that hangs proves what is asked
TRIAL_SECONDS = 10.0
_TASKS = "/proc/self/task"
#: `proc_taskinfo` of macOS: size in bytes, and where the number of threads stands
_TASK_INFO, _TASK_INFO_BYTES, _THREADS_AT = 4, 96, 84
_NAMES_SHOWN = 4
#: names of native threads whose library makes them anew in a forked child
_SURVIVING = {"jemalloc_bg_thd"}


def count_other_threads() -> int:
    """How many threads beside the calling one a fork would not copy; native ones included where the system tells."""
    if sys.platform == "darwin":
        return _count_on_macos() - 1
    try:
        tasks = os.listdir(_TASKS)
    except OSError:
        return threading.active_count() - 1
    return 0 if len(tasks) == 1 else len(_names())


def _count_on_macos() -> int:
    buffer = ctypes.create_string_buffer(_TASK_INFO_BYTES)
    try:
        library = ctypes.CDLL("/usr/lib/libproc.dylib")
        filled = library.proc_pidinfo(os.getpid(), _TASK_INFO, ctypes.c_uint64(0), buffer, _TASK_INFO_BYTES)
    except (OSError, AttributeError):
        filled = 0
    if filled != _TASK_INFO_BYTES:
        return threading.active_count()
    (count,) = struct.unpack_from("=i", buffer.raw, _THREADS_AT)
    return int(count)


class ThreadWatch:
    """What importing has left running in this process beside its main thread."""

    def __init__(self) -> None:
        #: native id of a thread of Python → the module that was being imported when it was started
        self._started_by: dict[int, str] = {}

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """Remember inside which module starts a thread of Python."""
        original, started_by = threading.Thread.start, self._started_by

        @functools.wraps(original)
        def start(self: threading.Thread) -> None:
            original(self)
            if self.native_id is not None:
                started_by[self.native_id] = _importing_module()

        threading.Thread.start = start  # type: ignore[method-assign]
        try:
            yield
        finally:
            threading.Thread.start = original  # type: ignore[method-assign]

    def found(self) -> str | None:
        """The threads that would not survive a fork, with who started them where that is known; None: there are none.

        Takes some microseconds while there is none.
        """
        if not count_other_threads() or (_trial_fork() and not count_other_threads()):
            return None
        return self._described()

    def _described(self) -> str:
        names = _names()
        modules = sorted({module for ident, module in self._started_by.items() if ident in names and module})
        shown = sorted(set(names.values()))
        listed = ", ".join(shown[:_NAMES_SHOWN]) + (", …" if len(shown) > _NAMES_SHOWN else "")
        count = max(len(names), count_other_threads())
        what = f"{count} thread{'s' if count > 1 else ''}{f' ({listed})' if listed else ''}"
        return f"module {' and '.join(modules)} starts {what}" if modules else f"it starts {what}"


def _importing_module() -> str:
    """The module whose top level runs now, the innermost that is not of the library of threads; '' when none does."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            return str(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    return ""


def _names() -> dict[int, str]:
    """Native id → name of every thread but the main one and those that survive."""
    names = {
        thread.native_id: thread.name
        for thread in threading.enumerate()
        if thread.native_id is not None and thread is not threading.main_thread()
    }
    with contextlib.suppress(OSError):
        for each in os.listdir(_TASKS):
            if int(each) != os.getpid() and int(each) not in names:
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    names[int(each)] = Path(_TASKS, each, "comm").read_text().strip()
    return {ident: name for ident, name in names.items() if name not in _SURVIVING}


def _trial_fork() -> bool:
    """Fork a child that ends at once. False when it did not: it hangs in what libraries do after a fork."""
    with warnings.catch_warnings():
        # Python itself warns of what is found out here
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    ended = _ends_within(pid, TRIAL_SECONDS)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return ended


def _ends_within(pid: int, seconds: float) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return True  # waited for without limit where the system has no way
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)
