"""What an attempt wrote, printed as it grows."""

from __future__ import annotations

import sys
from pathlib import Path

_FOLLOW_SECONDS = 0.25


def print_rotated(path: Path) -> bool:
    """Print the parts of a log that were rotated away, oldest first; returns whether there were any."""
    from trainflow.observability.log_files import parts

    *older, _ = parts(path)
    for each in older:
        print_from(each, 0)
    return bool(older)


def print_from(path: Path, position: int) -> int:
    """Print what was written after `position` (bytes); returns where it ends now. A log that has become shorter was
    rotated: it is printed from its beginning."""
    if not path.exists():
        return position
    if path.stat().st_size < position:
        position = 0
    sys.stdout.flush()
    with path.open("rb") as file:
        file.seek(position)
        while data := file.read(1 << 16):
            position += len(data)
            sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return position


def pause() -> None:
    """Wait until the log is read again."""
    import time

    time.sleep(_FOLLOW_SECONDS)
