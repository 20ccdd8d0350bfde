"""The children of a warm process: forked, noticed when they end, what they leave, and what they say to it.

They say that they wait for their attempt, that they end without one, and that they have imported what their task
imports.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple, NoReturn

from trainflow.execution.leftover_processes import CleanEnds, exit_process
from trainflow.messages.workload import ExecuteTask, ProcessIdentity
from trainflow.observability.process_lifetime import adopt_orphans
from trainflow.observability.processes import ProcessEntry, descendants, process_table
from trainflow.observability.resource_exhaustion import BROKEN, exit_code_of


class EndedChild(NamedTuple):
    """A child that has ended; exactly one of `code` and `signal` says how."""

    pid: int
    code: int | None
    signal: int | None


class ForkedChildren:
    """Forks, and knows those that have not ended."""

    def __init__(self, close_in_child: Callable[[], object]) -> None:
        """`close_in_child`: called first in each child, to close what belongs to the warm process."""
        self._close_in_child = close_in_child
        self._pids: set[int] = set()
        self._clean_ends = CleanEnds()
        self.read_end, self._write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        os.set_blocking(self._write_end, False)

    def __contains__(self, pid: int) -> bool:
        return pid in self._pids

    def watch(self) -> None:
        """Be told on `read_end` that one has ended; what loses its parent becomes a child of this process."""
        adopt_orphans()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)

    def fork(self, work: Callable[[], int]) -> int:
        """Fork one that does `work`, which gives its exit code. Returns its pid."""
        pid = os.fork()
        if pid == 0:
            self._be_child(work)
        self._pids.add(pid)
        return pid

    def _be_child(self, work: Callable[[], int]) -> NoReturn:
        code = BROKEN
        try:
            # a group of its own: it can be ended with everything it starts, and terminals do not reach it
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(self.read_end)
            os.close(self._write_end)
            self._close_in_child()
            # exit handlers of what the parent imported are the parent's; the child runs those it adds itself
            atexit._clear()
            _reseed()
            code = work()
        except BaseException as error:
            code = exit_code_of(error, BROKEN)
            traceback.print_exc()
        finally:
            exit_process(code, self._clean_ends.write_end)

    def note_clean_end(self, pid: int) -> None:
        """Note that a child has run nothing: it leaves nothing, and says nothing of it."""
        self._clean_ends.note(pid)

    def ended(self) -> Iterator[EndedChild]:
        """Find those that have ended since the last call."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.read_end, 4096):
                pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid not in self._pids:
                continue  # it had lost its parent
            self._pids.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            yield EndedChild(pid, code if code >= 0 else None, -code if code < 0 else None)

    def left_by(self, pid: int) -> list[ProcessEntry]:
        """Find what lost its parent with this child. Such processes become children of this one, and what has not ended
        in good order has not ended them; those of living attempts are adopted by these."""
        if self._clean_ends.forget(pid, self._pids):
            return []
        table = process_table()
        adopted = {each.pid for each in table.values() if each.parent == os.getpid() and each.pid not in self._pids}
        return [*(table[each] for each in adopted), *descendants(adopted, table)]


def _reseed() -> None:
    """Two children of one process must not draw the same numbers; Python's own generator sees to that itself."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        numpy.random.seed()


#: what a child says in one write: that this is a report, what, its pid, when it started
_REPORT = struct.Struct("=8scid")
_MARK = b"\xfftrainfl"


class ReportKind(Enum):
    """What a child says."""

    WAITS = b"w"
    #: it was told that it is not needed
    UNUSED = b"u"
    #: what it has imported has changed on disk since
    STALE = b"s"
    IMPORTED = b"i"


_KINDS = frozenset(kind.value for kind in ReportKind)


class ChildReport(NamedTuple):
    """One word of one child."""

    kind: ReportKind
    process: ProcessIdentity


class ChildReports:
    """The pipe on which they say it. Code of the user's that writes into descriptors which it did not open says
    anything there, before a report or behind it: what is none is passed over."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        #: read, and not known yet whether it is a report
        self._left = b""

    def say(self, kind: ReportKind, process: ProcessIdentity) -> None:
        """Say it, in a child."""
        os.write(self._write_end, _REPORT.pack(_MARK, kind.value, process.pid, process.process_started))

    def take(self) -> list[ChildReport]:
        """What was said since the last call, in order."""
        reports: list[ChildReport] = []
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.read_end, _REPORT.size * 200):
                self._left += data
                reports += self._whole_reports()
        return reports

    def _whole_reports(self) -> Iterator[ChildReport]:
        """The reports among what was read; what may be the beginning of another one is left."""
        data, position = self._left, 0
        while (position := data.find(_MARK, position)) >= 0 and position + _REPORT.size <= len(data):
            _, kind, pid, started = _REPORT.unpack_from(data, position)
            if kind in _KINDS:
                yield ChildReport(ReportKind(kind), ProcessIdentity(pid, started))
                position += _REPORT.size
            else:
                position += 1
        self._left = data[position if position >= 0 else max(len(data) - len(_MARK) + 1, 0) :]


class AwaitedImports:
    """Tasks whose imports are not known yet: only when they have come to their end in a child, they are done in the
    warm process, too. What hangs, exits or crashes when it is imported does so in an attempt, and in no process that
    others are forked from."""

    def __init__(self) -> None:
        self._awaited: dict[int, ExecuteTask] = {}
        #: children that have said so before it was heard here what they run
        self._early: set[int] = set()
        self._known: set[tuple[str, str, str]] = set()

    def begin(self, pid: int, workload: ExecuteTask, *, lives: bool = True) -> ExecuteTask | None:
        """A child runs a task that may be one whose imports are not known. Returns that task where they have come to
        their end already."""
        if self.knows(workload) or not (lives or pid in self._early):
            return None
        self._awaited[pid] = workload
        return self.imported(pid) if pid in self._early else None

    def forked(self, pid: int) -> None:
        """A child was forked: what an earlier one of its pid has said is not its word."""
        self._early.discard(pid)

    def knows(self, workload: ExecuteTask) -> bool:
        """Whether nothing waits for the imports of its task."""
        return _task_of(workload) in self._known

    def imported(self, pid: int) -> ExecuteTask | None:
        """The task whose imports came to their end in this child; None where that is known of it, or it is not known
        yet which task that is."""
        workload = self._awaited.pop(pid, None)
        if workload is None:
            self._early.add(pid)
            return None
        self._early.discard(pid)
        if self.knows(workload):
            return None
        self._known.add(_task_of(workload))
        return workload

    def forget(self, pid: int) -> None:
        """A child has ended."""
        self._awaited.pop(pid, None)


def _task_of(workload: ExecuteTask) -> tuple[str, str, str]:
    return workload.source.path, workload.dag_id, workload.task_id
