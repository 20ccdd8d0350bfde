"""How far work on the files of a checkpoint is, which takes minutes where they are many or large: said in the log and
to a listener.

Work on few small files says nothing. It is told by count, and not by a clock: what is said does not depend on how busy
the machine is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from trainflow.humanize import counted

log = logging.getLogger(__name__)

Listener = Callable[[str | None], None]

#: it is said again after so many files, or so many bytes
TOLD_FILES, TOLD_BYTES = 500, 256 << 20
#: and so many times more rarely in the log
_LOGGED = 20


class _Listening:
    """One for a process, as in `storage.retries`: an attempt shows it beside how far it is."""

    listener: Listener | None = None


_LISTENING = _Listening()


def tell_files(listener: Listener | None) -> None:
    """Have a listener told, by the thread that works, what is done with how many files, and None when that is over."""
    _LISTENING.listener = listener


class FileProgress:
    """Work on so many files, from `with` on; `doing` begins the sentence."""

    def __init__(self, doing: str, total: int) -> None:
        self._doing, self._total = doing, total
        self._done = self._files = self._bytes = self._said = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._said and _LISTENING.listener is not None:
            _LISTENING.listener(None)

    def add(self, size_bytes: int) -> None:
        """Count a file that is done."""
        self._done += 1
        self._files += 1
        self._bytes += size_bytes
        if self._done < self._total and (self._files >= TOLD_FILES or self._bytes >= TOLD_BYTES):
            self._files = self._bytes = 0
            self._say(f"{self._doing}: {self._done:,} of {counted(self._total, 'file')}")

    def _say(self, sentence: str) -> None:
        if self._said % _LOGGED == 0:
            log.info("%s", sentence)
        self._said += 1
        if _LISTENING.listener is not None:
            _LISTENING.listener(sentence)
