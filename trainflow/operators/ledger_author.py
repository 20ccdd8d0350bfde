"""Who writes a ledger entry: the attempt that runs."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.ledger.entries import Author


def author_of(ti: TaskInstance) -> Author:
    """The author of what this attempt records."""
    from trainflow.checkpoints.ledger.entries import Author

    return Author(run_id=ti.run_id, attempt_id=ti.attempt_id, dag_id=ti.dag_id, hostname=socket.gethostname())
