"""Call a user's function with its arguments and whatever of the context its parameters ask for by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
