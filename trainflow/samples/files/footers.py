"""What Parquet footers say: rows, types, nulls and ranges, without reading data.

A column's data is read only where a check asks for it and its statistics do not prove the answer. They are believed
where they prove that values are inside the allowed range. Whatever else they say - a bound that a writer cut, none
beside NaN, none at all - the row group's values are looked at, so nothing is refused or passed by a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from trainflow.samples.columns.path_columns import PathColumns, declared_type, disagreement, value_as
from trainflow.samples.files.fingerprint import Content
from trainflow.samples.files.parquet_file import finer_than_read, opened
from trainflow.samples.spec import Checks
from trainflow.storage.store import Storage

if TYPE_CHECKING:
    from trainflow.samples.columns.bounds import Key

#: the smallest and the largest allowed value; None: open
Range = tuple[float | str | None, float | str | None]


class ColumnSummary(msgspec.Struct, frozen=True):
    """`nulls`: null and NaN. `smallest` and `largest` are keys (`trainflow.samples.columns.bounds`): exact where they
    are outside of the range that was asked about, else anything between it and them; None: there is no value."""

    nulls: int
    smallest: Key = None
    largest: Key = None


def summary(parquet: Any, field: Any, count_nulls: bool, allowed: Range | None) -> ColumnSummary:
    """Summary of a column of an open `pyarrow.parquet.ParquetFile`. Only what is asked for is right."""
    from trainflow.samples.columns.bounds import exact_bounds, present

    groups = _groups(parquet, field)
    limits = None if allowed is None else _limits(allowed, field.type)
    nulls, found = 0, []
    for number, (missing, bounds) in enumerate(groups):
        rows = parquet.metadata.row_group(number).num_rows
        known = missing if not _may_be_nan(field.type) or missing == rows else None
        inside = limits is None or missing == rows or (bounds is not None and _inside(bounds, limits))
        if inside and (known is not None or not count_nulls):
            nulls += known or 0
            found += [bounds] if limits is not None and bounds is not None else []
            continue
        values = parquet.read_row_group(number, columns=[field.name]).column(field.name)
        nulls += len(values) - len(present(values))
        exact = exact_bounds(values) if limits is not None else None
        found += [exact] if exact is not None else []
    smallest = min((low for low, _ in found), default=None)
    return ColumnSummary(nulls, smallest, max((high for _, high in found), default=None))


def summary_of_one(value: Any, rows: int) -> ColumnSummary:
    """Summary of a column that has one value in all of its rows, an Arrow array of length 1."""
    import pyarrow as pa

    from trainflow.samples.columns.bounds import exact_bounds

    low, high = exact_bounds(pa.chunked_array([value])) or (None, None)
    return ColumnSummary(rows if value.null_count else 0, low, high)


def compare_values(parquet: Any, field: Any, wanted: Any) -> None:
    """See that every value of a column is one of another Arrow type, which
    `trainflow.samples.columns.common_type` made. Raises InexactCast."""
    from trainflow.samples.columns.bounds import in_nanoseconds
    from trainflow.samples.columns.cast import cast, limits

    stored = limits(field.type, wanted)
    allowed = None if stored is None else in_nanoseconds(stored, field.type)
    for number, (_, bounds) in enumerate(_groups(parquet, field)):
        if allowed is None or bounds is None or not _inside(bounds, allowed):
            cast(parquet.read_row_group(number, columns=[field.name]).column(field.name), wanted)


def _groups(parquet: Any, field: Any) -> list[tuple[int | None, tuple[Key, Key] | None]]:
    """Nulls and outer bounds of each row group by its statistics; None for what they do not tell."""
    from trainflow.samples.columns.bounds import outer_bounds

    metadata = parquet.metadata
    leaves = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}
    leaf = leaves.get(field.name)
    told: list[tuple[int | None, tuple[Key, Key] | None]] = []
    for number in range(metadata.num_row_groups):
        if metadata.row_group(number).num_rows == 0:
            told.append((0, None))
            continue
        if leaf is None:  # the leaves of what is nested have statistics, it has none
            told.append((None, None))
            continue
        statistics = metadata.row_group(number).column(leaf).statistics
        missing = statistics.null_count if statistics is not None and statistics.has_null_count else None
        told.append((missing, outer_bounds(statistics, metadata.schema.column(leaf), field.type)))
    return told


def _limits(allowed: Range, kind: Any) -> tuple[Key, Key] | None:
    """Limits as keys; None when they cannot be compared with this type, which `checks` says."""
    from trainflow.samples.columns.bounds import bound_key

    low, high = allowed
    try:
        return (None if low is None else bound_key(low, kind), None if high is None else bound_key(high, kind))
    except (TypeError, ValueError):
        return None


def _inside(bounds: tuple[Key, Key], limits: tuple[Key, Key]) -> bool:
    (low, high), (least, most) = bounds, limits
    return (least is None or low >= least) and (most is None or high <= most)


def _may_be_nan(kind: Any) -> bool:
    import pyarrow.types as kinds

    from trainflow.samples.columns.bounds import plain

    return bool(kinds.is_floating(plain(kind)))


_UNREAD = Content(0, "")
_SUFFIXES = (".parquet", ".parq", ".pq")
_MAGIC = b"PAR1"
#: what is another format by its name, and not opened to find out
_OTHERS = re.compile(
    r".*\.(csv|tsv|jsonl?|ndjson|txt|xml|avro|orc|arrow|feather|ipc|tar|tgz|zip|gz|bz2|zst|lz4|xz|np[yz]|tfrecords?|pkl|pt"
    r"|h5|hdf5|jpe?g|png)",
    re.DOTALL,
)


class Footer(msgspec.Struct, frozen=True):
    """One Parquet file."""

    #: rows of each row group
    row_groups: tuple[int, ...]
    #: its columns, those in its path included, a `pyarrow.Schema`
    schema: Any
    summaries: dict[str, ColumnSummary] = {}
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
