"""One attempt in the hands of a worker: what is asked for it of the API server, in order, and what became of it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from trainflow.errors import EngineError
from trainflow.execution.remote_attempt import AttemptSession
from trainflow.messages.execution_api import (
    OUTCOME_REFUSED,
    Done,
    Failed,
    Outcome,
    ProcessEnded,
    Refused,
    Reply,
    Request,
    Start,
    Started,
)
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit

log = logging.getLogger(__name__)


class WorkloadEnd(NamedTuple):
    """What became of a workload. `done`: its outcome was delivered, or another worker has the attempt. `is_left`: it
    was not tried, since its worker ends."""

    key: AttemptKey
    done: bool
    message: str
    is_left: bool = False


class HandedAttempt:
    """What was said of one attempt, and its line to the API server. `ask` and `end` are called one after the other,
    `in_order`."""

    def __init__(self, workload: ExecuteTask, session: AttemptSession, threads: ThreadPoolExecutor) -> None:
        self._key = workload.key
        self._api_url = workload.api_url
        #: short and worth finishing
        self.shielded = workload.shielded
        #: its process has ended, and that is being said
        self.ends = False
        #: its process has said a word
        self.begun = False
        self._claimed = False
        self._reported: Reply | None = None
        #: why its claim was refused, or could not be understood
        self._refused: str | None = None
        self._not_claimed: str | None = None
        self._session = session
        self._threads = threads
        self._work: deque[Callable[[], object]] = deque()
        self._works = False
        self._lock = threading.Lock()

    @property
    def is_misled(self) -> bool:
        """Whether another control plane than its own answers."""
        return self._session.is_misled

    def give_up(self) -> None:
        """Wait for no answer any more: its worker ends."""
        self._session.give_up()

    @property
    def has_reported(self) -> bool:
        """Whether the API server has heard how it ended."""
        return self._reported is not None

    def in_order(self, work: Callable[[], object]) -> None:
        """Do something after all that was asked for before."""
        with self._lock:
            self._work.append(work)
            if self._works:
                return
            self._works = True
        with suppress(RuntimeError):  # the worker has ended
            self._threads.submit(self._go_on)

    def _go_on(self) -> None:
        while True:
            with self._lock:
                if not self._work:
                    self._works = False
                    return
                work = self._work.popleft()
            try:
                work()
            except Exception:
                log.exception("attempt %s: something could not be handed on", self._key.attempt_id)

    def ask(self, request: Request) -> Reply:
        """Ask the API server, through its outages."""
        try:
            reply = self._session.handle(request)
        except EngineError as error:
            return Failed("EngineError", str(error))
        except Exception as error:
            log.exception("a request of attempt %s could not be handed on", self._key.attempt_id)
            return Failed("EngineError", f"the worker could not hand it on: {error}")
        match request, reply:
            case Start(), Started():
                self._claimed = True
            case Start(), Refused(reason):
                self._refused = reason
            case Start(), Failed(message=message):
                self._not_claimed = message
            case Outcome(), Failed(error=kind) if kind == OUTCOME_REFUSED:
                self._reported = Done()  # it could not be kept: that is how the attempt has ended
            case Outcome(), _:
                self._reported = reply
        return reply

    def end(self, exit: ProcessExit) -> WorkloadEnd:
        """The process has ended: say so where it has not said how itself."""
        if self._refused is not None:
            return WorkloadEnd(self._key, True, f"not run here: {self._refused} (says {self._api_url})")
        if not self._claimed:
            why = f"{self._not_claimed} (says {self._api_url})" if self._not_claimed is not None else _in_words(exit)
            return WorkloadEnd(self._key, False, f"it never began: {why}")
        if self._reported is None:
            self._reported = self.ask_to_note(exit)
        match self._reported:
            case Refused(reason):
                return WorkloadEnd(self._key, True, f"it changed nothing: {reason}")
            case Failed(message=message):
                return WorkloadEnd(self._key, False, f"how it ended could not be delivered: {message}")
        return WorkloadEnd(self._key, True, "its outcome was delivered")

    def ask_to_note(self, exit: ProcessExit) -> Reply:
        """Tell how the process ended that said nothing itself."""
        try:
            return self._session.say(ProcessEnded(self._key, exit))
        except EngineError as error:
            return Failed("EngineError", str(error))

    def close(self) -> None:
        """Hang up, once what is left of the log was sent."""
        self._session.close()

    def finish(self, exit: ProcessExit, tell: Callable[[WorkloadEnd], object]) -> None:
        """See `end`; then hang up, and tell how it ended: whatever fails on the way, its worker waits for that."""
        ended = WorkloadEnd(self._key, False, "how it ended could not be delivered: see the log above")
        try:
            ended = self.end(exit)
            self.close()
        finally:
            tell(ended)


def _in_words(exit: ProcessExit) -> str:
    if exit.reason is not None:
        return exit.reason
    return f"exit code {exit.code}" if exit.code is not None else f"signal {exit.signal}"
