"""How far a command is with the files of checkpoints, in one line of the terminal that goes when it is done."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from trainflow.checkpoints.file_progress import tell_files


@contextmanager
def showing_files() -> Iterator[None]:
    """Show it where errors go, if a person looks there; what programs read is left alone."""
    if not sys.stderr.isatty():
        yield
        return
    tell_files(_show)
    try:
        yield
    finally:
        tell_files(None)


def _show(sentence: str | None) -> None:
    sys.stderr.write(f"\r\x1b[K{sentence or ''}")
    sys.stderr.flush()
