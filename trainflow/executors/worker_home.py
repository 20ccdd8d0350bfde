"""The home of a worker: a folder of its own in the temporary folder, which goes when the worker ends. What one that was
killed has left goes when the next one of its host and user begins."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainflow.observability.processes import is_alive, started_at
from trainflow.settings.home import Home

_PREFIX = "trainflow_worker_"


@contextmanager
def worker_home() -> Iterator[Path]:
    """A folder for the process that asks, called after it. Sweeps those of processes that are gone."""
    folder = Path(tempfile.gettempdir())
    sweep_worker_homes(folder)
    pid = os.getpid()
    # hosts may share a temporary folder, and none can see the processes of another
    owner = f"{pid}_{started_at(pid):.0f}_{socket.gethostname()}"
    made = Path(tempfile.mkdtemp(dir=folder, prefix=f"{_PREFIX}{owner}."))
    try:
        yield made
    finally:
        _remove(made)


def sweep_worker_homes(folder: Path) -> None:
    """Remove the homes in `folder` whose process is gone: those of this host and user. What cannot be removed stays."""
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another one that begins was faster
            if path.lstat().st_uid == os.getuid() and _is_left(path.name):
                _remove(path)


def _is_left(name: str) -> bool:
    owner, _, _ = name.removeprefix(_PREFIX).rpartition(".")
    pid, _, rest = owner.partition("_")
    started, _, host = rest.partition("_")
    if host != socket.gethostname() or not (pid.isdecimal() and started.isdecimal()):
        return False
    return not is_alive(int(pid), float(started))


def _remove(folder: Path) -> None:
    Home(folder).socket_path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
