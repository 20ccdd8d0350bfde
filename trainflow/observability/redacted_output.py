"""Standard output and error of a process that runs user code, without secrets in what Python prints.

Masks whole lines, so that `print("password=", value)` is seen in one piece. What a library writes to the descriptors
itself (`sys.stdout.buffer`, native code, a subprocess) is not seen here.

A log on a disk that is full, read-only or gone ends no training: what it does not take is dropped, and the log says so
where it goes on.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
from collections.abc import Iterable
from typing import Any

from trainflow.observability.redaction import MASK, redact_text, secret_values

#: a line that is not ended by then is written as it is
_LONGEST_LINE = 1 << 16
#: of a private key whose end never comes, at most so much is masked: the rest is text again
_LONGEST_KEY = 1 << 14
_KEY_BEGINS, _KEY_ENDS = "PRIVATE KEY-----", "-----END "


#: errors of a disk that has no room, that became read-only, or that is not there any more
_OF_DISK = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO}
)


class _DroppingFile(io.FileIO):
    """A file descriptor whose disk is always there: what it does not take is dropped."""

    _dropped = 0
    _why = ""

    def write(self, data: Any, /) -> int:
        size = memoryview(data).nbytes
        try:
            if self._dropped:
                said = f"\n[{self._dropped} bytes of this log are missing: {self._why}]\n"
                os.write(self.fileno(), said.encode())
                self._dropped = 0
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in _OF_DISK:
                raise
            self._dropped, self._why = self._dropped + size, error.strerror or "its disk did not take them"
            return size


class RedactedOutput(io.TextIOWrapper):
    """A text stream over a file descriptor that masks secrets in each line and writes it at once."""

    def __init__(self, descriptor: int) -> None:
        raw = _DroppingFile(descriptor, "w", closefd=False)
        super().__init__(io.BufferedWriter(raw), "utf-8", errors="backslashreplace", line_buffering=True)
        self._lock = threading.RLock()
        self._held = ""
        self._key_left = 0
        os.register_at_fork(after_in_child=self._forget_lock)

    def write(self, text: str) -> int:
        with self._lock:
            held, self._held = self._held + text, ""
            end = max(held.rfind("\n"), held.rfind("\r")) + 1
            if len(held) - end > _LONGEST_LINE:
                end = len(held)
            self._held = held[end:]
            if end:
                super().write(self._masked(held[:end]))
        return len(text)

    def flush(self) -> None:
        with self._lock:
            held, self._held = self._held, ""
            if held:
                super().write(self._masked(held))
            super().flush()

    def _masked(self, text: str) -> str:
        if self._key_left:
            inside, ended, rest = text.partition(_KEY_ENDS)
            self._key_left = 0 if ended else max(0, self._key_left - len(inside))
            text = rest.partition("-----")[2] if ended else ""
        shown = without_secrets(text)
        begins = text.rfind(_KEY_BEGINS)
        if begins >= 0 and shown != text and _KEY_ENDS not in text[begins - 40 :] and shown.rstrip().endswith(MASK):
            self._key_left = _LONGEST_KEY
        return shown

    def _forget_lock(self) -> None:
        # the thread that held it is not in this process
        self._lock = threading.RLock()


#: values hidden wherever they stand in what this process shows (Airflow: `mask_secret`). Not in XComs nor in the
#: ledger, which are data: a password that is a common word would change them
_hidden: set[str] = set()


def hide_values(values: Iterable[str]) -> None:
    """Mask these values, those of at least four characters, in what this process prints and says from now on."""
    _hidden.update(values)


def without_secrets(text: str) -> str:
    """`text` as this process may show it."""
    return redact_text(text, _hidden)


def install() -> None:
    """Put redacted streams in the place of this process's standard output and error.

    To be called before anything of the user's is imported: what takes hold of `sys.stdout` then, a logging handler for
    one, has this one. Values of environment variables that are named like secrets are hidden in them.
    """
    # PWD is the working directory
    hide_values(secret_values({name: value for name, value in os.environ.items() if name != "PWD"}))
    sys.stdout, sys.stderr = RedactedOutput(1), RedactedOutput(2)
