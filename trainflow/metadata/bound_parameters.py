"""Values of statements that are made once, and lists of them that are too long for one statement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Table, bindparam

_T = TypeVar("_T")


def bound_columns(table: Table, names: Iterable[str]) -> dict[str, Any]:
    """Columns to set → parameters, for an UPDATE that is made once; `bound_values` gives it the values."""
    return {name: bindparam(f"b_{name}", type_=table.c[name].type) for name in names}


def bound_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under the names of `bound_columns`: none of them is that of a column a condition is about."""
    return {f"b_{name}": value for name, value in values.items()}


def in_parts(values: Iterable[_T], most: int = 500) -> Iterator[list[_T]]:
    """The values, so many at a time: a statement takes a limited number of parameters."""
    remaining = iter(values)
    while part := list(islice(remaining, most)):
        yield part
