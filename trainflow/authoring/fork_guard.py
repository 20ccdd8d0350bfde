"""Code of a user that forks: only the process that trainflow started goes on to report; a copy ends where it comes out.

`os.fork()` in a task copies the whole attempt: the copy would return from the function like the original, seal the
files, remove the scratch folder and report an outcome.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

_F = TypeVar("_F", bound=Callable[..., object])


@contextmanager
def end_forked_copies() -> Iterator[None]:
    """Let only the process that entered come out. A copy of it ends with code 0, with that of its `sys.exit`, or with 1
    and a traceback; no exit handler runs in it, as in `multiprocessing`."""
    pid = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() == pid:
            raise
        _end(_code_of(error))
    if os.getpid() != pid:
        _end(0)


def ends_forked_copies(function: _F) -> _F:
    """The function; only the process that called it returns from it."""

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        with end_forked_copies():
            return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def _code_of(error: BaseException) -> int:
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return error.code or 0
    traceback.print_exception(error)
    return 1


def _end(code: int) -> NoReturn:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
