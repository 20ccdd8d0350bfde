"""The warm process: has imported what the project's pipelines import, and forks one child for each attempt.

Our own rather than the standard library's forkserver: that one unpickles what it is sent, imports nothing of the
project by itself, and has no way to say that what it imported has changed on disk. Beside each other on a busy machine
of two cores, from start to end of a process that does nothing: forkserver with this module preloaded 50 ms (least 19),
a fork of our own 11 ms (least 2). One thread, one loop; a child never returns into it.

What it imports may start threads. Then it forks no more and says so (`threads`); the attempts of the file whose imports
did it are run in interpreters of their own, those of all others are forked from a worker that has not imported it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec

from trainflow import failpoint
from trainflow.authoring.operator import BaseOperator
from trainflow.bootstrap import freeze_imports, importing
from trainflow.execution import prefork
from trainflow.execution.code_bundles import version_here
from trainflow.execution.dag_files import DagFiles, import_reader
from trainflow.execution.leftover_processes import CleanEnds, exit_process
from trainflow.execution.parse import parse
from trainflow.execution.task_runner import Prepared, prepare, run_attempt
from trainflow.execution.thread_watch import ThreadWatch
from trainflow.messages import frames
from trainflow.messages.forkserver import (
    ChildEnded,
    FromWorker,
    Launch,
    Launched,
    Parse,
    ParseStarted,
    Stale,
    Threaded,
    ToWorker,
)
from trainflow.messages.workload import DagSource, ExecuteTask
from trainflow.observability import redacted_output
from trainflow.observability.logs import configure_logging
from trainflow.observability.process_lifetime import adopt_orphans, die_with_parent, limit_processor_time, signal_all
from trainflow.observability.processes import WORKER_VARIABLE, ProcessEntry, descendants, process_table
from trainflow.observability.resource_exhaustion import BROKEN, exit_code_of
from trainflow.settings.executors import local_executor
from trainflow.settings.load import load_settings
from trainflow.settings.project import project_at

#: exit code of a child that read a file and has said what is wrong with it
_NO_DAG = 1


class Forkserver:
    """Answers the executor at the other end of `control`."""

    def __init__(self, control: socket.socket, project_root: Path) -> None:
        self._control = control
        self._project = project_at(project_root)
        self._settings = load_settings(self._project)
        local = local_executor(self._settings)
        self._isolation = local.isolation if local is not None else "auto"
        self._files = DagFiles(self._project)
        self._files.watch([self._project.settings_file])
        self._frames = frames.FrameReader()
        self._decoder = msgspec.json.Decoder(ToWorker)
        self._descriptors: list[int] = []
        #: files of which attempts will follow, by the child that reads them
        self._read_by: dict[int, DagSource] = {}
        #: where it is said how a child that reads a file ended
        self._answers: dict[int, socket.socket] = {}
        self._to_load: list[DagSource] = []
        #: tasks whose imports have come to their end in a child; what they import is to be imported here
        self._to_warm_up: list[ExecuteTask] = []
        self._imports = prefork.ImportReports()
        self._spare: prefork.SpareChild | None = None
        self._wants_spare = False
        self._threads = ThreadWatch()
        #: why nothing is forked any more
        self._threaded: Threaded | None = None
        #: all that were forked and have not ended
        self._children: set[int] = set()
        self._clean_ends = CleanEnds()
        self._child_read, self._child_write = os.pipe()
        os.set_blocking(self._child_read, False)
        os.set_blocking(self._child_write, False)

    def serve(self) -> None:
        """Answer until the executor hangs up. Children go on by themselves then."""
        adopt_orphans()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.set_wakeup_fd(self._child_write, warn_on_full_buffer=False)
        if not failpoint.active():
            prefork.rehearse(self._project, self._settings)
        self._settle()
        self._look_for_threads(None)
        while True:
            sources: list[socket.socket | int] = [self._control, self._child_read, self._imports.read_end]
            readable, _, _ = select.select(sources, [], [], self._patience())
            if self._imports.read_end in readable:
                imported = self._imports.take()
                self._to_warm_up += imported if self._threaded is None else []
            if self._child_read in readable:
                self._reap()
            if self._control in readable and not self._hear():
                self._drop_spare()
                return
            if not readable:
                self._use_the_pause()

    def _patience(self) -> float | None:
        """How long to wait for a request: not at all while there is something to prepare."""
        if self._to_load or self._to_warm_up or self._wants_spare:
            return 0.0
        return None if self._spare is None else prefork.KEEP_SECONDS

    def _use_the_pause(self) -> None:
        """Prepare for what comes: nothing is asked for right now."""
        if self._to_load:
            self._load(self._to_load.pop(0))
            self._wants_spare = True
        elif self._to_warm_up:
            self._warm_up(self._to_warm_up.pop(0), lambda task: task.warm_up(self._project.root))
        elif self._wants_spare:
            self._fork_spare()
        else:
            self._drop_spare()

    def _hear(self) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, 1 << 16, 16)
        except ConnectionError:
            # it ended without reading what we had said last
            return False
        self._descriptors += descriptors
        if not data:
            return False
        for message in self._frames.feed(data):
            request = self._decoder.decode(message)
            match request:
                case Launch():
                    self._launch(request)
                case Parse():
                    self._parse(request)
        return True

    # -- attempts --------------------------------------------------------------------------------------------------

    def _launch(self, request: Launch) -> None:
        workload = request.workload
        if (changed := self._files.changed()) is not None:
            self._say(Stale(str(changed), workload.key))
            return
        self._load(workload.source)
        if request.warm_up and self._imports.is_news(workload):
            self._warm_up(workload, prefork.import_trusted)
        if self._threaded is not None:
            self._say(msgspec.structs.replace(self._threaded, key=workload.key))
            return
        spare, self._spare = self._spare, None
        if spare is not None and spare.give(workload):
            pid = spare.pid
        else:
            pid = self._fork(lambda: self._run(workload, prepare(self._project, self._settings)))
        failpoint.hit("worker: forked")
        self._say(Launched(workload.key, pid))
        failpoint.hit("worker: said so")
        self._wants_spare = True
        if request.warm_up:
            self._imports.await_from(pid, workload)

    def _load(self, source: DagSource) -> None:
        """Load a file here, so that every later child finds it loaded; a child says what is wrong with it."""
        if self._threaded is None and not self._files.has(source):
            self._drop_spare()
            with contextlib.suppress(Exception, SystemExit), self._threads.importing(), importing():
                loaded = self._files.get(source)
                if WORKER_VARIABLE in os.environ:
                    for dag in loaded.dags.values():
                        version_here(dag, loaded.content)
            self._settle()
            self._look_for_threads(source.path)

    def _look_for_threads(self, path: str | None) -> None:
        """After something was imported, for this file (None: only what every worker imports)."""
        if self._isolation != "auto" or self._threaded is not None:
            return
        if (how := self._threads.found()) is not None:
            self._threaded = Threaded(path, how)
            self._drop_spare()
            self._wants_spare = False
            self._to_warm_up.clear()
            self._say(self._threaded)

    def _fork_spare(self) -> None:
        self._wants_spare = False
        if self._threaded is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

        def child() -> int:
            ours.close()
            prepared = prepare(self._project, self._settings)
            workload = prefork.wait_for_workload(theirs)
            return 0 if workload is None else self._run(workload, prepared)

        with theirs:
            self._spare = prefork.SpareChild(self._fork(child), ours)

    def _run(self, workload: ExecuteTask, prepared: Prepared) -> int:
        prepared = prepared._replace(imported=self._imports.reporter(workload))
        return run_attempt(workload, self._project, self._settings, self._files, prepared)

    def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.drop()
            self._clean_ends.note(spare.pid)  # it has run nothing

    def _warm_up(self, workload: ExecuteTask, import_for: Callable[[BaseOperator], object]) -> None:
        """Import what a task imports. All of it once a child has: a chain that is caught up never gets as far as its
        trainer, and must not wait for the libraries of the model. Whatever goes wrong is said by the task itself."""
        if self._threaded is not None or not self._files.has(workload.source):
            return
        before = len(sys.modules)
        with contextlib.suppress(Exception, SystemExit), self._threads.importing(), importing():
            import_for(self._files.get(workload.source).dags[workload.dag_id].get_task(workload.task_id))
        if len(sys.modules) > before:
            # a child that was forked before would have to import it all by itself
            self._drop_spare()
            self._wants_spare = True
            self._files.note_imports()
            self._settle()
        self._look_for_threads(workload.source.path)

    def _settle(self) -> None:
        """Settle what was imported. Children log as before, whatever that made of logging; and what is here now stays:
        they do not touch it when they collect garbage, so its pages stay shared."""
        configure_logging(self._settings.logging.level)
        freeze_imports()

    # -- files -----------------------------------------------------------------------------------------------------

    def _parse(self, request: Parse) -> None:
        answer = socket.socket(fileno=self._descriptors.pop(0))
        if (changed := self._files.changed()) is not None:
            # said first: what sees the end of the line can know why
            self._say(Stale(str(changed)))
            answer.close()
            return
        if self._threaded is not None and self._threaded.path is not None:
            # another worker reads it, one that has no threads
            answer.close()
            return
        if import_reader(request.request.source.path):
            self._drop_spare()
            self._settle()
        worker = os.getpid()

        def child() -> int:
            # the process that wanted to know may have ended meanwhile
            with contextlib.suppress(OSError), answer:
                die_with_parent(worker)
                limit_processor_time(self._settings.dag_processor.parse_timeout_seconds)
                frames.send(answer, msgspec.json.encode(ParseStarted(os.getpid())))
                result = parse(request.request)
                frames.send(answer, msgspec.json.encode(result))
                return 0 if result.problem is None else _NO_DAG
            return 0

        pid = self._fork(child)
        self._answers[pid] = answer
        if request.load:
            self._read_by[pid] = request.request.source

    # -- processes -------------------------------------------------------------------------------------------------

    def _fork(self, work: Callable[[], int]) -> int:
        pid = os.fork()
        if pid == 0:
            self._be_child(work)
        self._children.add(pid)
        return pid

    def _be_child(self, work: Callable[[], int]) -> NoReturn:
        code = BROKEN
        try:
            # a group of its own: it can be ended with everything it starts, and terminals do not reach it
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            os.close(self._child_read)
            os.close(self._child_write)
            if self._spare is not None:
                self._spare.close()
            # of files that are to be read after this: their end must not wait for this child's
            for descriptor in self._descriptors:
                os.close(descriptor)
            for answer in self._answers.values():
                answer.close()
            # exit handlers of what the parent imported are the parent's; the child runs those it adds itself
            atexit._clear()
            _reseed()
            code = work()
        except BaseException as error:
            code = exit_code_of(error, BROKEN)
            traceback.print_exc()
        finally:
            exit_process(code, self._clean_ends.write_end)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._child_read, 4096):
                pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid not in self._children:
                continue  # it had lost its parent
            self._children.discard(pid)
            self._imports.forget(pid)
            if self._spare is not None and self._spare.pid == pid:
                spare, self._spare = self._spare, None
                spare.close()
            code = os.waitstatus_to_exitcode(status)
            source = self._read_by.pop(pid, None)
            if source is not None and code == 0:
                self._to_load.append(source)
            left = self._orphans_of(pid)
            if pid in self._answers:
                # a file that was read: nothing of it is worth a grace
                signal_all(left, signal.SIGKILL)
            pids = [entry.pid for entry in left]
            ended = ChildEnded(pid, code if code >= 0 else None, -code if code < 0 else None, pids)
            self._say_about_file(ended)
            self._say(ended)

    def _orphans_of(self, pid: int) -> list[ProcessEntry]:
        """What lost its parent with this child. Such processes become children of this one, and what has not ended in
        good order has not ended them; those of living attempts are adopted by these."""
        if self._clean_ends.forget(pid, self._children):
            return []
        table = process_table()
        known = self._children
        adopted = {each.pid for each in table.values() if each.parent == os.getpid() and each.pid not in known}
        return [*(table[each] for each in adopted), *descendants(adopted, table)]

    def _say_about_file(self, ended: ChildEnded) -> None:
        answer = self._answers.pop(ended.pid, None)
        if answer is not None:
            # never waits: with a line full of what the child has said it is not the end of the child that is missed
            with contextlib.suppress(OSError), answer:
                answer.setblocking(False)
                frames.send(answer, msgspec.json.encode(ended))

    def _say(self, message: FromWorker) -> None:
        # the executor is gone: its end is seen at the next read
        with contextlib.suppress(OSError):
            frames.send(self._control, msgspec.json.encode(message))


def _reseed() -> None:
    """Two children of one process must not draw the same numbers; Python's own generator sees to that itself."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        numpy.random.seed()


def main() -> None:
    """`python -m trainflow.execution.forkserver FD PROJECT_ROOT PARENT`; `--check PROJECT_ROOT` starts and ends."""
    redacted_output.install()
    if sys.argv[1] == "--check":
        left, right = socket.socketpair()
        left.close()
        Forkserver(right, Path(sys.argv[2])).serve()
        return
    failpoint.enter("worker")
    # it may hang in an import of the user's when the engine is killed; its attempts go on
    die_with_parent(int(sys.argv[3]))
    Forkserver(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2])).serve()


if __name__ == "__main__":
    main()
