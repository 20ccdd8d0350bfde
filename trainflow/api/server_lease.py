"""The lease of an API server, and whether a scheduler lives."""

from __future__ import annotations

import logging
import threading
from typing import NamedTuple

from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.metadata.database import Database
from trainflow.metadata.leases import Leases
from trainflow.metadata.queries import service_list_queries, service_queries
from trainflow.metadata.queries.service_list_queries import Service
from trainflow.observability.processes import hostname, is_alive
from trainflow.settings.model import EngineSettings

log = logging.getLogger(__name__)

#: kinds of parts that decide what runs
_SCHEDULERS = frozenset({"engine", "scheduler"})


class ControlPlaneState(NamedTuple):
    """Whether the control plane works; if not, why, and what to do."""

    ready: bool
    reason: str = ""


NO_SCHEDULER = ControlPlaneState(False, "no scheduler is alive: run 'trainflow standalone' or 'trainflow scheduler'")


class ServerLease:
    """Says from time to time that this server lives, and looks whether a scheduler does. In a thread of its own."""

    def __init__(self, database: Database, clock: Clock, settings: EngineSettings) -> None:
        self._database = database
        self._clock = clock
        self._pause = settings.heartbeat_seconds
        self._leases = Leases(clock.monotonic, settings.dead_after_seconds)
        self._ended = threading.Event()
        self._service_id: int | None = None
        #: what was found at the last look
        self.readiness = NO_SCHEDULER
        #: the control plane that its database is of, at the last look
        self.installation = ""

    def begin(self) -> None:
        """Register, look, and go on with that. Raises what the database raises."""
        self.look()
        threading.Thread(target=self._go_on, name="lease", daemon=True).start()

    def _go_on(self) -> None:
        while not self._ended.wait(self._pause):
            try:
                self.look()
            except Exception as error:
                # whatever it is, it is said and tried again: attempts are heard all the same
                self.readiness = ControlPlaneState(
                    False, f"the metadata database cannot be used: {type(error).__name__}"
                )
                log.warning("the lease of this API server cannot be renewed: %s", error)

    def rehearse(self) -> None:
        """Ask what will be asked, and take it back: what is made of the statements is there before this process is
        forked, and in memory once."""
        with self._database.transaction() as connection:
            self._renew_and_look(connection)
            self._renew_and_look(connection)
            connection.rollback()
        self._service_id = None

    def look(self) -> None:
        """Renew the lease, and look once."""
        self.readiness = self._database.write(self._renew_and_look)

    def _renew_and_look(self, connection: Connection) -> ControlPlaneState:
        now = self._clock.now()
        if self._service_id is None:
            self._service_id = service_queries.register_this_process(connection, service_list_queries.API_SERVER, now)
        else:
            service_queries.renew_lease(connection, self._service_id, now)
        self.installation = service_queries.installation(connection)
        rows = service_list_queries.not_stopped(connection)
        silent = self._leases.silent(rows)
        living = [row for row in rows if row.kind in _SCHEDULERS and row.id not in silent and not _is_gone(row)]
        return ControlPlaneState(True) if living else NO_SCHEDULER

    def end(self) -> None:
        """Say that this server ends."""
        self._ended.set()
        service_id, now = self._service_id, self._clock.now()
        if service_id is not None:
            self._database.write(lambda connection: service_queries.stop(connection, service_id, now))


def _is_gone(row: Service) -> bool:
    return row.hostname == hostname() and not is_alive(row.pid, row.process_started)
