"""Bounds of what a person or a task gives, checked where it is read. Pure.

What is within them fits every database, every message and every clock; what is not is refused with its name, before
anything depends on it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from trainflow.errors import InputError

#: of a name: what a column of a key holds on every database
MOST_CHARACTERS = 250
#: whole numbers are kept in 32 bits, with a sign
LARGEST_INTEGER = 2**31 - 1
#: a hundred years: added to any moment of today it is still one
LONGEST_DURATION = timedelta(days=36_525)
#: lists and mappings inside each other: reading and writing JSON takes a frame of the stack for each
MOST_NESTING = 100


def check_text(value: Any, what: str, *, most: int = MOST_CHARACTERS) -> str:
    """`value` if it can be a key or a name everywhere: 1 to `most` characters, none of them a control character or half
    of a pair, no space at either end (MySQL takes "loss " for "loss"). Raises InputError, with `what` in front."""
    if not isinstance(value, str):
        raise InputError(f"{what}: {value!r} is no string")
    if not 1 <= len(value) <= most:
        raise InputError(f"{what}: {clip(value)} has {len(value)} characters; give it 1 to {most}")
    if value != value.strip():
        raise InputError(f"{what}: {clip(value)} begins or ends with a space; leave it out")
    if not value.isprintable():
        raise InputError(f"{what}: {clip(value)} holds a character that cannot be printed; leave it out")
    return value


def check_nesting(value: Any, what: str) -> None:
    """Raise InputError, with `what` in front, for lists and mappings that are inside each other more than MOST_NESTING
    times. Takes no stack of its own, so that it may look at anything."""
    level = [value]
    for _ in range(MOST_NESTING):
        level = [inner for outer in level for inner in _inner(outer) if isinstance(inner, _CONTAINERS)]
        if not level:
            return
    raise InputError(
        f"{what}: lists and mappings are nested more than {MOST_NESTING} times; write it to a file instead"
    )


_CONTAINERS = (dict, list, tuple, set, frozenset)


def _inner(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, _CONTAINERS) else ()


def clip(value: Any, most: int = 80) -> str:
    """`value` as Python writes it, not longer than it can be read."""
    text = repr(value[: most * 2] if isinstance(value, str) else value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
