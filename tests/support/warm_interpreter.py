"""An interpreter that has imported trainflow, and becomes a command of it by a fork.

Run by its path (`tests.support.warm_commands` does that), so that what it becomes has imported nothing of the tests.
For the system and for the product it is the command: session, signals, descriptors, folder, exit code, and words and
environment as it sees them itself and as others see them (`/proc/PID`). What the command imports by itself, and in
which order, is tested where commands are interpreters of their own.

The warm worker that a command starts first is a fork of the command; one that replaces it is an interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import msgspec

#: a request is no larger, in bytes: words and environment are in it
MOST_BYTES = 64 << 10
#: what a training imports: in the engine, and in its warm worker
_MODULES = (
    "sqlalchemy.dialects.sqlite",
    "trainflow.actions.engine_client",
    "trainflow.actions.first_runs",
    "trainflow.actions.start",
    "trainflow.cli.commands.start",
    "trainflow.cli.entry",
    "trainflow.cli.live.panel",
    "trainflow.cli.live.session",
    "trainflow.cli.main",
    "trainflow.engine.engine",
    "trainflow.engine.notifier",
    "trainflow.workspace.pipeline_file",
    "trainflow.workspace.store_check",
    # in the warm worker
    "dateutil.relativedelta",
    "fsspec.implementations.local",
    "pyarrow.compute",
    "pyarrow.parquet",
    "trainflow.checkpoints.ledger_changes.prune",
    "trainflow.execution.forkserver",
    "trainflow.operators.after_commit",
    "trainflow.operators.chain.automatic_rewinds",
    "trainflow.operators.training.background_saves",
    "trainflow.operators.training.ended_training",
    "trainflow.pipeline_spec.load",
    "trainflow.samples.rows.batches",
    "trainflow.samples.splits.next_split",
)
_FORKSERVER = "trainflow.execution.forkserver"


class Request(msgspec.Struct, frozen=True):
    """A command that is to begin. `words`: the interpreter, the command, its arguments. Two descriptors come with it:
    what the command prints to, and the line on which its process id and later its exit code are said."""

    words: list[str]
    folder: str
    environ: dict[str, str]


class _Server:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        #: process id → where its end is said
        self._lines: dict[int, socket.socket] = {}
        self._ended, self._wake = os.pipe()
        os.set_blocking(self._ended, False)
        os.set_blocking(self._wake, False)

    def serve(self) -> None:
        """Become commands until the test run has ended."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        sources: list[socket.socket | int] = [self._control, self._ended]
        while True:
            readable, _, _ = select.select(sources, [], [])
            if self._control in readable:
                data, descriptors, _, _ = socket.recv_fds(self._control, MOST_BYTES, 2)
                if not data:
                    return
                self._begin(msgspec.json.decode(data, type=Request), *descriptors)
            self._reap()

    def _begin(self, request: Request, output: int, line: int) -> None:
        pid = os.fork()
        if pid == 0:
            _become_command(request, output)
        os.close(output)
        self._lines[pid] = socket.socket(fileno=line)
        self._say(self._lines[pid], pid)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._ended, 4096)
        while self._lines:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with self._lines.pop(pid) as line:
                self._say(line, os.waitstatus_to_exitcode(status))

    def _say(self, line: socket.socket, number: int) -> None:
        # the end of a test waits for no command
        with contextlib.suppress(OSError):
            line.send(b"%d\n" % number)


def _become_command(request: Request, output: int) -> NoReturn:
    def prepare() -> None:
        for number in (1, 2):
            os.dup2(output, number)
        _close_all_but()
        os.chdir(request.folder)
        _fork_first_warm_worker()

    def main() -> None:
        from trainflow.cli import entry

        sys.argv = request.words[1:]
        entry.main()

    _become(request.words, request.environ, prepare, main)


