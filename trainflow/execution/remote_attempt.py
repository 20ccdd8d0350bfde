"""What a supervisor says to the API server for an attempt on this host: heartbeats, progress, its log, its requests.

A thread of its own says what needs no answer. Of progress only the newest is kept: when the server was away for hours,
it hears how far the attempt is, not how it got there. Only an explicit answer ends an attempt: `on_refused` is called
then, once; an attempt that says how it ends is told so by the answer to that.

The log is sent on as it grows: all of it, or its beginning and its end where it grows faster. The file is on the disk
of a worker, which has no place for whatever a task prints. So what was sent is cut away from time to time, and what is
too far behind is left out; in its place stands how much that was. The process of the attempt appends to the file,
whatever was cut.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from trainflow.execution.http_api_client import OTHER_INSTALLATION, ApiUnreachable, HttpApiClient
from trainflow.humanize import bytes_text
from trainflow.messages.execution_api import (
    OUTCOME_REFUSED,
    AppendLog,
    AttemptFailure,
    Done,
    Failed,
    Heartbeat,
    LogTaken,
    Outcome,
    OutcomeState,
    ProcessEnded,
    Progress,
    RanksMeet,
    Refused,
    Reply,
    Request,
    RowsSaved,
    Start,
    Started,
)
from trainflow.messages.http_protocol import LOG_CHUNK
from trainflow.messages.workload import AttemptKey
from trainflow.observability.redaction import presentable

log = logging.getLogger(__name__)

#: progress and log are sent this often at most
TELL_SECONDS = 1.0
_PROBLEM_CHARACTERS = 4_000


class AttemptSession:
    """Answers the process of an attempt as an engine of its host would."""

    def __init__(
        self,
        client: HttpApiClient,
        key: AttemptKey,
        *,
        heartbeat_seconds: float,
        on_refused: Callable[[str], None],
        log_file: Path | None = None,
        call_later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        """`on_refused`: called from a thread of this session, with the reason, when the attempt is not waited for any
        more. `log_file`: what is written to it is sent along. `call_later`: has a call made in so many seconds, so that
        an attempt that has ended by then needs no thread; None: the thread is there from the claim on."""
        self._client = client
        self._key = key
        self._heartbeat_seconds = heartbeat_seconds
        self._on_refused = on_refused
        self._log = LogTail(client, key, log_file) if log_file is not None else None
        self._call_later = call_later
        self._newest: dict[type[Progress | RowsSaved], Progress | RowsSaved] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        #: the attempt says how it ends, or has
        self._reports = False
        self._refused: Refused | None = None
        self._thread: threading.Thread | None = None

    def handle(self, request: Request) -> Reply:
        """See `trainflow.messages.execution_api.ExecutionApi`. What needs no answer is not waited for."""
        if isinstance(request, Progress | RowsSaved):
            with self._lock:
                self._newest[type(request)] = _with_curves_of(self._newest.get(type(request)), request)
            return self._refused or Done()
        if isinstance(request, Outcome):
            # what is left to say of the way there is worth nothing any more
            with self._lock:
                self._newest.clear()
                self._reports = True
            return self._report(request)
        reply = self._client.handle(request)
        if isinstance(request, Start) and isinstance(reply, Started):
            self._begin()
        if isinstance(reply, Refused) and not isinstance(request, Start):
            self._refuse(reply)
        return reply

    @property
    def is_misled(self) -> bool:
        """Whether the last answer was one of another control plane."""
        return self._client.is_misled

    def _report(self, outcome: Outcome) -> Reply:
        """Say how the attempt ended; where the server cannot take that, whenever it is sent, that it failed by it."""
        reply = self._client.handle(outcome)
        if not isinstance(reply, Failed) or reply.error in (OUTCOME_REFUSED, OTHER_INSTALLATION):
            return reply
        why = f"the API server does not take its outcome ({outcome.state}): {reply.message}"
        retryable = outcome.problem is None or outcome.problem.retryable
        problem = AttemptFailure(presentable(why, _PROBLEM_CHARACTERS), kind=reply.error, retryable=retryable)
        instead = Outcome(outcome.key, OutcomeState.FAILED, problem=problem, saved_rows=outcome.saved_rows)
        said = self._client.handle(instead)
        return Failed(OUTCOME_REFUSED, problem.message) if isinstance(said, Done) else said

    def say(self, message: ProcessEnded) -> Reply:
        """Say how the process ended, and go on until it was heard. Raises EngineError as `HttpApiClient.handle`. How
        far it was is said before, if there is an answer: nothing is heard of an attempt that has ended."""
        self._try(self._tell)
        answer = self._client.ask(message)
        return answer if not isinstance(answer, LogTaken | RanksMeet) else Done()

    def _begin(self) -> None:
        pause = min(TELL_SECONDS, self._heartbeat_seconds)
        if self._call_later is None:
            self._tell_from_now_on(pause)
        else:
            self._call_later(pause, lambda: self._tell_from_now_on(0.0))

    def _tell_from_now_on(self, first_pause: float) -> None:
        with self._lock:  # `close` comes from another thread, and joins only one that was started
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._go_on, args=(first_pause,), name="heartbeat", daemon=True)
                self._thread.start()

    def _go_on(self, pause: float) -> None:
        silent = self._heartbeat_seconds  # the first at once: claimed, and alive
        while not self._ended.wait(pause):
            pause = min(TELL_SECONDS, self._heartbeat_seconds)
            silent += pause
            if silent >= self._heartbeat_seconds and self._try(self._say_alive):
                silent = 0.0
            self._try(self._tell)
            if self._log is not None:
                self._try(self._log.send)

    def _try(self, say: Callable[[], object]) -> bool:
        """Say one thing, whatever becomes of the others: a log that no disk takes keeps no heartbeat from being
        heard."""
        try:
            say()
        except ApiUnreachable as away:
            log.debug("the API server does not answer: %s", away)
            return False
        except Exception:
            # a thread that is gone would be taken for an attempt that is
            log.exception("a heartbeat could not be sent")
            return False
        return True

    def _say_alive(self) -> None:
        self._said(self._client.ask_once(Heartbeat(self._key)))

    def _tell(self) -> None:
        with self._lock:
            waiting, self._newest = list(self._newest.values()), {}
        for number, message in enumerate(waiting):
            try:
                self._said(self._client.ask_once(message))
            except ApiUnreachable:
                with self._lock:
                    for each in waiting[number:]:
                        self._newest[type(each)] = _with_curves_of(each, self._newest.get(type(each), each))
                raise

    def _said(self, answer: object) -> None:
        if isinstance(answer, Refused):
            self._refuse(answer)

    def _refuse(self, answer: Refused) -> None:
        with self._lock:
            first, self._refused = self._refused is None, answer
            ends = self._reports or self._ended.is_set()
        if first and not ends:
            self._on_refused(answer.reason)

    def give_up(self) -> None:
        """Wait for no answer any more: its worker ends."""
        self._ended.set()
        self._client.give_up()

    def close(self, patience_seconds: float = 10.0) -> None:
        """Say no more; send what is left of the log, unless that takes longer than `patience_seconds`."""
        with self._lock:
            self._ended.set()
            thread = self._thread
        if thread is not None:
            thread.join(patience_seconds)
        if self._log is not None and (thread is None or not thread.is_alive()):
            self._log.finish(patience_seconds)
        self._client.close()


def _with_curves_of(earlier: Progress | RowsSaved | None, newer: Progress | RowsSaved) -> Progress | RowsSaved:
    """What is still to be said after both: curves are told now and then, and one that was not sent is none."""
    if isinstance(earlier, Progress) and isinstance(newer, Progress) and earlier.curves and not newer.curves:
        return msgspec.structs.replace(newer, curves=earlier.curves)
    return newer


#: bytes that are sent and cut away, that may wait to be sent, and that are kept of what is left out
_CUT, MOST_BEHIND, KEPT = 16 << 20, 64 << 20, 1 << 20
#: seconds for which one call sends at most: heartbeats come in between
_TURN_SECONDS = 0.5
_FULL = "\n… the disk of the worker was full: some of what was printed is missing here …\n"


class LogTail:
    """Sends a log on as it grows. Used by one thread at a time."""

    def __init__(self, client: HttpApiClient, key: AttemptKey, path: Path) -> None:
        self._client = client
        self._key = key
        self._path = path
        #: how much the server has, how far the file was read, and what of that the server has not taken yet
        self._taken = self._read = 0
        self._waiting = b""

    def send(self) -> bool:
        """Send what is new, for a moment; returns whether there may be more. Raises ApiUnreachable."""
        end = time.monotonic() + _TURN_SECONDS
        self._leave_out(MOST_BEHIND)
        while self._waiting or self._take_next():
            answer = self._client.ask_once(AppendLog(self._key, self._taken, self._waiting[:LOG_CHUNK]))
            if not isinstance(answer, LogTaken):
                if isinstance(answer, Failed):
                    log.warning("the log is not taken: %s", answer.message)
                return False
            self._waiting = self._waiting[max(answer.size - self._taken, 0) :]
            self._taken = answer.size
            if time.monotonic() >= end:
                return True
        return False

    def finish(self, patience_seconds: float) -> None:
        """Send the rest, as long as there is an answer; where that takes longer, the end of it."""
        end = time.monotonic() + patience_seconds
        try:
            while self.send():
                if time.monotonic() >= end:
                    self._leave_out(KEPT)
                    while self.send():
                        pass
        except ApiUnreachable as away:
            log.warning("the end of the log was not sent: %s", away)

    def _take_next(self) -> bool:
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                self._waiting = file.read(LOG_CHUNK)
                self._read += len(self._waiting)
                if not self._waiting and self._read and os.fstat(file.fileno()).st_size == self._read:
                    self._make_room(os.fstatvfs(file.fileno()).f_bavail == 0)
        except FileNotFoundError:
            return False
        return bool(self._waiting)

    def _leave_out(self, most: int) -> None:
        """Where more than `most` bytes of the file were not read yet, go on with the end of it."""
        try:
            size = self._path.stat().st_size
            if size - self._read <= most:
                return
            with self._path.open("rb") as file:
                file.seek(size - KEPT)
                kept = file.read(KEPT)
        except FileNotFoundError:
            return
        left_out = bytes_text(size - KEPT - self._read)
        log.warning("%s of the log of attempt %s are left out", left_out, self._key.attempt_id)
        note = f"\n… {left_out} are left out here: the log grew faster than it could be sent …\n"
        self._waiting += note.encode() + kept
        self._cut()

    def _make_room(self, is_full: bool) -> None:
        """Cut away what was sent, where that is much, or the disk is full: what was printed since then is lost."""
        if is_full:
            self._waiting = _FULL.encode()
        if is_full or self._read >= _CUT:
            self._cut()

    def _cut(self) -> None:
        os.truncate(self._path, 0)
        self._read = 0
