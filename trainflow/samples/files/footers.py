"""What Parquet footers say: rows, types, nulls and ranges, without reading data.

A column's data is read only where a check asks for it and its statistics do not prove the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainflow.samples.columns.column_summary import ColumnSummary, compare_values, summary, summary_of_one
from trainflow.samples.columns.path_columns import PathColumns, declared_type, disagreement, value_as
from trainflow.samples.files.fingerprint import Content
from trainflow.samples.files.parquet_file import finer_than_read, opened
from trainflow.samples.spec import Checks
from trainflow.storage.store import Storage

_UNREAD = Content(0, "")
_SUFFIXES = (".parquet", ".parq", ".pq")
_MAGIC = b"PAR1"
#: what is another format by its name, and not opened to find out
_OTHERS = re.compile(
    r".*\.(csv|tsv|jsonl?|ndjson|txt|xml|avro|orc|arrow|feather|ipc|tar|tgz|zip|gz|bz2|zst|lz4|xz|np[yz]|tfrecords?|pkl|pt"
    r"|h5|hdf5|jpe?g|png)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Footer:
    """One Parquet file."""

    #: rows of each row group
    row_groups: tuple[int, ...]
    #: its columns, those in its path included, a `pyarrow.Schema`
    schema: Any
    summaries: dict[str, ColumnSummary] = field(default_factory=dict)
    #: the columns that are in its path and not in the file
    path_columns: PathColumns = ()
    #: why it cannot be read as it was written
    problems: tuple[str, ...] = ()
    #: what was read
    content: Content = _UNREAD

    @property
    def rows(self) -> int:
        """Rows of all row groups."""
        return sum(self.row_groups)


def is_parquet(storage: Storage, path: str) -> bool:
    """Whether a file is Parquet, by its name, or by its first bytes where the name says nothing (Hive, Trino and Flink
    write no suffix). Other files are handed over with unknown rows. Raises SampleUnreadable."""
    if path.lower().endswith(_SUFFIXES):
        return True
    if _OTHERS.fullmatch(path.lower()):
        return False
    return storage.read_range(path, 0, len(_MAGIC)) == _MAGIC


def read_footer(storage: Storage, path: str, checks: Checks | None = None, columns: PathColumns = ()) -> Footer:
    """The footer of a Parquet file, with summaries of the columns that checks of nulls and ranges name and it has.
    `columns`: those in its path.

    Raises SampleDamaged for a file that is not whole, SampleUnreadable, both naming the file.
    """
    checks = checks or Checks()
    with opened(storage, path) as file:
        metadata = file.parquet.metadata
        groups = tuple(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
        problems = finer_than_read(file, storage, path)
        schema, added = file.schema, []
        for name, text in columns:
            try:
                if name in file.schema.names:
                    other = disagreement(file.parquet, name, text)
                    if other is not None:
                        problems += (f"column {name!r} is {text!r} in its path, and in the file: {other}",)
                    continue
                kind = declared_type(checks.columns.get(name))
                value_as(text, kind)
            except ValueError as error:
                problems += (f"column {name!r} in its path: {error}",)
                continue
            schema = schema.append(_field(name, kind))
            added.append((name, text))
        summaries = {}
        for name in sorted({*checks.nulls, *checks.ranges} & set(file.schema.names)):
            # with all nulls allowed, their number decides nothing
            count = checks.nulls.get(name, 1.0) < 1
            summaries[name] = summary(file.parquet, file.schema.field(name), count, checks.ranges.get(name))
    for name, text in added:
        if name in checks.nulls or name in checks.ranges:
            summaries[name] = summary_of_one(value_as(text, schema.field(name).type), sum(groups))
    return Footer(groups, schema, summaries, tuple(added), problems, file.content)


def check_values(storage: Storage, path: str, wanted: Mapping[str, Any], footer: Footer) -> None:
    """See that every value of these columns is one of the Arrow type that is wanted for it. Raises InexactCast with the
    first that is not, SampleUnreadable."""
    from trainflow.samples.columns.cast import cast

    in_path = dict(footer.path_columns)
    with opened(storage, path) as file:
        for name, kind in wanted.items():
            if name in in_path:
                cast(value_as(in_path[name], footer.schema.field(name).type), kind)
            else:
                compare_values(file.parquet, file.schema.field(name), kind)


def _field(name: str, kind: Any) -> Any:
    import pyarrow as pa

    return pa.field(name, kind)
