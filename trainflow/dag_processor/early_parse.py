"""Have a file read before the engine is imported: the warm worker reads while this process imports."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

from trainflow.dag_processor.files import Stamp, stamp
from trainflow.executors.spawn import SpawnedForkserver
from trainflow.messages.workload import DagSource, ParseFile
from trainflow.settings.project import Project


class EarlyParse(NamedTuple):
    """A file that is being read. `answer`: where the result comes; `stamp`: what the file looked like before."""

    source: DagSource
    answer: socket.socket
    stamp: Stamp | None


def start_early_parse(
    spawned: SpawnedForkserver, project: Project, path: Path, overrides: dict[str, str]
) -> EarlyParse | None:
    """Ask a warm worker to read a file. None when the worker has ended: the engine will see to that."""
    path = path.resolve()
    source = DagSource(project.relative(path), overrides)
    before = stamp(path)
    request = ParseFile(source, str(project.root), str(project.home.path))
    try:
        return EarlyParse(source, spawned.parse(request), before)
    except OSError:
        return None
