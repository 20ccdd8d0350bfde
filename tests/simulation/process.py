"""A simulated process: an attempt that can be killed, cut off and told to stop between any two of its steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import msgspec

from tests.simulation.training import TrainingFailed
from tests.simulation.worker import SimulatedAttempt, SimulatedStop, fiber_of
from trainflow.messages.execution_api import Failed, Outcome, Progress, Reply, Request, RowsSaved, Start
from trainflow.messages.workload import AttemptKey, ProcessExit

_REPLIES: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)
_SIGTERM = 15


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

    def __init__(self, work: SimulatedAttempt) -> None:
        self.work = work
        self.exit: ProcessExit | None = None
        #: what it does instead of its next step
        self.meets_next: Callable[[Process], str] | None = None
        self.loses_reply = False
        #: what the network does to its next message
        self.loses_message = self.doubles_message = False
        #: before its task was over
        self.was_told_to_stop = False
        self._stop = SimulatedStop()
        self.fiber = fiber_of(work, self._stop)
        self._at: Any = None
        self._advance(self.fiber.run)

    @property
    def key(self) -> AttemptKey:
        return self.work.workload.key

    @property
    def alive(self) -> bool:
        return self.exit is None

    @property
    def has_begun(self) -> bool:
        """Whether it has claimed its task instance."""
        return not isinstance(self._at, Start)

    @property
    def waits_for_answer(self) -> bool:
        """It can only go on when an engine answers."""
        needs_none = (Progress, RowsSaved) if self.work.is_remote else (Outcome, Progress, RowsSaved)
        return isinstance(self._at, msgspec.Struct) and not isinstance(self._at, needs_none)

    @cached_property
    def name(self) -> str:
        """For people."""
        number = f".{self.key.deferral_number}" if self.key.deferral_number else ""
        return f"process {self.work.pid} ({self.work.workload.task_id} {self.key.attempt_id[-4:]}{number})"

    def kill(self, number: int = 9) -> None:
        """End at once."""
        self._end(ProcessExit(signal=number))

    def _end(self, exit: ProcessExit) -> None:
        if self.alive:
            self.exit = exit
            self.fiber.kill()

    def step(self, control: ControlPlane) -> str:
        """Go to the next point where it could be killed. Returns what it did."""
        if isinstance(self._at, Outcome):
            return self._report_outcome(self._at, control)
        if self.work.told_to_stop and not self._stop.received:
            self.was_told_to_stop = self._stop._raises
            self._advance(lambda: self.fiber.interrupt(lambda: self._stop._told(_SIGTERM, None)))
            return "is told to stop"
        if self.meets_next is not None and self._stop._raises:  # not before it has begun, nor when it is over
            meets, self.meets_next = self.meets_next, None
            return meets(self)
        if isinstance(self._at, msgspec.Struct):
            return self._ask(self._at, control)
        did = self._at
        self._advance(self.fiber.run)
        return str(did)

    def _ask(self, request: Any, control: ControlPlane) -> str:
        name = type(request).__name__
        reply = self._sent(request, control)
        if isinstance(request, Progress | RowsSaved):
            self._advance(self.fiber.run)
            return name
        if reply is None:
            return f"{name}: no answer"
        if self.loses_reply:
            self.loses_reply = False
            return f"{name}: the reply is lost"
        reply = _REPLIES.decode(msgspec.json.encode(reply))
        if isinstance(reply, Failed):
            raise AssertionError(f"{request} was answered {reply}")
        self._advance(lambda: self.fiber.run(reply))
        return f"{name}: {type(reply).__name__}"

    def _report_outcome(self, outcome: Outcome, control: ControlPlane) -> str:
        """A report that is not answered is left in the home, where there is one; or it is made again."""
        reply = self._sent(outcome, control)
        if self.work.is_remote and (reply is None or self.loses_reply):
            self.loses_reply = False
            return f"Outcome {outcome.state}: no answer"
        if reply is None or self.loses_reply:
            control.spool(outcome)
            said = "spooled"
        else:
            said = type(reply).__name__
        self._advance(lambda: self.fiber.run(reply))
        return f"Outcome {outcome.state}: {said}"

    def _sent(self, request: Any, control: ControlPlane) -> Reply | None:
        """Send a message over the line, or the network. Returns the answer, None where none comes."""
        if self.loses_message:
            self.loses_message = False
            return None
        if self.doubles_message:
            self.doubles_message = False
            control.answer(self, _over_the_wire(request))
        return control.answer(self, _over_the_wire(request))

    def _advance(self, go: Callable[[], Any]) -> None:
        self._at = go()
        if self.fiber.ended:
            self.exit = ProcessExit(code=self.fiber.result)

    # -- what it may meet ------------------------------------------------------------------------------------------

    def misfortune(self) -> str:
        """The training function raises."""
        self._advance(lambda: self.fiber.interrupt(_raise))
        return "meets TrainingFailed"

    def silence(self) -> str:
        """The training function ends the process as if all were well."""
        self._end(ProcessExit(code=0))
        return "ends and says nothing"


def _raise() -> None:
    raise TrainingFailed("the training function raised")


def _over_the_wire(request: Any) -> Request:
    as_sent: Request = msgspec.json.decode(msgspec.json.encode(request), type=Request)
    return as_sent
