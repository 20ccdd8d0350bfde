"""What ran out on this machine, in words that say what to do."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator

from trainflow.observability.file_access import takes_no_files

_MEMORY = "memory ran out: train on smaller splits or batches, or give it more memory"
_SAYS = {
    errno.ENOSPC: "the disk is full: make room on it",
    errno.EDQUOT: "the quota of this user on the disk is used up: make room, or have it raised",
    errno.EMFILE: "this process has as many files open as it may: raise its limit (ulimit -n), or close what it opens",
    errno.ENFILE: "this machine has as many files open as it may: raise its limit (fs.file-max), or run less on it",
    errno.ENOMEM: _MEMORY,
}
#: signals that no process sends itself when it crashes
_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
#: exit code of a process that broke outside of the task's own code
BROKEN = 70
#: exit code of a process that was not given its attempt, since no engine answered
UNHEARD = 76
#: exit codes of a process that ended because something ran out, outside of a task's own code
_CODES = {errno.ENOMEM: 71, errno.EMFILE: 72, errno.ENFILE: 73, errno.ENOSPC: 74, errno.EDQUOT: 75}
_SAID_BY_CODE = {code: _SAYS[number] for number, code in _CODES.items()}


def exhausted_resource(error: BaseException) -> str | None:
    """What ran out, and what to do; None when nothing did. An error that was raised from such a one counts as well."""
    number = _number(error)
    if number == errno.ENOSPC and takes_no_files(_causes(error)):
        return "the disk takes no more files ('df -i' shows that): delete some of the many on it"
    return None if number is None else _SAYS[number]


def exit_code_of(error: BaseException, otherwise: int) -> int:
    """The code with which a process ends that `error` has broken, so that its parent can say why."""
    number = _number(error)
    return otherwise if number is None else _CODES[number]


def meaning_of_exit_code(exit_code: int | None) -> str | None:
    """What a process says by its exit code that ran out; None: nothing of that kind."""
    return None if exit_code is None else _SAID_BY_CODE.get(exit_code)


def ended_in_words(exit_code: int | None, signal_number: int | None) -> str:
    """How a process ended that runs code of a project and said nothing, and what that means."""
    if signal_number in _FROM_OUTSIDE:
        return f"signal {signal_number}: it was killed from outside, by a person or for the memory that it took"
    if signal_number is not None:
        return f"signal {signal_number}: it crashes"
    return f"exit code {exit_code}: {meaning_of_exit_code(exit_code) or 'something in it calls exit or os._exit'}"


def _number(error: BaseException) -> int | None:
    for each in _causes(error):
        if isinstance(each, MemoryError):
            return errno.ENOMEM
        if isinstance(each, OSError) and each.errno in _SAYS:
            return each.errno
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__
