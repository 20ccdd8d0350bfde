"""What ran out on this machine, in words that say what to do. Pure."""

from __future__ import annotations

import errno

_MEMORY = "memory ran out: train on smaller splits or batches, or give it more memory"
_SAYS = {
    errno.ENOSPC: "the disk is full: make room on it",
    errno.EDQUOT: "the quota of this user on the disk is used up: make room, or have it raised",
    errno.EMFILE: "this process has as many files open as it may: raise its limit (ulimit -n), or close what it opens",
    errno.ENFILE: "this machine has as many files open as it may: raise its limit (fs.file-max), or run less on it",
    errno.ENOMEM: _MEMORY,
}
#: exit code of a process that broke outside of the task's own code
BROKEN = 70
#: exit codes of a process that ended because something ran out, outside of a task's own code
_CODES = {errno.ENOMEM: 71, errno.EMFILE: 72, errno.ENFILE: 73, errno.ENOSPC: 74, errno.EDQUOT: 75}
_SAID_BY_CODE = {code: _SAYS[number] for number, code in _CODES.items()}


def exhausted_resource(error: BaseException) -> str | None:
    """What ran out, and what to do; None when nothing did. An error that was raised from such a one counts as well."""
    number = _number(error)
    return None if number is None else _SAYS[number]


def exit_code_of(error: BaseException, otherwise: int) -> int:
    """The code with which a process ends that `error` has broken, so that its parent can say why."""
    number = _number(error)
    return otherwise if number is None else _CODES[number]


def meaning_of_exit_code(exit_code: int | None) -> str | None:
    """What a process says by its exit code that ran out; None: nothing of that kind."""
    return None if exit_code is None else _SAID_BY_CODE.get(exit_code)


def _number(error: BaseException) -> int | None:
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MemoryError):
            return errno.ENOMEM
        if isinstance(found, OSError) and found.errno in _SAYS:
            return found.errno
        found = found.__cause__
    return None
