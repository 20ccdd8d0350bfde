"""Columns that stand in the names of folders below a partition: `region=eu/a.parquet`, as Hive and Spark lay them out.

They are text, with every leading zero, unless `checks.columns` declares another type. `__HIVE_DEFAULT_PARTITION__` is
null.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

NULL = "__HIVE_DEFAULT_PARTITION__"
#: name and text of each column; None: null
PathColumns = tuple[tuple[str, str | None], ...]


def path_columns(name: str) -> PathColumns:
    """Columns in the path of a file, named relative to its partition."""
    found = (folder.partition("=") for folder in name.split("/")[:-1])
    return tuple((unquote(key), None if text == NULL else unquote(text)) for key, sign, text in found if sign and key)


def value_as(text: str | None, kind: Any) -> Any:
    """An Arrow array of the one value. Raises ValueError for text that is no value of this type."""
    import pyarrow as pa

    array = pa.array([text], pa.string())
    try:
        return array.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{text!r} is no {kind}") from error


def declared_type(name: str | None) -> Any:
    """The type that a check expects of a column; text where it expects none. Raises ValueError for what is no type."""
    import pyarrow as pa

    from trainflow.samples.columns.types import type_from_text

    return pa.string() if name is None else type_from_text(name)


def disagreement(parquet: Any, name: str, text: str | None) -> str | None:
    """The first value of a column in the file that is not the one in its path; None when all are."""
    import pyarrow.compute as pc

    for number in range(parquet.num_row_groups):
        column = parquet.read_row_group(number, columns=[name]).column(name)
        try:
            expected = value_as(text, column.type)[0]
        except ValueError as error:
            return str(error)
        same = column.is_valid() if text is not None else column.is_null()
        if text is not None:
            same = pc.and_(same, pc.fill_null(pc.equal(column, expected), False))
        other = column.filter(pc.invert(same))
        if len(other):
            return f"{other[0].as_py()!r}"
    return None
