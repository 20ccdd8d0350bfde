"""Have pipeline files parsed, one at a time, and keep what came out."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.dag_processor.files import EarlyParse, ParsedFileStamps, Stamp, pipeline_files, stamp
from trainflow.executors.framed_socket import FramedSocket
from trainflow.executors.reactor import Reactor, Timer
from trainflow.executors.warm_workers import ForkserverClient
from trainflow.messages.forkserver import ChildEnded, FromParser, Parse, ParseStarted
from trainflow.messages.workload import DagSource, ParseFile, ParseProblem, ParseResult, ProcessExit
from trainflow.metadata.database import Database
from trainflow.metadata.exit_judgement import judge_exit
from trainflow.metadata.queries import dag_queries
from trainflow.metadata.queries.dag_queries import DefinedTwice
from trainflow.metadata.transaction_retries import is_refusal
from trainflow.observability.process_lifetime import signal_group
from trainflow.observability.redaction import presentable
from trainflow.observability.resource_exhaustion import ended_in_words
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

log = logging.getLogger(__name__)

_MESSAGE_CHARACTERS = 4_000
#: a process that crashes while it imports a file is given so many tries: the file may be to blame
CRASHES = 3
#: seconds after which a file that is being imported is put behind those that wait; then it has all of its time
HOLD_UP_SECONDS = 5.0
#: one that was killed, alone or with its warm worker, is not the file's fault; nor can it go on for ever
KILLS = 20


#: a time limit that is seen to be over so much later was not looked at in time, even on a machine that is busy
_LATE_SECONDS = 5.0


def stood_still(took_seconds: float, limit_seconds: float) -> bool:
    """Whether a parse took longer than it may, so that not the file but this process stood still (stopped, or on a
    machine that was suspended): the time limit ends any other."""
    return took_seconds > limit_seconds + _LATE_SECONDS


class _Parsing:
    """The parse that is under way."""

    def __init__(
        self, known: ParsedFileStamps, before: Stamp | None, *, crashes: int = 0, kills: int = 0, again: bool = False
    ) -> None:
        """`again`: what came out of it before was of no use any more."""
        self.known = known
        self.before = before
        self.again = again
        self.began = 0.0
        #: how the tries before this one ended
        self.crashes = crashes
        self.kills = kills
        self.pid: int | None = None
        #: until the worker says how the child ended: both are lost when the line ends before
        self.exit = ProcessExit(reason="its warm worker ended")
        #: who reads it, and how many kills for want of memory nothing explained before
        self.worker: ForkserverClient | None = None
        self.killed_before = 0
        self.peer: FramedSocket | None = None
        self.timer: Timer | None = None
        self.hold_up: Timer | None = None
        self.timed_out = False

    def cancel_timers(self) -> None:
        """Cancel what was to happen later: the read has ended."""
        for timer in (self.timer, self.hold_up):
            if timer is not None:
                timer.cancel()

    def ended(self, child: ChildEnded) -> None:
        """The warm worker says how the child ended."""
        memory = self.worker.memory if child.signal == signal.SIGKILL and self.worker is not None else None
        ran_out = memory is not None and memory.explain(self.killed_before)
        self.exit = ProcessExit(code=child.code, signal=child.signal, out_of_memory=ran_out)


class DagProcessor:
    """Keeps the documents of a project's pipelines what the files say."""

    def __init__(
        self,
        database: Database,
        reactor: Reactor,
        *,
        clock: Clock,
        project: Project,
        settings: Settings,
        worker: Callable[[], ForkserverClient],
        on_parsed: Callable[[Path, ParseProblem | None], None],
    ) -> None:
        self._database = database
        self._reactor = reactor
        self._clock = clock
        self._project = project
        self._settings = settings
        self._worker = worker
        self._on_parsed = on_parsed
        self._known: dict[Path, ParsedFileStamps] = {}
        self._queue: list[ParsedFileStamps] = []
        self._ahead: dict[Path, EarlyParse] = {}
        self._parsing: _Parsing | None = None
        self._closed = False
        self._deleted_are_forgotten = False
        #: the system gave no process to read with the last time: said once
        self._is_short = False
        #: files that are not put behind others (again): a person waits for them, or they have been
        self._in_turn: set[Path] = set()
        #: files that were found and cannot be read under their name: said once
        self._unnamed: set[Path] = set()

    def add(self, path: Path, overrides: dict[str, str] | None = None, ahead: EarlyParse | None = None) -> None:
        """Look after this file, wherever it lies, and read it first; `ahead`: it is being read already."""
        path = path.resolve()
        self._in_turn.add(path)
        if ahead is not None:
            self._ahead[path] = ahead
        source = DagSource(self._project.relative(path), overrides or {})
        known = self._known.get(path)
        if known is None or known.source != source:
            known = self._known[path] = ParsedFileStamps(source, path)
        self._queue = [known, *(other for other in self._queue if other.path != path)]
        self._next()

    def scan(self) -> None:
        """Find the project's files and read what is new or has changed."""
        folder = self._project.root / self._settings.dag_processor.folder
        for path in pipeline_files(folder):
            if path not in self._known and self._can_be_named(path):
                self._known[path] = ParsedFileStamps(
                    DagSource(self._project.relative(path), self._overrides(path)), path
                )
        self._forget_deleted()
        for path, known in list(self._known.items()):
            if not path.exists():
                self._forget(path, known)
            elif known.is_stale and not self._is_under_way(known):
                self._queue.append(known)
        self._next()

    def _can_be_named(self, path: Path) -> bool:
        """Whether the name of a file is text; no database and no message can hold another one."""
        try:
            str(path).encode()
        except UnicodeEncodeError:
            if path not in self._unnamed:
                self._unnamed.add(path)
                log.error("%r is not read: its name is no UTF-8; give it another one", str(path))
            return False
        return True

    def _overrides(self, path: Path) -> dict[str, str]:
        """The `--set` of the last start of the pipeline: it holds until it is started otherwise."""
        relative = self._project.relative(path)
        return self._database.read(lambda connection: dag_queries.overrides_of(connection, relative))

    def _is_under_way(self, known: ParsedFileStamps) -> bool:
        return known in self._queue or (self._parsing is not None and self._parsing.known is known)

    def _forget_deleted(self) -> None:
        """Forget files that were deleted while no engine was alive, as one that is alive does at once."""
        if self._deleted_are_forgotten:
            return
        self._deleted_are_forgotten, now = True, self._clock.now()

        def forget(connection: Connection) -> None:
            for stored in dag_queries.paths(connection):
                if not self._is_there(stored):
                    dag_queries.forget_file(connection, stored, now)

        self._database.write(forget)

    def _forget(self, path: Path, known: ParsedFileStamps) -> None:
        del self._known[path]
        stored, now = known.source.path, self._clock.now()
        self._database.write(lambda connection: dag_queries.forget_file(connection, stored, now))

    # -- one parse -------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        if self._parsing is None and self._queue and not self._closed:
            known = self._queue.pop(0)
            ahead = self._ahead.pop(known.path, None)
            if ahead is not None and ahead.source == known.source:
                self._hear(_Parsing(known, ahead.stamp), ahead.answer)
                return
            if ahead is not None:
                ahead.answer.close()
            self._parse(_Parsing(known, stamp(known.path)))

    def _parse(self, parsing: _Parsing) -> None:
        request = ParseFile(parsing.known.source, str(self._project.root), str(self._project.home.path))
        try:
            parsing.worker = self._worker()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            self._put_off(parsing.known, error)
            return
        self._is_short = False
        self._hear(parsing, ours)
        with theirs:
            parsing.killed_before = parsing.worker.memory.look()
            parsing.worker.parse(Parse(request), theirs.fileno())

    def _put_off(self, known: ParsedFileStamps, error: OSError) -> None:
        if not self._is_short:
            log.warning("pipeline files are read later: no process can be started: %s", error.strerror or error)
        self._is_short, self._parsing, self._queue = True, None, [known, *self._queue]
        self._reactor.call_later(HOLD_UP_SECONDS, self._next)

    def _hear(self, parsing: _Parsing, answer: socket.socket) -> None:
        self._parsing = parsing
        parsing.began = self._clock.monotonic()

        def heard(message: bytes) -> None:
            try:
                said = msgspec.json.decode(message, type=FromParser)
            except (msgspec.DecodeError, RecursionError) as error:
                # no worker of ours says such a thing; what does has come by its line
                peer.hang_up()
                self._ended(parsing, _unheard(parsing, f"it answered what cannot be understood: {error}"))
                return
            match said:
                case ParseStarted(pid):
                    parsing.pid = pid
                case ChildEnded() as ended:
                    parsing.ended(ended)
                case ParseResult() as result:
                    peer.hang_up()
                    self._ended(parsing, result)

        peer = FramedSocket(self._reactor, answer, on_message=heard, on_close=lambda: self._silent(parsing))
        parsing.peer = peer
        seconds = self._settings.dag_processor.parse_timeout_seconds
        parsing.timer = self._reactor.call_later(seconds, lambda: self._time_out(parsing, peer))
        if parsing.known.path not in self._in_turn:
            parsing.hold_up = self._reactor.call_later(HOLD_UP_SECONDS, lambda: self._put_behind(parsing, peer))

    def _put_behind(self, parsing: _Parsing, peer: FramedSocket) -> None:
        """Read the files that wait for this one first: it may hang."""
        if not self._queue or parsing.pid is None:
            parsing.hold_up = self._reactor.call_later(HOLD_UP_SECONDS, lambda: self._put_behind(parsing, peer))
            return
        parsing.cancel_timers()
        peer.hang_up()
        _kill(parsing)
        self._parsing = None
        self._in_turn.add(parsing.known.path)
        self._queue.append(parsing.known)
        self._next()

    def _time_out(self, parsing: _Parsing, peer: FramedSocket) -> None:
        # one that has not begun waits for a worker that hangs in another file: it is not to blame
        parsing.timed_out = parsing.pid is not None
        _kill(parsing)
        peer.close()

    def _silent(self, parsing: _Parsing) -> None:
        """The child ended (or was ended) without an answer."""
        # of processor time it has as much as of time
        parsing.timed_out |= parsing.exit.signal == signal.SIGXCPU
        lost = judge_exit(parsing.exit).lost
        crashes, kills = parsing.crashes + (not lost), parsing.kills + lost
        if not parsing.timed_out and crashes < CRASHES and kills < KILLS:
            parsing.cancel_timers()
            known = parsing.known
            self._parse(_Parsing(known, stamp(known.path), crashes=crashes, kills=kills))
            return
        path = parsing.known.source.path
        seconds = self._settings.dag_processor.parse_timeout_seconds
        if parsing.timed_out:
            message = (
                f"{path}: importing it took longer than {seconds:g} s: a pipeline file must only describe, "
                "not load or compute (dag_processor.parse_timeout_seconds sets the limit)"
            )
        elif lost:
            message = (
                f"{path}: the process that imports it was killed {kills} times; see who does that, and start again"
            )
        else:
            message = f"{path}: the process that imported it ended without an answer ({_how(parsing.exit)})"
        self._ended(parsing, ParseResult(problem=ParseProblem(message, path=path)))

    def _ended(self, parsing: _Parsing, result: ParseResult) -> None:
        parsing.cancel_timers()
        self._parsing = None
        known = parsing.known
        took = self._clock.monotonic() - parsing.began
        if not parsing.again and stood_still(took, self._settings.dag_processor.parse_timeout_seconds):
            log.warning("%s is read again: this process stood still, others may have read a newer file", known.path)
            self._parse(_Parsing(known, stamp(known.path), again=True))
            return
        self._in_turn.discard(known.path)
        problem = self._store(known, result)
        # one that took too long is left alone until it changes: it would keep the others from being read
        failed = problem is not None and not parsing.timed_out
        known.read_with(parsing.before, result.modules, failed=failed)
        known.waited_for_another &= problem is not None
        if isinstance(problem, DefinedTwice) and self._read_first(self._project.root / problem.other, known):
            self._next()
            return
        self._on_parsed(known.path, problem)
        self._next()

    def _read_first(self, other: Path, known: ParsedFileStamps) -> bool:
        """Have another file read first, and then this one again; False where it is known what that file says now."""
        if known.waited_for_another:
            return False
        known.waited_for_another = True
        earlier = self._known.setdefault(other, ParsedFileStamps(DagSource(self._project.relative(other), {}), other))
        if not earlier.is_stale:
            return False
        self._queue = [earlier, known, *(file for file in self._queue if file not in (earlier, known))]
        return True

    def _store(self, known: ParsedFileStamps, result: ParseResult) -> ParseProblem | None:
        try:
            return self._database.write(partial(self._keep, known.source, result))
        except Exception as error:
            if not is_refusal(error):
                raise
            return self._not_kept(known, error)

    def _keep(self, source: DagSource, result: ParseResult, connection: Connection) -> ParseProblem | None:
        return dag_queries.store_result(connection, source, result, self._clock.now(), is_there=self._is_there)

    def _not_kept(self, known: ParsedFileStamps, error: Exception) -> ParseProblem:
        """What came out of a file cannot be stored: that is what is wrong with it."""
        log.error("what %s gives cannot be kept", known.path, exc_info=error)
        reason = presentable(str(getattr(error, "orig", None) or error), _MESSAGE_CHARACTERS)
        path = known.source.path
        problem = ParseProblem(f"{path}: what it gives cannot be kept: {type(error).__name__}: {reason}", path=path)
        try:
            self._database.write(partial(self._keep, known.source, ParseResult(problem=problem)))
        except Exception as second:
            if not is_refusal(second):
                raise
            log.error("nor can it be kept what is wrong with %s", known.path, exc_info=second)
        return problem

    def _is_there(self, stored: str) -> bool:
        return (self._project.root / stored).exists()

    def close(self) -> None:
        """End the parse that is under way; nothing else is read."""
        self._closed = True
        for ahead in self._ahead.values():
            ahead.answer.close()
        parsing, self._parsing = self._parsing, None
        if parsing is None:
            return
        parsing.cancel_timers()
        _kill(parsing)
        if parsing.peer is not None:
            parsing.peer.hang_up()


def _unheard(parsing: _Parsing, why: str) -> ParseResult:
    path = parsing.known.source.path
    return ParseResult(problem=ParseProblem(f"{path}: the process that imported it failed: {why}", path=path))


def _how(exit: ProcessExit) -> str:
    if exit.out_of_memory:
        return "the kernel killed it because memory ran out"
    return ended_in_words(exit.code, exit.signal)


def _kill(parsing: _Parsing) -> None:
    """End the child that imports, with whatever it has started."""
    if parsing.pid is not None:
        signal_group(parsing.pid, signal.SIGKILL)
