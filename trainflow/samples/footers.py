"""What Parquet footers say: rows, types, nulls and ranges, without reading data.

A column's data is read only where its statistics are missing and a check asks for them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainflow.samples.parquet_file import opened
from trainflow.samples.storage import Storage

_SUFFIXES = (".parquet", ".parq", ".pq")


@dataclass(frozen=True)
class ColumnSummary:
    """One column of one file. Values are Python's; NaN is left out of a range, as in Parquet's own statistics."""

    nulls: int
    smallest: Any = None
    largest: Any = None


@dataclass(frozen=True)
class Footer:
    """One Parquet file."""

    #: rows of each row group
    row_groups: tuple[int, ...]
    #: its columns, as a `pyarrow.Schema` without metadata
    schema: Any
    summaries: dict[str, ColumnSummary] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(self.row_groups)


def is_parquet(name: str) -> bool:
    """By its name; other files are handed over with unknown rows."""
    return name.lower().endswith(_SUFFIXES)


def read_footer(storage: Storage, path: str, nulls: Collection[str] = (), ranges: Collection[str] = ()) -> Footer:
    """The footer of a Parquet file, with summaries of the columns named in `nulls` or `ranges` that it has.

    Raises SampleDamaged for a file that is not whole, SampleUnreadable, both naming the file.
    """
    with opened(storage, path) as file:
        metadata = file.parquet.metadata
        groups = tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
        wanted = sorted({*nulls, *ranges} & set(file.schema.names))
        summaries = {name: _summary(file.parquet, name, name in ranges) for name in wanted}
    return Footer(groups, file.schema, summaries)


def check_values(storage: Storage, path: str, wanted: Mapping[str, Any]) -> None:
    """Read columns of a file, to see that every value is one of the Arrow type that is wanted for it. Raises Misfit
    with the first that is not, SampleUnreadable."""
    from trainflow.samples.columns.cast import cast

    with opened(storage, path) as file:
        for number in range(file.parquet.num_row_groups):
            table = file.parquet.read_row_group(number, columns=list(wanted))
            for name, kind in wanted.items():
                cast(table.column(name), kind)


def _summary(parquet: Any, name: str, with_range: bool) -> ColumnSummary:
    found = _from_statistics(parquet, name, with_range)
    return found if found is not None else _from_data(parquet, name, with_range)


def _from_statistics(parquet: Any, name: str, with_range: bool) -> ColumnSummary | None:
    metadata = parquet.metadata
    paths = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    if name not in paths:  # nested: its leaves have statistics, it has none
        return None
    leaf, nulls, low, high = paths.index(name), 0, [], []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.num_rows == 0:
            continue
        statistics = group.column(leaf).statistics
        if statistics is None or not statistics.has_null_count:
            return None
        nulls += statistics.null_count
        if with_range and statistics.null_count < group.num_rows:
            if not statistics.has_min_max:
                return None
            low.append(statistics.min)
            high.append(statistics.max)
    return ColumnSummary(nulls, min(low, default=None), max(high, default=None))


def _from_data(parquet: Any, name: str, with_range: bool) -> ColumnSummary:
    import pyarrow.compute as pc

    nulls, low, high = 0, [], []
    for number in range(parquet.num_row_groups):
        column = parquet.read_row_group(number, columns=[name]).column(name)
        nulls += column.null_count
        if with_range and column.null_count < len(column):
            bounds = pc.min_max(column).as_py()
            low.append(bounds["min"])
            high.append(bounds["max"])
    return ColumnSummary(nulls, min(low, default=None), max(high, default=None))
