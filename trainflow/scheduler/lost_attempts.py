"""Attempts on other hosts that are not heard any more: they count as lost.

They are judged as parts of the control plane are (`Leases`): by a counter that does not rise, on the observer's own
monotonic clock. Only time in which they could have been heard counts: while no API server renewed its lease, the
silence of a worker says nothing about the worker. One that comes back later is told that it is not waited for any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import Connection

from trainflow.messages.workload import AttemptKey, ProcessExit
from trainflow.metadata import attempt_credentials
from trainflow.metadata.attempt_credentials import RemoteAttempt
from trainflow.metadata.database import Database
from trainflow.metadata.leases import Leases
from trainflow.metadata.queries import service_list_queries

log = logging.getLogger(__name__)


class RemoteAttempts:
    """Watches the attempts of one scheduler that speak over HTTP."""

    def __init__(
        self,
        database: Database,
        exited: Callable[[AttemptKey, ProcessExit], object],
        monotonic: Callable[[], float],
        *,
        own: int,
        lost_after_seconds: float,
    ) -> None:
        """`own`: the scheduler. `exited` is told of those that are lost."""
        self._database = database
        self._exited = exited
        self._own = own
        self._lost_after = lost_after_seconds
        self._leases = Leases(monotonic, lost_after_seconds)
        #: the counters of the API servers at the last look
        self._servers: dict[int, int] = {}

    def look(self) -> None:
        """Give up those that have been silent for too long."""
        attempts, servers = self._database.read(self._found)
        before, self._servers = self._servers, servers
        heard = any(beats > before.get(server, beats) for server, beats in servers.items())
        for key in sorted(self._leases.silent(attempts, heard=heard), key=lambda key: key.attempt_id):
            log.warning("attempt %s: its worker has not been heard for %g s", key.attempt_id, self._lost_after)
            reason = (
                f"its worker was not heard for {self._lost_after:g} s (workers.lost_after_seconds); it is refused when "
                "it comes back"
            )
            self._exited(key, ProcessExit(reason=reason))

    def _found(self, connection: Connection) -> tuple[list[RemoteAttempt], dict[int, int]]:
        attempts = attempt_credentials.running_elsewhere(connection, self._own)
        if not attempts:
            return [], {}
        services = service_list_queries.not_stopped(connection)
        servers = [each for each in services if each.kind == service_list_queries.API_SERVER]
        return attempts, {each.id: each.heartbeats or 0 for each in servers}
