"""Registration of this process among the parts of the control plane, from its beginning to its end."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta

from sqlalchemy import Connection

from trainflow.metadata import service_queries
from trainflow.metadata.database import Database
from trainflow.observability.processes import started_at

#: stopped services are remembered this long
_REMEMBER = timedelta(days=7)


def register(database: Database, kind: str, now: datetime) -> int:
    """Say that this process lives; forget those that ended long ago. Returns its id."""

    def write(connection: Connection) -> int:
        service_queries.forget_stopped(connection, now - _REMEMBER)
        return service_queries.register(
            connection,
            kind=kind,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            process_started=started_at(os.getpid()),
            now=now,
        )

    return database.write(write)
