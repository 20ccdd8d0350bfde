"""A simulated process: an attempt that can be killed, cut off and told to stop between any two of its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from trainflow.errors import TaskTerminated
from trainflow.messages.exits import ProcessExit
from trainflow.messages.outcome import Outcome
from trainflow.messages.requests import Failed, Progress, Refused, Reply, Request, Saved, Start
from trainflow.messages.workload import AttemptKey
from trainflow.metadata.execution_service import decode_request
from trainflow.testing.simulation.worker import Attempt, Misfortune, Silence, Work, attempt

_REPLIES: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


class ControlPlane(Protocol):
    """What a process can reach of the control plane."""

    def answer(self, process: Process, request: Request) -> Reply | None:
        """The answer of an engine; None when there is none, or it went away over it."""
        ...

    def spool(self, outcome: Outcome) -> None:
        """Leave an outcome in the home, for the next engine."""
        ...


class Process:
    """One process with one attempt in it."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.exit: ProcessExit | None = None
        self.fails_next: Callable[[], BaseException] | None = None
        self.loses_reply = False
        self._attempt: Attempt = attempt(work)
        self._asks: Request | None = None
        self._stopped = False
        self._advance(lambda: next(self._attempt))

    @property
    def key(self) -> AttemptKey:
        return self.work.workload.key

    @property
    def alive(self) -> bool:
        return self.exit is None

    @property
    def waits_for_answer(self) -> bool:
        """It can only go on when an engine answers."""
        return self._asks is not None and not isinstance(self._asks, Outcome | Progress)

    @property
    def name(self) -> str:
        """For people."""
        number = f".{self.key.deferral_number}" if self.key.deferral_number else ""
        return f"process {self.work.pid} ({self.work.workload.task_id} {self.key.attempt_id[-4:]}{number})"

    def kill(self, number: int = 9) -> None:
        """End at once."""
        if self.alive:
            self.exit = ProcessExit(signal=number)
            self._attempt.close()

    def step(self, control: ControlPlane) -> str:
        """Go to the next point where it could be killed. Returns what it did."""
        if isinstance(self._asks, Outcome):
            return self._conclude(self._asks, control)
        if self.work.told_to_stop and not self._stopped and not isinstance(self._asks, Start):
            self._stopped = True
            self._advance(lambda: self._attempt.throw(TaskTerminated("was told to stop")))
            return "is told to stop"
        if self.fails_next is not None and not isinstance(self._asks, Start):
            error, self.fails_next = self.fails_next(), None
            self._advance(lambda: self._attempt.throw(error))
            return f"meets {type(error).__name__}"
        if self._asks is not None:
            return self._ask(self._asks, control)
        said = self._advance(lambda: next(self._attempt))
        return f"goes on{said}"

    def _ask(self, request: Request, control: ControlPlane) -> str:
        name = type(request).__name__
        reply = control.answer(self, _over_the_wire(request))
        if isinstance(request, Progress | Saved):
            self._advance(lambda: self._attempt.send(None))
            return name
        if reply is None:
            return f"{name}: nobody answers"
        if self.loses_reply:
            self.loses_reply = False
            return f"{name}: the reply is lost"
        reply = _REPLIES.decode(msgspec.json.encode(reply))
        refused = isinstance(reply, Refused) and not isinstance(request, Start)
        if isinstance(reply, Failed):
            raise AssertionError(f"{request} was answered {reply}")
        if refused:
            self._advance(lambda: self._attempt.throw(TaskTerminated("stale")))
        else:
            self._advance(lambda: self._attempt.send(reply))
        return f"{name}: {type(reply).__name__}"

    def _conclude(self, outcome: Outcome, control: ControlPlane) -> str:
        """A report that nobody answers is left in the home."""
        reply = control.answer(self, _over_the_wire(outcome))
        if reply is None or self.loses_reply:
            control.spool(outcome)
            said = "spooled"
        else:
            said = type(reply).__name__
        self._advance(lambda: self._attempt.send(reply))
        return f"Outcome {outcome.state}: {said}"

    def _advance(self, go: Callable[[], Request | str]) -> str:
        try:
            point = go()
        except StopIteration as stop:
            self._asks = None
            self.exit = ProcessExit(code=stop.value)
            return ": ends"
        if isinstance(point, str):
            self._asks = None
            return f": {point}"
        self._asks = point
        return ""


def _over_the_wire(request: Request) -> Request:
    return decode_request(msgspec.json.encode(request))


def misfortune() -> BaseException:
    """The training function raises."""
    return Misfortune("the training function raised")


def silence() -> BaseException:
    """The training function ends the process as if all were well."""
    return Silence()
