"""End what the task has started before it is said how the task ended.

A straggler could go on writing into a folder whose digests are being taken, and a subprocess of a failed try would
share the machine with the next one. So nothing of an attempt outlives it: SIGTERM, a short wait, SIGKILL. A process
that shall stay is to be started by something that is not a task (a service manager, a cluster).
"""

from __future__ import annotations

import logging
import os

from trainflow.observability.process_lifetime import has_children, terminate_processes
from trainflow.observability.processes import ProcessEntry, descendants, process_table
from trainflow.pluralize import counted

log = logging.getLogger("trainflow.task")

#: ends by itself when the process that started it does, and cleans up behind it what is shared by then
_TRACKER = b"multiprocessing.resource_tracker"


def end_descendants(grace_seconds: float) -> None:
    """End every process that descends from this one. Costs one call of the system where there is none."""
    told = _found() if has_children() else []
    if not told:
        return
    left = terminate_processes(_found, grace_seconds)
    pids = ", ".join(str(entry.pid) for entry in told)
    log.warning("the task left %s running (%s): ended with it", counted(len(told), "process"), pids)
    if left:
        log.error("cannot end %s: they hang in the kernel", ", ".join(str(entry.pid) for entry in left))


def _found() -> list[ProcessEntry]:
    return [entry for entry in descendants([os.getpid()], process_table()) if not _is_tracker(entry.pid)]


def _is_tracker(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return _TRACKER in file.read()
    except OSError:
        return False