def _become(
    words: Sequence[str], environ: Mapping[str, str], prepare: Callable[[], object], main: Callable[[], object]
) -> NoReturn:
    """Be, in a child that was just forked, the process that was started with these words, and end as it ends."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # exit handlers of what was imported, but for those of the interpreter itself
        atexit._clear()
        prepare()
        _show(words, environ)
        sys.orig_argv = list(words)
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(code)


def _leave(code: int) -> NoReturn:
    """End as an interpreter ends, but free nothing."""
    try:
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(code)


def _close_all_but(*kept: int) -> None:
    """Close what the parent had open."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


#: what the system's library points to
_environment: list[object] = []


def _show(words: Sequence[str], environ: Mapping[str, str]) -> None:
    """Have this process be one that was started with these words and this environment, for all who ask. Raises
    OverflowError when they are longer than those of the interpreter that it is forked from."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    words_at, words_end, environ_at, environ_end = (int(field) for field in fields[45:49])
    entries = [os.fsencode(f"{name}={value}") + b"\0" for name, value in environ.items()]
    _write(words_at, words_end, b"".join(os.fsencode(word) + b"\0" for word in words))
    _write(environ_at, environ_end, b"".join(entries))
    # the library's own list of it, which what this process starts is given
    pointers, at = (ctypes.c_void_p * (len(entries) + 1))(), environ_at
    for number, entry in enumerate(entries):
        pointers[number] = at
        at += len(entry)
    _environment.append(pointers)
    ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ").value = ctypes.addressof(pointers)
    # not by assignments: each would be a copy elsewhere
    known = os.environ._data  # type: ignore[attr-defined]
    known.clear()
    known.update({os.fsencode(name): os.fsencode(value) for name, value in environ.items()})


def _write(begin: int, end: int, text: bytes) -> None:
    if len(text) > end - begin:
        raise OverflowError(f"{len(text)} bytes do not fit into {end - begin}")
    ctypes.memmove(begin, text.ljust(end - begin, b"\0"), end - begin)


# -- the warm worker of a command --------------------------------------------------------------------------------------


def _fork_first_warm_worker() -> None:
    from trainflow.dag_processor import processor
    from trainflow.engine import startup
    from trainflow.executors import spawn, warm_workers

    in_an_interpreter = spawn.spawn_forkserver
    forked: list[Path] = []

    def spawn_forkserver(project_root: Path) -> spawn.SpawnedForkserver:
        # later the command has connections to databases, and perhaps threads
        if forked or threading.active_count() > 1:
            return in_an_interpreter(project_root)
        forked.append(project_root)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            return spawn.SpawnedForkserver(_forked_forkserver(theirs.fileno(), project_root), ours)

    for module in (spawn, startup, warm_workers, processor):
        vars(module)["spawn_forkserver"] = spawn_forkserver


def _forked_forkserver(line: int, project_root: Path) -> subprocess.Popen[bytes]:
    from trainflow.bootstrap import interpreter
    from trainflow.execution import forkserver
    from trainflow.observability.processes import with_room_for_mark
    from trainflow.settings.environment import worker_environment

    def prepare() -> None:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        _close_all_but(line)

    def main() -> None:
        sys.argv = [forkserver.__file__, *words[-3:]]
        forkserver.main()

    words = interpreter(_FORKSERVER, str(line), str(project_root), str(os.getpid()))
    environ = with_room_for_mark(worker_environment(os.environ))
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _become(words, environ, prepare, main)
    # as the constructor leaves it
    process: subprocess.Popen[bytes] = subprocess.Popen.__new__(subprocess.Popen)
    vars(process).update(
        args=words, pid=pid, returncode=None, stdin=None, stdout=None, stderr=None,
        _child_created=True, _waitpid_lock=threading.Lock(), _sigint_wait_secs=0.25,
    )  # fmt: skip
    return process


def main() -> None:
    """`python warm_interpreter.py FD ROOM`, with an environment that leaves room as well."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in _MODULES:
        import_module(name)
    gc.collect()
    gc.freeze()
    _Server(control).serve()


if __name__ == "__main__":
    main()
