"""What an attempt printed and logged, read part by part."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from trainflow.errors import NotFound
from trainflow.observability.log_files import parts
from trainflow.settings.home import Home

#: bytes of a log that are read at a time
PART_BYTES = 1 << 16


class LogBytes(NamedTuple):
    """Bytes of a log, and where they end."""

    data: bytes
    position: int


def log_file(home: Home, path: str) -> Path:
    """The file of a log that the database names. Raises NotFound where that is none of this home's."""
    file = Path(path)
    if not file.resolve().is_relative_to(home.path.resolve()):
        raise NotFound(f"the log {path} is not in the home of this project")
    return file


def read_part(path: Path, position: int, most: int = PART_BYTES) -> LogBytes:
    """What was written after `position` (bytes). A log that has become shorter was rotated: it is read from its
    beginning. Nothing where there is no file yet."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size < position:
                position = 0
            file.seek(position)
            data = file.read(most)
    except FileNotFoundError:
        return LogBytes(b"", position)
    return LogBytes(data, position + len(data))


def rotated(path: Path) -> list[Path]:
    """The parts that were rotated away, oldest first."""
    return parts(path)[:-1]
