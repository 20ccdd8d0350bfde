"""Check a call that constructs something in a pipeline file, and say in its words what does not fit.

What a call lacks or gives too much is told instead of Python's TypeError. What it gives is compared with the
annotations of the constructor, as far as these are plain: an annotation is text (`from __future__ import annotations`),
and names in it may be imported for type checkers only, so the text is read, and what is not known here is not checked.
What may be a template may also be a string or an XComArg.
"""

from __future__ import annotations

import inspect
import re
from abc import ABCMeta
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple, NoReturn

from trainflow.bounds import clip
from trainflow.errors import InputError, UnexpectedArgument

#: what Python says where a call does not fit the constructor
_MISFIT = re.compile(r"(?:(\w+)\.)?__init__\(\) (?:takes|missing|got) ")
_POSITIONAL = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
#: the first word of an annotation → what is accepted, and what it is called
_KNOWN: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a string"),
    "bool": ((bool,), "True or False"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "None": ((type(None),), "None"),
    "dict": ((Mapping,), "a dict"),
    "Mapping": ((Mapping,), "a dict"),
    "list": ((list, tuple), "a list"),
    "tuple": ((list, tuple), "a list"),
    "Sequence": ((Sequence,), "a list"),
    "Collection": ((Collection,), "a list"),
    "timedelta": ((timedelta,), "a timedelta"),
    "datetime": ((datetime, date), "a datetime"),
}
#: classes that are known by name; any other may be an alias of something else
_CLASSES = frozenset({"Adopt", "ArgNotSet", "Promote", "Samples", "SplitLimits"})


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


class _Expected(NamedTuple):
    """What an argument may be: of one of these types, or of a class with one of these names."""

    types: tuple[type, ...]
    classes: frozenset[str]
    words: str

    def fits(self, value: Any) -> bool:
        """Whether `value` is that. A bool is no number, and text is no list."""
        if self.classes & {base.__name__ for base in type(value).__mro__}:
            return True
        if isinstance(value, bool | str):
            return type(value) in self.types
        return isinstance(value, self.types)


def check_types(cls: type, given: Mapping[str, Any], template_fields: Collection[str]) -> None:
    """Raise InputError for the first argument that is not of the type which the constructor of `cls`, or of one of its
    bases, gives it."""
    expected = _expected(cls)
    for name, value in given.items():
        if name not in expected or _is_reference(value) or (name in template_fields and isinstance(value, str)):
            continue
        if not expected[name].fits(value):
            raise InputError(f"{cls.__name__}: {name}: {clip(value)} is not {expected[name].words}")


@cache
def _expected(cls: type) -> dict[str, _Expected]:
    """Name → what may be given, of those that this package annotates."""
    found: dict[str, _Expected] = {}
    for base in cls.__mro__:
        constructor: Callable[..., Any] | None = base.__dict__.get("__init__")
        if constructor is None or base.__module__.partition(".")[0] != "trainflow":
            continue
        for parameter in inspect.signature(constructor).parameters.values():
            known = _read(parameter.annotation) if isinstance(parameter.annotation, str) else None
            if known is not None:
                found.setdefault(parameter.name, known)
    return found


def _read(annotation: str) -> _Expected | None:
    """What an annotation accepts; None where it has a part that is not known here."""
    types: list[type] = []
    classes: list[str] = []
    words: list[str] = []
    for part in _alternatives(annotation):
        name = part.strip().partition("[")[0]
        if name in _KNOWN:
            types += _KNOWN[name][0]
            words.append(_KNOWN[name][1])
        elif name in _CLASSES:
            classes.append(name)
            words.append(f"{'an' if name[0] in 'AEIO' else 'a'} {name}(…) of trainflow.operators")
        else:
            return None
    return _Expected(tuple(types), frozenset(classes), " or ".join(dict.fromkeys(words)))


def _alternatives(annotation: str) -> list[str]:
    """Split at each `|` that is in no brackets."""
    parts, depth = [""], 0
    for letter in annotation:
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _is_reference(value: Any) -> bool:
    return hasattr(value, "operator") and hasattr(value, "key")
