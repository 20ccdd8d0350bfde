"""The children of a warm process: forked, noticed when they end, and what they leave."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from trainflow.execution.leftover_processes import CleanEnds, exit_process
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
