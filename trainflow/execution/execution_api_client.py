"""Speak to the execution API of the home, through its outages.

The engine may be away (killed, restarted, upgraded) while an attempt runs. A request then waits and is sent again to
the next engine, which accepts it if the attempt is still the one its database knows. The final outcome does not
wait: it is written to the home, where the next engine finds it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

from trainflow.clock import Clock
from trainflow.errors import EngineError, ProtocolError
from trainflow.messages import frames
from trainflow.messages.execution_api import Failed, Outcome, Progress, Refused, Reply, Request, RowsSaved, Start
from trainflow.settings.home import Home

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
#: how long a claim looks for an engine
_CLAIM_SECONDS = 5.0

# made when the module is loaded: a warm process does it once for all its children
_REPLIES: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


class ExecutionApiClient:
    """The attempt's line to the engine of its home."""

    def __init__(
        self,
        home: Home,
        *,
        outage_seconds: float,
        clock: Clock,
        sleep: Callable[[float], None],
        connected: socket.socket | None = None,
    ) -> None:
        """`connected`: a line to speak on from the beginning."""
        self._home = home
        self._outage_seconds = outage_seconds
        self._clock = clock
        self._sleep = sleep
        self._socket = connected
        self._owner = os.getpid()

    def open(self) -> None:
        """Connect before there is something to say; that there is no engine is found out when there is."""
        with contextlib.suppress(OSError):
            self._connected()

    def request(self, request: Request) -> Reply:
        """Ask and wait for the answer, for as long as the engine may be away. Raises EngineError after that."""
        self._check_owner()
        payload = msgspec.json.encode(request)
        # an attempt that is not claimed yet has no work to lose: the next engine makes another one
        patience = min(self._outage_seconds, _CLAIM_SECONDS) if isinstance(request, Start) else self._outage_seconds
        deadline = self._clock.monotonic() + patience
        pause = _FIRST_PAUSE_SECONDS
        while True:
            reply = self._try(payload)
            if reply is not None:
                return reply
            if self._clock.monotonic() >= deadline:
                raise EngineError(f"no engine of {self._home.path} answered for {patience:g} s")
            self._sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def tell(self, message: Progress | RowsSaved) -> None:
        """Say something that needs no answer; lost when no engine is there, and in a forked copy of the attempt."""
        if os.getpid() != self._owner:
            return
        try:
            frames.send(self._connected(), msgspec.json.encode(message))
        except OSError:
            self.close()

    def report_outcome(self, outcome: Outcome) -> Reply | None:
        """Report the end of the attempt. None: no engine was there, the outcome lies in the home for the next one."""
        self._check_owner()
        payload = msgspec.json.encode(outcome)
        was_connected = self._socket is not None
        reply = self._try(payload)
        if reply is None and was_connected:
            # the engine it was connected to may be gone and another one be there
            reply = self._try(payload)
        if reply is None:
            self._spool(outcome)
        return reply

    def _check_owner(self) -> None:
        """Two processes on one line would get each other's answers."""
        if os.getpid() != self._owner:
            raise EngineError(
                "a forked copy of the task's process cannot ask or report anything: only the process that runs the "
                "task can. Hand what it found to that one"
            )

    def _try(self, payload: bytes) -> Reply | None:
        """One attempt to get an answer. None when there is no engine, or it could not do it now."""
        try:
            connection = self._connected()
            frames.send(connection, payload)
            answer = frames.receive(connection)
        except (OSError, ProtocolError):
            self.close()
            return None
        if answer is None:
            self.close()
            return None
        reply = _REPLIES.decode(answer)
        if isinstance(reply, Failed) and reply.error == "EngineError":
            return None
        return reply

    def _connected(self) -> socket.socket:
        if self._socket is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(str(self._home.socket_path))
            except OSError:
                connection.close()
                raise
            self._socket = connection
        return self._socket

    def close(self) -> None:
        """Hang up; a later request connects again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _spool(self, outcome: Outcome) -> None:
        """Written beside and renamed: the next engine sees all of it or nothing."""
        path = self._home.outcome(outcome.key.attempt_id, outcome.key.deferral_number)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        _write_durably(temporary, msgspec.json.encode(outcome))
        temporary.replace(path)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def is_refused(reply: Reply | None) -> bool:
    """Whether the answer says that the attempt is stale."""
    return isinstance(reply, Refused)
