"""What Parquet footers say: rows, types, nulls and ranges, without reading data.

A column's data is read only where a check asks for it and its statistics do not prove the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainflow.samples.column_summary import ColumnSummary, Range, compare_values, summary
from trainflow.samples.parquet_file import opened
from trainflow.samples.storage import Storage

_SUFFIXES = (".parquet", ".parq", ".pq")


@dataclass(frozen=True)
class Footer:
    """One Parquet file."""

    #: rows of each row group
    row_groups: tuple[int, ...]
    #: its columns, a `pyarrow.Schema`
    schema: Any
    summaries: dict[str, ColumnSummary] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(self.row_groups)


def is_parquet(name: str) -> bool:
    """By its name; other files are handed over with unknown rows."""
    return name.lower().endswith(_SUFFIXES)


def read_footer(
    storage: Storage, path: str, nulls: Mapping[str, float] | None = None, ranges: Mapping[str, Range] | None = None
) -> Footer:
    """The footer of a Parquet file, with summaries of the columns that `nulls` (column → allowed fraction) and `ranges`
    (column → allowed smallest and largest value) name and the file has.

    Raises SampleDamaged for a file that is not whole, SampleUnreadable, both naming the file.
    """
    nulls, ranges = nulls or {}, ranges or {}
    with opened(storage, path) as file:
        metadata = file.parquet.metadata
        groups = tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
        summaries = {}
        if nulls or ranges:
            for name in sorted({*nulls, *ranges} & set(file.schema.names)):
                # with all of them allowed, the number of nulls decides nothing
                count = nulls.get(name, 1.0) < 1
                summaries[name] = summary(file.parquet, file.schema.field(name), count, ranges.get(name))
    return Footer(groups, file.schema, summaries)


def check_values(storage: Storage, path: str, wanted: Mapping[str, Any]) -> None:
    """See that every value of these columns is one of the Arrow type that is wanted for it. Raises Misfit with the
    first that is not, SampleUnreadable."""
    with opened(storage, path) as file:
        for name, kind in wanted.items():
            compare_values(file.parquet, file.schema.field(name), kind)
