"""The warm process: has imported what the project's pipelines import, and forks one child for each attempt.

Our own rather than the standard library's forkserver: that one unpickles what it is sent, imports nothing of the
project by itself, and has no way to say that what it imported has changed on disk; and a process that does nothing
takes 50 ms by it where it takes 11. One thread, one loop; a child never returns into it.

What it imports may start threads. Then it forks no more and says so (`threads`); the attempts of the file whose imports
did it are run in interpreters of their own, those of all others are forked from a worker that has not imported it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from trainflow import failpoint
from trainflow.authoring.operator import BaseOperator
from trainflow.bootstrap import freeze_imports, importing
from trainflow.errors import describe
from trainflow.execution.attempt_main import Prepared, prepare, run_attempt
from trainflow.execution.code_bundles import version_here
from trainflow.execution.dag_files import DagFiles, import_reader
from trainflow.execution.forked_children import AwaitedImports, ChildReports, ForkedChildren, ReportKind
from trainflow.execution.parse import parse
from trainflow.execution.prefork import Rehearsal, import_trusted
from trainflow.execution.spare_children import KEEP_SECONDS, MOST_SPARES, SpareChildren, wait_for_launch
from trainflow.execution.thread_watch import ThreadWatch
from trainflow.messages import frames
from trainflow.messages.forkserver import (
    ChildEnded,
    ChildWaits,
    FromWorker,
    Given,
    Launch,
    Launched,
    NotLaunched,
    Parse,
    ParseStarted,
    Stale,
    Threaded,
    ToWaiting,
    ToWorker,
    Unused,
)
from trainflow.messages.workload import DagSource, ExecuteTask, ProcessIdentity
from trainflow.observability import redacted_output
from trainflow.observability.logs import configure_logging
from trainflow.observability.process_lifetime import die_with_parent, limit_processor_time, signal_all
from trainflow.observability.processes import WORKER_VARIABLE
from trainflow.settings.executors import local_executor
from trainflow.settings.load import load_settings
from trainflow.settings.project import project_at


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
        self._reports = ChildReports()
        self._imports = AwaitedImports()
        self._rehearsal: Rehearsal | None = None
        self._spares = SpareChildren()
        self._wants_spares = False
        self._threads = ThreadWatch()
        #: why nothing is forked any more
        self._threaded: Threaded | None = None
        self._children = ForkedChildren(self._close_in_child)

    def serve(self) -> None:
        """Answer until the executor hangs up. Children go on by themselves then."""
        self._children.watch()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not failpoint.active():
            self._rehearsal = Rehearsal(self._project, self._settings)
            self._rehearsal.perform_all()
        self._settle()
        self._look_for_threads(None)
        while True:
            sources: list[socket.socket | int] = [self._control, self._children.read_end, self._reports.read_end]
            readable, _, _ = select.select(sources, [], [], self._patience())
            # first: what children say of an attempt comes after they were given it
            if self._control in readable and not self._hear():
                self._drop_spares()
                return
            if self._reports.read_end in readable:
                self._take_reports()
            if self._children.read_end in readable:
                self._reap()
            if not readable:
                self._use_the_pause()

    def _patience(self) -> float | None:
        """How long to wait for a request: not at all while there is something to prepare."""
        if self._to_load or self._to_warm_up or self._wants_spares:
            return 0.0
        return KEEP_SECONDS if len(self._spares) else None

    def _use_the_pause(self) -> None:
        """Prepare for what comes: nothing is asked for right now."""
        if self._to_load:
            self._load(self._to_load.pop(0))
            self._wants_spares = True
        elif self._to_warm_up:
            self._warm_up(self._to_warm_up.pop(0), lambda task: task.warm_up(self._project.root))
        elif self._wants_spares:
            try:
                self._fork_spare()
            except OSError:  # no process, descriptor or memory is free: attempts are forked when they come
                self._wants_spares = False
        else:
            self._drop_spares()

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
                case Given():
                    self._given(request)
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
        if request.warm_up and not self._imports.knows(workload):
            self._warm_up(workload, import_trusted)
        if self._threaded is not None:
            self._say(msgspec.structs.replace(self._threaded, key=workload.key))
            return
        pid = self._spares.give(workload)
        if pid is None:
            try:
                pid = self._fork(lambda: self._run(ToWaiting(workload), prepare(self._project, self._settings)))
            except OSError as error:  # too many processes, or no memory for another one: that is soon over
                self._say(NotLaunched(workload.key, error.strerror or describe(error)))
                return
        failpoint.hit("worker: forked")
        self._say(Launched(workload.key, pid))
        failpoint.hit("worker: said so")
        self._wants_spares = True
        if request.warm_up:
            self._await_imports(pid, workload)

    def _given(self, request: Given) -> None:
        """The engine has given an attempt to a child that waited."""
        self._spares.forget(request.pid)
        self._wants_spares = True
        if request.warm_up:
            self._await_imports(request.pid, request.workload)
        if not self._files.has(request.workload.source):
            # it is loaded by each child until it is loaded here
            self._to_load.append(request.workload.source)

    def _load(self, source: DagSource) -> None:
        """Load a file here, so that every later child finds it loaded; a child says what is wrong with it."""
        if self._threaded is None and not self._files.has(source):
            self._drop_spares()
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
            self._drop_spares()
            self._wants_spares = False
            self._to_warm_up.clear()
            self._say(self._threaded)

    def _take_reports(self) -> None:
        for kind, process in self._reports.take():
            match kind:
                case ReportKind.WAITS:
                    self._announce(process)
                case ReportKind.UNUSED:
                    self._spares.forget(process.pid)
                    self._say(Unused(process.pid))
                case ReportKind.STALE:
                    self._say(Unused(process.pid, str(self._files.changed() or "a file that it has imported")))
                case ReportKind.IMPORTED:
                    self._imported(self._imports.imported(process.pid))

    def _await_imports(self, pid: int, workload: ExecuteTask) -> None:
        self._imported(self._imports.begin(pid, workload, lives=pid in self._children))

    def _imported(self, workload: ExecuteTask | None) -> None:
        if workload is not None and self._threaded is None:
            self._to_warm_up.append(workload)

    def _announce(self, process: ProcessIdentity) -> None:
        line = self._spares.announce(process.pid)
        if line is not None:
            with line, contextlib.suppress(OSError):
                message = frames.pack(msgspec.json.encode(ChildWaits(process)))
                socket.send_fds(self._control, [message], [line.fileno()])

    def _fork_spare(self) -> None:
        self._wants_spares = len(self._spares) + 1 < MOST_SPARES
        if self._threaded is not None:
            return
        needed = self._spares.needed_end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

        def child() -> int:
            ours.close()
            prepared = prepare(self._project, self._settings)
            if self._rehearsal is not None:
                self._rehearsal.perform()
            self._reports.say(ReportKind.WAITS, prepared.process)
            launch = wait_for_launch(theirs, needed)
            if launch is None or self._files.changed() is not None:
                self._reports.say(ReportKind.UNUSED if launch is None else ReportKind.STALE, prepared.process)
                return 0
            return self._run(launch, prepared)

        with theirs, contextlib.ExitStack() as on_failure:
            on_failure.callback(ours.close)
            self._spares.add(self._fork(child), ours)
            on_failure.pop_all()

    def _fork(self, attempt: Callable[[], int]) -> int:
        pid = self._children.fork(attempt)
        self._imports.forked(pid)
        return pid

    def _run(self, launch: ToWaiting, prepared: Prepared) -> int:
        if not self._imports.knows(launch.workload):
            imported = partial(self._reports.say, ReportKind.IMPORTED, prepared.process)
            prepared = prepared._replace(imported=imported)
        return run_attempt(launch.workload, self._project, self._settings, self._files, prepared, launch.started)

    def _drop_spares(self) -> None:
        for pid in self._spares.drop():
            self._children.note_clean_end(pid)  # it has run nothing

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
            self._drop_spares()
            self._wants_spares = True
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
        if not self._descriptors:
            return  # none was free for it here: the system has closed it, which is seen at its other end
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
            self._drop_spares()
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
                return 0 if result.problem is None else 1  # it has said what is wrong with the file
            return 0

        pid = self._children.fork(child)
        self._answers[pid] = answer
        if request.load:
            self._read_by[pid] = request.request.source

    # -- processes -------------------------------------------------------------------------------------------------

    def _close_in_child(self) -> None:
        self._control.close()
        self._spares.close_in_child()
        # of files that are to be read after this: their end must not wait for this child's
        for descriptor in (*self._descriptors, *(answer.detach() for answer in self._answers.values())):
            os.close(descriptor)

    def _reap(self) -> None:
        for pid, code, number in self._children.ended():
            # what it has said before is told before its end
            self._take_reports()
            self._imports.forget(pid)
            self._spares.forget(pid)
            source = self._read_by.pop(pid, None)
            if source is not None and code == 0:
                self._to_load.append(source)
            left = self._children.left_by(pid)
            if pid in self._answers:
                # a file that was read: nothing of it is worth a grace
                signal_all(left, signal.SIGKILL)
            ended = ChildEnded(pid, code, number, [entry.pid for entry in left])
            self._say_about_file(ended)
            self._say(ended)

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
