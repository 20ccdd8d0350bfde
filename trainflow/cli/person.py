"""Who a command writes into a ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainflow.checkpoints.ledger.entries import Author


def person(dag_id: str = "") -> Author:
    """Somebody on this machine: no run, no attempt."""
    import getpass
    import socket

    from trainflow.checkpoints.ledger.entries import Author

    host = socket.gethostname()
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container with a user id that has no name
        user = "unknown"
    return Author(dag_id=dag_id, hostname=host, person=f"{user}@{host}")
