"""The simulated loop of triggers, and the real triggerer in front of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from typing import Any, NamedTuple

import msgspec

from tests.simulation.table import SampleTable
from trainflow.clock import Clock
from trainflow.messages.triggerer import Fired, ToLoop, Unwatch, Watch
from trainflow.operators.triggers.partition import LOOK_LATER_EVERY, PartitionTrigger
from trainflow.settings.model import Settings
from trainflow.triggerer.loop_process import Loop
from trainflow.triggerer.triggerer import Triggerer

_TOLD: msgspec.json.Decoder[ToLoop] = msgspec.json.Decoder(ToLoop)


class _Look(NamedTuple):
    """What a trigger saw, and the moment and the table it saw."""

    answer: str | None
    of: tuple[datetime, int]


class TriggerLoop(Loop):
    """Runs the triggers it is told to run; speaks as the event loop of a process does."""

    def __init__(self, table: SampleTable, clock: Clock, settings: Settings) -> None:
        super().__init__(self._told)
        self.spoke = True
        self._table = table
        self._clock = clock
        self._settings = settings
        self._watching: dict[int, PartitionTrigger] = {}
        self._looks: dict[int, _Look] = {}
        #: what it sent last, for a message that arrives twice
        self.sent: list[bytes] = []

    def _told(self, payload: bytes) -> None:
        message = _TOLD.decode(payload)
        match message:
            case Watch():
                if message.trigger_id not in self._watching:
                    self._watching[message.trigger_id] = self._made(
                        message.trigger_class, msgspec.json.decode(message.kwargs)
                    )
            case Unwatch(trigger_id):
                self._watching.pop(trigger_id, None)

    def _made(self, trigger_class: str, kwargs: dict[str, Any]) -> PartitionTrigger:
        module, _, name = trigger_class.rpartition(".")
        trigger: PartitionTrigger = getattr(import_module(module), name)(**kwargs, clock=self._clock)
        # settings come from a file of the project, which a simulated one does not have
        trigger.__dict__["_settings"] = self._settings
        # simulated time goes from one moment at which something may happen to the next: a poke a second is none
        trigger.__dict__["_look_later_pause"] = lambda _took: LOOK_LATER_EVERY.total_seconds()
        trigger._look_later_at = trigger._first_look_later()
        return trigger

    def hang_up(self) -> None:
        """The triggerer ends."""
        self._watching.clear()

    @property
    def over(self) -> list[int]:
        """Waits that are over and not reported."""
        return [number for number, trigger in self._watching.items() if self._look(number, trigger) is not None]

    def _look(self, number: int, trigger: PartitionTrigger) -> str | None:
        """What it sees; it sees the same as long as nothing changes, and no time passes."""
        of = (self._clock.now(), self._table.version)
        look = self._looks.get(number)
        if look is None or look.of != of:
            look = self._looks[number] = _Look(trigger.look(), of)
        return look.answer

    @property
    def seconds_left(self) -> float | None:
        """Until time alone may end a wait."""
        moments = [
            moment
            for trigger in self._watching.values()
            for moment in (trigger._look_later_at, trigger._gives_up_at, trigger._may_be_finished_at)
            if moment is not None
        ]
        return min(moments) - self._clock.monotonic() if moments else None

    def fire(self, trigger_id: int) -> bytes:
        """The message that a wait is over."""
        del self._watching[trigger_id]
        answer = self._looks.pop(trigger_id).answer
        self.sent.append(msgspec.json.encode(Fired(trigger_id, msgspec.Raw(msgspec.json.encode(answer)))))
        return self.sent[-1]


class Timers:
    """The part of a reactor that a triggerer needs where there are no file descriptors."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """See `Reactor.call_later`."""
        self._waiting.append((self._clock.monotonic() + seconds, callback))

    @property
    def seconds_left(self) -> float | None:
        """Until the next call; None: there is none."""
        moments = [at for at, _ in self._waiting]
        return min(moments) - self._clock.monotonic() if moments else None

    def run(self) -> None:
        """Make the calls that are due."""
        now = self._clock.monotonic()
        due = [callback for at, callback in self._waiting if at <= now]
        self._waiting = [(at, callback) for at, callback in self._waiting if at > now]
        for callback in due:
            callback()


class SimulatedTriggerer(Triggerer):
    """The triggerer; only the process it starts is simulated."""

    make_loop: Callable[[], TriggerLoop]
    loop: TriggerLoop | None = None

    def _start_loop(self) -> Loop:
        self.loop = self.make_loop()
        return self.loop

    def deliver(self, message: bytes) -> None:
        """A message of the loop arrives."""
        self._heard(self.loop or Loop(lambda _: None), message)

    def loop_dies(self) -> None:
        """The loop's process ends."""
        if self.loop is not None:
            loop, self.loop = self.loop, None
            self._loop_ended(loop)
