"""The socket of a home: attempts on this host reach the execution API here, and any process may nudge the engine.

What an attempt wrote to disk because no engine was there to hear it is applied from here too.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from trainflow.errors import EngineError, StateError
from trainflow.executors.framed_socket import FramedSocket
from trainflow.executors.reactor import Reactor
from trainflow.messages import frames
from trainflow.messages.execution_api import ExecutionApi, Failed, Outcome, Progress, Reply, Request, RowsSaved
from trainflow.messages.workload import AttemptKey
from trainflow.metadata.applied_change import AppliedChange
from trainflow.settings.home import Home

log = logging.getLogger(__name__)

#: a frame that asks for nothing: the sender has changed the database
NUDGE = b'"nudge"'
#: how a frame begins that tells exactly what was changed there: a JSON list of this word and an `AppliedChange`
_CHANGED = b'["changed",'
#: descriptors of this process or of the machine, or memory for them, are used up
_USED_UP = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE_SECONDS = 1.0
#: how often it is seen to that the socket is where attempts look for it: an attempt looks for 5 s
_KEEP_SECONDS = 2.0


class ExecutionSocket:
    """Listens for attempts; answers each request with one call of the execution API."""

    def __init__(
        self,
        reactor: Reactor,
        api: ExecutionApi,
        path: Path,
        *,
        on_change: Callable[[AppliedChange], None] = lambda _change: None,
    ) -> None:
        """`on_change`: told of what an API server has changed for an attempt on another host."""
        self._reactor = reactor
        self._on_change = on_change
        self._api = api
        self._path = path
        self._decoder = msgspec.json.Decoder(Request)
        self._encoder = msgspec.json.Encoder()
        self._peers: set[FramedSocket] = set()
        self._listener = _listen(path)
        self._closed = False
        self._told: str | None = None
        reactor.watch(self._listener, self._accept)
        reactor.call_later(_KEEP_SECONDS, self._keep)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _USED_UP:
                self._pause(error)
            return

        def answer(message: bytes) -> None:
            self._answer(peer, message)

        def forget() -> None:
            self._peers.discard(peer)

        peer = FramedSocket(self._reactor, connection, on_message=answer, on_close=forget)
        self._peers.add(peer)

    def _pause(self, error: OSError) -> None:
        """A new connection stays where it is until a descriptor is free: asked at once, it would be asked for ever."""
        log.error(
            "no attempt can be heard for %g s: %s; raise the limit of open files (ulimit -n)",
            _PAUSE_SECONDS,
            error.strerror,
        )
        self._reactor.unwatch(self._listener)
        self._reactor.call_later(_PAUSE_SECONDS, self._listen_again)

    def _listen_again(self) -> None:
        if not self._closed:
            self._reactor.watch(self._listener, self._accept)

    def _keep(self) -> None:
        """Be where attempts look: folders of temporary files are emptied under those who use them."""
        if self._closed:
            return
        try:
            os.stat(self._path)
        except FileNotFoundError:
            self._replace()
        except OSError as error:
            self._tell(f"{self._path} cannot be looked at: {error.strerror}")
        self._reactor.call_later(_KEEP_SECONDS, self._keep)

    def _replace(self) -> None:
        try:
            listener = _listen(self._path)
        except (EngineError, OSError) as error:
            self._tell(f"{self._path} was removed, and cannot be made anew, so that no attempt can begin: {error}")
            return
        self._reactor.unwatch(self._listener)
        self._listener.close()
        self._listener = listener
        self._reactor.watch(listener, self._accept)
        log.warning("%s was removed, by what cleans that folder: made anew", self._path)
        self._told = None

    def _tell(self, problem: str) -> None:
        if problem != self._told:
            log.error("%s", problem)
        self._told = problem

    def _answer(self, peer: FramedSocket, message: bytes) -> None:
        if message == NUDGE:
            self._reactor.wake()
            return
        if message.startswith(_CHANGED):
            self._on_change(_CHANGES.decode(message)[1])
            return
        try:
            request = self._decoder.decode(message)
        except (msgspec.DecodeError, RecursionError) as error:
            # cut off rather than guess: the attempt reconnects and says it again, or is not ours
            log.warning("a message on the home's socket cannot be understood (%s): connection closed", error)
            peer.close()
            return
        self._respond(request, lambda reply: peer.send(self._encoder.encode(reply)))

    def _respond(self, request: Request, send: Callable[[Reply], None]) -> None:
        reply = self._apply(request)
        if not isinstance(request, Progress | RowsSaved):
            send(reply)

    def _apply(self, request: Request) -> Reply:
        try:
            return self._api.handle(request)
        except Exception as error:
            log.exception("a request of attempt %s could not be answered", request.key.attempt_id)
            return Failed("EngineError", f"the engine could not answer: {error}")

    def close(self) -> None:
        """Hang up. Attempts that still run will look for the next engine at the same place."""
        self._closed = True
        for peer in list(self._peers):
            peer.close()
        self._reactor.unwatch(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)


def _listen(path: Path) -> socket.socket:
    private_folder(path.parent)
    path.unlink(missing_ok=True)  # of an engine that was killed: the lock says that we are the only one
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise EngineError(f"cannot listen on {path}: {error}") from error
    listener.setblocking(False)
    return listener


def private_folder(folder: Path) -> None:
    """Make the folder of sockets; raise EngineError where it is not of this user alone."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise EngineError(
            f"{folder} must belong to this user alone (mode 700): attempts of this user report there. Remove it"
        )


_CHANGES = msgspec.json.Decoder(tuple[str, AppliedChange])


def changed_frame(change: AppliedChange) -> bytes:
    """What tells an engine of a change that another process has made for an attempt."""
    return frames.pack(msgspec.json.encode(("changed", change)))


def nudge(path: Path) -> None:
    """Tell the engine of a home, if there is one, that the database has changed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            connection.sendall(len(NUDGE).to_bytes(4, "big") + NUDGE)
        except OSError:
            return


def apply_spooled(home: Home, api: ExecutionApi, key: AttemptKey) -> bool:
    """Apply the outcome that an attempt wrote to disk, if it did: returns whether. It stays there when it cannot be
    applied now."""
    path = home.outcome(key.attempt_id, key.deferral_number)
    try:
        outcome = msgspec.json.decode(path.read_bytes(), type=Outcome)
    except FileNotFoundError:
        return False
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        log.warning("%s cannot be read (%s): the attempt counts as lost", path, error)
        path.unlink(missing_ok=True)
        return False
    with contextlib.suppress(StateError):
        api.handle(outcome)
    path.unlink(missing_ok=True)
    return True
