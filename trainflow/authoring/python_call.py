"""Call a user's function: with whatever of the context its parameters ask for by name, and so that one process returns.

`os.fork()` in a task copies the whole attempt: the copy would return from the function like the original, seal the
files, remove the scratch folder and report an outcome. Only the process that trainflow started goes on to report; a
copy ends where it comes out.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from trainflow.authoring.context import CONTEXT_KEYS
from trainflow.errors import InputError

if TYPE_CHECKING:
    from trainflow.authoring.context import Context

_P = inspect.Parameter


def check_call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], owner: str) -> None:
    """Raise InputError when `function` cannot be called so, even with everything the context may hold."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise InputError(f"{owner}: {_name(function)} is async; a task is an ordinary function, a wait is a trigger")
    signature = inspect.signature(function)
    try:
        bound = signature.bind_partial(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"{owner}: {_name(function)}{signature}: {error}") from None
    for name, parameter in signature.parameters.items():
        optional = parameter.default is not _P.empty or parameter.kind in {_P.VAR_POSITIONAL, _P.VAR_KEYWORD}
        if name not in bound.arguments and not optional and not _from_context(parameter):
            raise InputError(f"{owner}: {_name(function)}{signature}: missing argument {name!r}")


def call_with_context(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], context: Context
) -> Any:
    """Call it. A parameter named like a context key gets that value unless it was given; `**kwargs` gets all others."""
    signature = inspect.signature(function)
    given = signature.bind_partial(*args, **kwargs).arguments
    offered: dict[str, Any] = {key: value for key, value in context.items() if key not in given and key not in kwargs}
    if not any(parameter.kind is _P.VAR_KEYWORD for parameter in signature.parameters.values()):
        asked = {name for name, parameter in signature.parameters.items() if _from_context(parameter)}
        offered = {key: value for key, value in offered.items() if key in asked}
    positional_only = {n for n, p in signature.parameters.items() if p.kind is _P.POSITIONAL_ONLY}
    offered = {key: value for key, value in offered.items() if key not in positional_only}
    return function(*args, **{**offered, **kwargs})


def _from_context(parameter: inspect.Parameter) -> bool:
    return parameter.name in CONTEXT_KEYS and parameter.kind in {_P.POSITIONAL_OR_KEYWORD, _P.KEYWORD_ONLY}


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))


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
