"""The row of a worker that has no database: written for it by the API server, with what it is told in return."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from trainflow.messages.http_protocol import WorkerHeartbeat, WorkerOrders
from trainflow.metadata.queries import drain_queries, service_queries
from trainflow.metadata.queries.drain_queries import Drain, DrainKind, Drains
from trainflow.metadata.queries.service_list_queries import WORKER, ServiceDetails, WorkerState


def note_worker(connection: Connection, said: WorkerHeartbeat, now: datetime) -> WorkerOrders:
    """Write down that a worker lives, and what it says of itself; what it is told."""
    state = WorkerState(said.executor, said.queues, said.slots, said.in_use)
    details = ServiceDetails(said.version, said.name, state)
    is_known = said.installation in ("", service_queries.installation(connection))
    service_id = said.service_id if is_known else None
    if service_id is None or not service_queries.note_worker(connection, service_id, details):
        service_id = service_queries.register(
            connection,
            kind=WORKER,
            hostname=said.hostname,
            pid=said.pid,
            process_started=said.process_started,
            now=now,
            details=details,
        )
    if said.ends:
        service_queries.stop(connection, service_id, now)
    else:
        service_queries.renew_lease(connection, service_id, now)
    drains = _drains_of(said, drain_queries.listing(connection))
    return WorkerOrders(service_id, sorted(drains), "; ".join(sorted({each.sentence for each in drains.values()})))


def _drains_of(said: WorkerHeartbeat, drains: Drains) -> dict[str, Drain]:
    """The queues of a worker that take nothing new, and why."""
    own = drains.get(DrainKind.WORKER, said.name) or drains.get(DrainKind.WORKER, said.hostname)
    found = {queue: own or drains.get(DrainKind.QUEUE, queue) for queue in said.queues}
    return {queue: drain for queue, drain in found.items() if drain is not None}
