"""The end of a process that ran an attempt, the same for a forked one and for an interpreter of its own."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn

#: exit code of a process that broke outside of the task's own code
BROKEN = 70


def end_process(code: int) -> NoReturn:
    """Run what was registered for the exit, write out what was printed, end.

    Threads that are left are not waited for: the attempt has said how it ended.
    """
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
