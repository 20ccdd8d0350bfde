"""Make what a pipeline file constructs, and say in its own words what a call lacks or gives too much."""

from __future__ import annotations

import inspect
import re
from abc import ABCMeta
from collections.abc import Callable
from typing import Any, NoReturn

from trainflow.errors import InputError, UnexpectedArgument

#: what Python says where a call does not fit the constructor
_MISFIT = re.compile(r"(?:(\w+)\.)?__init__\(\) (?:takes|missing|got) ")
_POSITIONAL = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}


class CheckedCall(ABCMeta):
    """The type of classes whose constructor is called in pipeline files."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except InputError:
            raise
        except TypeError as error:
            found = _MISFIT.match(str(error))
            if found is None or found[1] not in {base.__name__ for base in cls.__mro__}:
                raise
            refuse_call(cls.__name__, cls.__init__, (None, *args), kwargs, error)  # type: ignore[misc]


def refuse_call(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: TypeError
) -> NoReturn:
    """Raise UnexpectedArgument for a call that `function` cannot take; `error` is what Python says of it."""
    parameters = [each for each in inspect.signature(function).parameters.values() if each.name != "self"]
    values = args[1:] if args[:1] == (None,) else args
    by_position = [each.name for each in parameters if each.kind in _POSITIONAL]
    accepted = ", ".join(each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD)
    takes = {each.name for each in parameters}
    if any(each.kind is each.VAR_KEYWORD and each.name == "kwargs" for each in parameters):
        accepted += ", and what every operator takes"
        takes.add("task_id")
    if len(values) > len(by_position) and not any(each.kind is each.VAR_POSITIONAL for each in parameters):
        value = values[len(by_position)]
        is_id = isinstance(value, str) and "task_id" in takes - kwargs.keys()
        hint = f" Did you mean task_id={value!r}?" if is_id else ""
        message = f"{name}: {value!r} is given without a name.{hint} Accepted: {accepted}"
        raise UnexpectedArgument(message, owner=name, argument=repr(value)) from None
    missing = [
        each.name
        for number, each in enumerate(parameters)
        if each.default is each.empty
        and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
        and each.name not in kwargs
        and not (each.kind in _POSITIONAL and number < len(values))
    ]
    if missing:
        message = f"{name} needs {' and '.join(missing)}. Accepted: {accepted}"
        raise UnexpectedArgument(message, owner=name, argument=missing[0]) from None
    said = str(error).partition("() ")[2]
    raise UnexpectedArgument(f"{name}: {said}. Accepted: {accepted}", owner=name, argument=said) from error
