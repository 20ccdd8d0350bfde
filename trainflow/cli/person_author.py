"""Who types a command: what a ledger records of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainflow.checkpoints.ledger.entries import Author


def person() -> Author:
    """The user of this process, on this machine; no run, no attempt."""
    import getpass
    import socket

    from trainflow.checkpoints.ledger.entries import Author

    host = socket.gethostname()
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container with a user id that has no name
        user = "unknown"
    return Author(hostname=host, person=f"{user}@{host}")
