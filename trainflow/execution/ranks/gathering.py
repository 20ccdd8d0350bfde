"""The first rank: waits until all others are there, before the attempt is claimed."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

from trainflow.clock import Clock
from trainflow.errors import EngineError
from trainflow.execution.http_api_client import ApiUnreachable, HttpApiClient
from trainflow.execution.ranks.handshake import HandshakeFailed, RankKey, keep_alive, welcome
from trainflow.messages.execution_api import Failed, MeetRanks, RanksMeet, Refused
from trainflow.messages.workload import AttemptKey

log = logging.getLogger(__name__)

#: seconds between two questions whether the attempt is still waited for
_ASK_SECONDS = 10.0
_TURN_SECONDS = 0.5
#: connections that may be about to say who they are
_MOST_UNKNOWN = 64


def own_address(api_url: str) -> str:
    """The address that this host has towards the API server. Raises OSError."""
    parts = urlsplit(api_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    family, kind, _, _, place = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(place)  # nothing is sent
        return str(probe.getsockname()[0])


class RanksNotWanted(Exception):
    """The attempt is not waited for any more, or another first rank has taken over."""


class RankGathering:
    """Listens for the other ranks of an attempt."""

    def __init__(
        self, key: AttemptKey, nodes: int, claim_secret: str, *, host: str, lost_after_seconds: float, clock: Clock
    ) -> None:
        """`host`: the address of this host, as the others reach it. Raises OSError where it is none."""
        self._key, self._nodes = key, nodes
        self._rank_key = RankKey.of(key, claim_secret)
        self._lost_after = lost_after_seconds
        self._clock = clock
        self._listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=min(nodes, 1024)
        )
        port = self._listener.getsockname()[1]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._come: SimpleQueue[tuple[int, socket.socket]] = SimpleQueue()
        self._unknown = threading.Semaphore(_MOST_UNKNOWN)
        self._ranks: dict[int, socket.socket] = {}

    def gather(self, client: HttpApiClient, check_stop: Callable[[], None]) -> list[socket.socket]:
        """Wait for the others; connections to them, in order. `check_stop` is called twice a second, and raises to end
        it. Raises RanksNotWanted, and EngineError when the API server was away for too long."""
        self._heard(client.ask(MeetRanks(self._key, self.address)))
        asked = self._clock.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while len(self._ranks) < self._nodes - 1:
                check_stop()
                self._turn(selector)
                if self._clock.monotonic() - asked >= _ASK_SECONDS:
                    asked = self._clock.monotonic()
                    with contextlib.suppress(ApiUnreachable):
                        self._heard(client.ask_once(MeetRanks(self._key)))
        log.info("all %d ranks of attempt %s are there", self._nodes, self._key.attempt_id)
        return [self._ranks[rank] for rank in sorted(self._ranks)]

    def _heard(self, answer: object) -> None:
        if isinstance(answer, Refused):
            raise RanksNotWanted(answer.reason)
        if isinstance(answer, Failed):
            raise EngineError(f"the other ranks are not waited for: {answer.message}")
        if isinstance(answer, RanksMeet) and answer.address != self.address:
            raise RanksNotWanted("another process is its first rank")

    def _turn(self, selector: selectors.BaseSelector) -> None:
        for found, _ in selector.select(_TURN_SECONDS):
            if found.fileobj is self._listener:
                self._accept()
            else:
                # a rank says nothing before it is told to begin: it is gone
                self._forget(selector, found.data)
        with contextlib.suppress(Empty):
            while True:
                rank, connection = self._come.get_nowait()
                if rank in self._ranks:
                    self._forget(selector, rank)
                self._ranks[rank] = connection
                selector.register(connection, selectors.EVENT_READ, rank)
                log.info("rank %d of %d is there", rank, self._nodes)

    def _forget(self, selector: selectors.BaseSelector, rank: int) -> None:
        connection = self._ranks.pop(rank)
        selector.unregister(connection)
        connection.close()
        log.info("rank %d of %d is gone again", rank, self._nodes)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            if not self._unknown.acquire(blocking=False):
                connection.close()
                return
            threading.Thread(target=self._welcome, args=(connection,), name="handshake", daemon=True).start()

    def _welcome(self, connection: socket.socket) -> None:
        try:
            keep_alive(connection, self._lost_after)
            self._come.put((welcome(connection, self._rank_key, self._nodes), connection))
        except (HandshakeFailed, OSError) as error:
            log.warning("a connection is refused: %s", error)
            connection.close()
        finally:
            self._unknown.release()

    def close(self) -> None:
        """Listen no more, and let go of the connections: the process of the attempt has its own."""
        self._listener.close()
        with contextlib.suppress(Empty):
            while True:
                self._come.get_nowait()[1].close()
        for connection in self._ranks.values():
            connection.close()
