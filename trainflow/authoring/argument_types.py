"""Compare what a constructor of this package is given with its annotations, as far as these are plain.

An annotation is text (`from __future__ import annotations`), and names in it may be imported for type checkers only: so
the text is read, and what is not known here is not checked. What may be a template may also be a string or an XComArg.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from trainflow.bounds import clip
from trainflow.errors import InputError

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
            words.append(f"{'an' if name[0] in 'AEIO' else 'a'} {name}")
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
