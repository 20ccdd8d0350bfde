"""Which pipeline files there are, which have to be read again, and one that is read before the engine is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trainflow.messages.workload import DagSource, ParseFile

if TYPE_CHECKING:
    import socket

    from trainflow.executors.spawn import SpawnedForkserver
    from trainflow.settings.project import Project

SUFFIXES = (".py", ".yaml", ".yml")
Stamp = tuple[int, int]


def pipeline_files(folder: Path) -> list[Path]:
    """The pipelines in a folder, by name; files that begin with `_` or `.` are none."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix in SUFFIXES and path.name[0] not in "_." and path.is_file()
    )


def stamp(path: Path) -> Stamp | None:
    """What tells a changed file from an unchanged one; None when it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size)


class ParsedFileStamps:
    """What was read of a file: its source, and the stamps of everything it was made from."""

    def __init__(self, source: DagSource, path: Path) -> None:
        self.source = source
        self.path = path
        self._stamps: dict[Path, Stamp | None] | None = None
        self._failed = False
        #: another file that defines the same DAG was read before this one was judged
        self.waited_for_another = False

    def read_with(self, stamp_before: Stamp | None, modules: list[str], *, failed: bool) -> None:
        """Remember what it was read from. The file's own stamp is from before it was read: a change meanwhile shows."""
        self._failed = failed
        self._stamps = {self.path: stamp_before, **{Path(module): stamp(Path(module)) for module in modules}}

    @property
    def is_stale(self) -> bool:
        """Whether a file has to be read (again). One that failed always has: what would mend it may lie in a file it
        never reached."""
        if self._failed or self._stamps is None:
            return True
        return any(stamp(path) != before for path, before in self._stamps.items())


class EarlyParse(NamedTuple):
    """A file that is being read. `answer`: where the result comes; `stamp`: what the file looked like before."""

    source: DagSource
    answer: socket.socket
    stamp: Stamp | None


def start_early_parse(
    spawned: SpawnedForkserver, project: Project, path: Path, overrides: dict[str, str]
) -> EarlyParse | None:
    """Ask a warm worker to read a file while this process imports the engine. None when the worker has ended: the
    engine will see to that."""
    path = path.resolve()
    source = DagSource(project.relative(path), overrides)
    before = stamp(path)
    request = ParseFile(source, str(project.root), str(project.home.path))
    try:
        return EarlyParse(source, spawned.parse(request), before)
    except OSError:
        return None
