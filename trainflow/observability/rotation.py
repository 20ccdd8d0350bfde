"""Bound the size of logs that other processes append to.

A task's log is written by its process and by what that starts, through descriptors opened for appending. So the file is
copied and emptied in place, as logrotate's `copytruncate` does: no writer has to reopen it. What is written between the
copy and the emptying is lost; that is bounded by the speed of the writer and microseconds.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_CHUNK = 1 << 20


def rotate(path: Path, max_bytes: int, backup_count: int) -> bool:
    """Empty `path` when it is larger than `max_bytes`; its last `max_bytes` are kept as `path.1`, what was `path.1` as
    `path.2`, up to `path.{backup_count}`.

    Returns whether it was too large. A file that is not there is none. Raises OSError when it cannot be written.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return False
    if size <= max_bytes:
        return False
    for number in range(backup_count, 1, -1):
        older = backup(path, number - 1)
        if older.exists():
            older.replace(backup(path, number))
    with path.open("r+b") as file:
        if backup_count:
            file.seek(size - max_bytes)
            with open(backup(path, 1), "wb", opener=_private) as copy:
                shutil.copyfileobj(file, copy, _CHUNK)
        file.truncate(0)
    return True


def backup(path: Path, number: int) -> Path:
    """Name the `number`-th newest part that was rotated away, from 1."""
    return path.with_name(f"{path.name}.{number}")


def parts(path: Path) -> list[Path]:
    """List what there is of a log, oldest part first, `path` itself last."""
    found = []
    number = 1
    while (older := backup(path, number)).exists():
        found.append(older)
        number += 1
    return [*reversed(found), path]


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
