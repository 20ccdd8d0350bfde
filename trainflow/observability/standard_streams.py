"""Standard input, output and error of the command: all three are there, what cannot be shown ends no engine, and text
of users drives no terminal.

A service or a cron job may start the command with closed streams, or in a locale that has no letter for what is said;
the reader of a pipe may end, and a disk with a log on it may be full.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any


def complete_streams() -> None:
    """Open what is closed: the next file to be opened, a database for one, would be written what is printed. What the
    encoding of a stream has no letter for is replaced."""
    for descriptor in range(3):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            continue
        # the lowest number that is free is this one; what this process starts has it, too
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or _stream(0, "r")
    sys.stdout = sys.stdout or _stream(1, "w")
    sys.stderr = sys.stderr or _stream(2, "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    sys.stdout, sys.stderr = _guarded(sys.stdout), _guarded(sys.stderr)


class GuardedTerminal(io.TextIOWrapper):
    """A terminal that shows what is written, with its colours, and does nothing that is written (see
    `terminal_text`)."""

    def write(self, text: str, /) -> int:
        """See `io.TextIOWrapper.write`."""
        # most lines hold nothing but letters
        if not text.isprintable():
            from trainflow.observability.terminal_text import colored_text

            super().write(colored_text(text))
        else:
            super().write(text)
        return len(text)

    def drive(self, text: str) -> None:
        """Write what may drive the terminal: nothing of it is text of users."""
        super().write(text)


def drive(text: str) -> None:
    """Write what may drive the terminal to standard output: nothing of it is text of users."""
    if isinstance(sys.stdout, GuardedTerminal):
        sys.stdout.drive(text)
    else:
        sys.stdout.write(text)


def unguarded(stream: Any) -> Any:
    """The same stream for what draws on a terminal itself, and lets no text of users drive it."""
    if not isinstance(stream, GuardedTerminal):
        return stream
    stream.flush()
    # not closed with the object: the descriptor stays with the guarded one
    return open(stream.fileno(), "w", encoding=stream.encoding, errors=stream.errors, closefd=False)


def _guarded(stream: Any) -> Any:
    if not isinstance(stream, io.TextIOWrapper) or not stream.isatty():
        return stream
    return GuardedTerminal(stream.buffer, stream.encoding, stream.errors, line_buffering=True)


def outlive_readers(say: Callable[[str], object]) -> None:
    """What standard output and error do not take any more is dropped, and `say` is told so once: to be called by a
    process that others depend on, also when what it prints is read no more."""
    sys.stdout, sys.stderr = (_outliving(stream, say) for stream in (sys.stdout, sys.stderr))


def _stream(descriptor: int, mode: str) -> Any:
    return open(descriptor, mode, closefd=False)


class _DroppingStream(io.FileIO):
    """A descriptor that takes everything, and drops what cannot be written."""

    def __init__(self, descriptor: int, say: Callable[[str], object]) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._say: Callable[[str], object] | None = say

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        try:
            return super().write(data) or size
        except OSError as error:
            say, self._say = self._say, None
            if say is not None:
                with contextlib.suppress(Exception):  # it may print, too
                    say(f"what is printed is not taken any more, and dropped: {error.strerror}")
            return size


def _outliving(stream: Any, say: Callable[[str], object]) -> Any:
    """The stream; one that a test or a program has put in the place of its own stays."""
    known = isinstance(stream, GuardedTerminal) or stream is sys.__stdout__ or stream is sys.__stderr__
    if not isinstance(stream, io.TextIOWrapper) or not known:
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    raw = _DroppingStream(stream.fileno(), say)
    kind = GuardedTerminal if isinstance(stream, GuardedTerminal) else io.TextIOWrapper
    return kind(io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=True)
