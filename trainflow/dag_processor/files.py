"""Which pipeline files there are, and which have to be read again."""

from __future__ import annotations

from pathlib import Path

from trainflow.messages.workload import DagSource

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
