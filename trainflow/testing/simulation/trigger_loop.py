"""The simulated loop of triggers, and the real triggerer in front of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import msgspec

from trainflow.executors.peer import Peer
from trainflow.messages.watches import Fired, ToLoop, Unwatch, Watch
from trainflow.testing.simulation.table import SampleTable
from trainflow.testing.simulation.worker import TRIGGER_CLASS
from trainflow.triggerer.triggerer import Triggerer

_TOLD: msgspec.json.Decoder[ToLoop] = msgspec.json.Decoder(ToLoop)


class TriggerLoop:
    """Watches what it is told to watch; speaks as the other end of a `Peer`."""

    def __init__(self, table: SampleTable) -> None:
        self._table = table
        self.watching: dict[int, Watch] = {}
        #: what it sent last, for a message that arrives twice
        self.sent: list[bytes] = []

    def send(self, payload: bytes) -> None:
        """The triggerer says something."""
        message = _TOLD.decode(payload)
        match message:
            case Watch():
                assert message.trigger_class == TRIGGER_CLASS, message
                self.watching.setdefault(message.trigger_id, message)
            case Unwatch(trigger_id):
                self.watching.pop(trigger_id, None)

    def hang_up(self) -> None:
        """The triggerer ends."""
        self.watching.clear()

    @property
    def over(self) -> list[int]:
        """Waits that are over and not reported."""
        return [number for number, watch in self.watching.items() if self._is_over(watch.kwargs)]

    @property
    def next_moment(self) -> datetime | None:
        """When time alone may end a wait."""
        moments = [watch.kwargs["check_again_at"] for watch in self.watching.values()]
        return min((datetime.fromisoformat(moment) for moment in moments if moment), default=None)

    def fire(self, trigger_id: int) -> bytes:
        """The message that a wait is over."""
        del self.watching[trigger_id]
        self.sent.append(msgspec.json.encode(Fired(trigger_id, "it is there")))
        return self.sent[-1]

    def _is_over(self, kwargs: dict[str, Any]) -> bool:
        again = kwargs["check_again_at"]
        start = datetime.fromisoformat(kwargs["partition_start"])
        return self._table.is_over(start, datetime.fromisoformat(again) if again else None)


class SimulatedTriggerer(Triggerer):
    """The triggerer; only the process it starts is simulated."""

    make_loop: Callable[[], TriggerLoop]
    loop: TriggerLoop | None = None

    def _start_loop(self) -> None:
        self.loop = self.make_loop()
        self._peer = cast("Peer", self.loop)

    def deliver(self, message: bytes) -> None:
        """A message of the loop arrives."""
        self._heard(message)

    def loop_dies(self) -> None:
        """The loop's process ends."""
        self.loop = None
        self._loop_ended()
