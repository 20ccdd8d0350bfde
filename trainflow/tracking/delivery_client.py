"""The engine's end of the deliverer: start the process, hand over deliveries one by one, hear the answers.

Blocking; belongs in a thread of its own. While a delivery is under way the thread waits in `recv`, without the GIL.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from trainflow.bootstrap import interpreter
from trainflow.errors import DelivererLost, ProtocolError
from trainflow.messages.frames import receive, send
from trainflow.tracking.deliveries import Deliver, Delivery, DeliveryReply, OpenStore, ToDeliverer, decode_answer

_STDERR = 2


class DeliveryClient:
    """One running deliverer. Start it when there is something to deliver, close it when it has been idle for a while:
    it holds about 200 MiB."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self._process = process
        self._connection = connection

    @classmethod
    def start(
        cls, target: OpenStore, *, log_file: Path | None = None, command: tuple[str, ...] | None = None
    ) -> DeliveryClient:
        """Start a deliverer. Its log goes to the end of `log_file`, or to this process's stderr.

        `command` replaces `python -m trainflow.tracking.deliverer` (the file descriptor is appended). Returns at once:
        MLflow is imported while the first delivery waits. Raises OSError when no process can be started.
        """
        ours, theirs = socket.socketpair()
        command = command or tuple(interpreter("trainflow.tracking.deliverer"))
        try:
            with theirs, _opened(log_file) as stderr:
                process = subprocess.Popen(
                    [*command, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=stderr or _STDERR,  # what a library prints is log, not protocol
                    stderr=stderr,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # Ctrl-C reaches the engine only, which closes us in good order
                )
        except BaseException:
            ours.close()
            raise
        client = cls(process, ours)
        with contextlib.suppress(DelivererLost):  # the first delivery will say so
            client._send(target)
        return client

    @property
    def pid(self) -> int:
        """Process id of the deliverer."""
        return self._process.pid

    def deliver(self, delivery_id: int, delivery: Delivery, *, timeout_seconds: float = 120.0) -> DeliveryReply:
        """Hand over one delivery and wait for the answer.

        Raises DelivererLost when the process died or did not answer in time: whether MLflow has the delivery is then
        unknown, and delivering it again is safe. The client is of no further use; close it.
        """
        # what is sent may be more than a socket holds: one that hangs takes none of it
        self._connection.settimeout(timeout_seconds)
        self._send(Deliver(delivery_id, delivery))
        try:
            frame = receive(self._connection)
        except (OSError, ProtocolError) as error:
            raise DelivererLost(f"no answer from the MLflow deliverer (process {self.pid}): {error}") from error
        if frame is None:
            code = self._process.wait()
            raise DelivererLost(f"the MLflow deliverer (process {self.pid}) ended with exit code {code}: see its log")
        return decode_answer(frame)

    def close(self, *, grace_seconds: float = 20.0) -> int:
        """Close its input, wait for it to end, kill it after `grace_seconds`. Returns its exit code."""
        self._connection.close()
        try:
            return self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _send(self, message: ToDeliverer) -> None:
        try:
            send(self._connection, msgspec.json.encode(message))
        except OSError as error:
            raise DelivererLost(f"the MLflow deliverer (process {self.pid}) is gone: {error}") from error


@contextlib.contextmanager
def _opened(log_file: Path | None) -> Iterator[IO[bytes] | None]:
    if log_file is None:
        yield None
        return
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as file:
        yield file
