"""Writes one Parquet file with each of several writers: `python make.py`, in an environment that has them (README.md).

`COLUMNS` says what is in them; the tests read it from here, so it imports none of the writers.
"""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
NAN = float("nan")
LONG = "m" * 300
#: longer than the bounds that pyarrow writes
VERY_LONG = "m" * 5000
#: column → Arrow type, values in two row groups of four, bounds that the values just hold, and just do not hold
COLUMNS: dict[str, tuple[str, list[Any], tuple[Any, Any], tuple[Any, Any]]] = {
    "int64": ("int64", [5, -999, None, 7, 2**53 + 1, 1, 2, 3], (-999, 2**53 + 1), (-998, 2**53)),
    "uint64": ("uint64", [5, 1, None, 7, 2**64 - 1, 1, 2, 3], (1, 2**64 - 1), (2, 2**64 - 2)),
    "int8": ("int8", [5, -100, None, 7, 100, 1, 2, 3], (-100, 100), (-99.5, 99.5)),
    "bool": ("bool", [True, False, None, True, True, True, False, True], (0, 1), (0.5, 0.5)),
    "double": (
        "double",
        [0.1, 0.5, None, 0.3, 0.7, 0.2, 0.3, 0.2],
        (0.1, 0.7),
        (0.10000000000000002, 0.6999999999999998),
    ),
    "float": ("float", [0.1, 0.5, None, 0.3, 0.7, 0.2, 0.3, 0.2], (0.1, 0.7), (0.1000001, 0.6999)),
    "halffloat": ("halffloat", [0.1, 0.5, None, 0.3, 0.7, 0.2, 0.3, 0.2], (0.1, 0.7), (0.11, 0.69)),
    "nan_first": ("double", [NAN, -999.0, 5.0, 1.0, 2.0, NAN, None, 1.0], (-999, 5), (-998.5, 4.5)),
    "nan_group": ("double", [NAN, NAN, NAN, NAN, 1.0, 2.0, 3.0, 1.0], (1, 3), (1.5, 2.5)),
    "decimal": (
        "decimal128(9, 2)",
        [Decimal("0.10"), Decimal("0.50"), None, Decimal("0.30"), Decimal("0.70"), Decimal("0.20")]
        + [Decimal("0.30")] * 2,
        (0.1, 0.7),
        (0.11, 0.69),
    ),
    "decimal_wide": (
        "decimal128(38, 2)",
        [Decimal("-0.10"), Decimal("0.50"), None, Decimal("0.30"), Decimal("0.70"), Decimal("0.20")]
        + [Decimal("0.30")] * 2,
        (-0.1, 0.7),
        (-0.09, 0.69),
    ),
    "date": (
        "date32[day]",
        [date(2024, 1, 2), date(1969, 12, 31), None, date(2024, 1, 2), date(2024, 1, 3)] + [date(2024, 1, 2)] * 3,
        ("1969-12-31", "2024-01-03"),
        ("1970-01-01", "2024-01-02"),
    ),
    "micros": (
        "timestamp[us]",
        [
            datetime(2024, 1, 2, 3, 4, 5, 6),
            datetime(1969, 1, 1),
            None,
            *[datetime(2024, 1, 2)] * 4,
            datetime(2025, 1, 1),
        ],
        ("1969-01-01", "2025-01-01"),
        ("1969-01-01T00:00:00.000001", "2024-12-31T23:59:59.999999"),
    ),
    "utc": (
        "timestamp[us, tz=UTC]",
        [
            datetime(2024, 1, 2, tzinfo=UTC),
            datetime(2023, 1, 1, tzinfo=UTC),
            None,
            *[datetime(2024, 1, 2, tzinfo=UTC)] * 5,
        ],
        ("2023-01-01T01:00+01:00", "2024-01-02"),
        ("2023-01-01T00:00:00.000001", "2024-01-01T23:59:59.999999"),
    ),
    "nanos": (
        "timestamp[ns]",
        [1_700_000_000_000_000_001, 1_600_000_000_000_000_001, None, 1_700_000_000_000_000_009]
        + [1_700_000_000_000_000_000] * 4,
        ("2020-09-13T12:26:40.000000001", "2023-11-14T22:13:20.000000009"),
        ("2020-09-13T12:26:40.000000002", "2023-11-14T22:13:20.000000008"),
    ),
    "time": (
        "time64[us]",
        [time(12), time(0, 0, 0, 1), None, time(23, 59, 59, 999999), time(1), time(2), time(3), time(4)],
        ("00:00:00.000001", "23:59:59.999999"),
        ("00:00:00.000002", "23:59:59.999998"),
    ),
    "time_nanos": (
        "time64[ns]",
        [5, 3, None, 9, 4, 4, 4, 4],
        ("00:00:00.000000003", "00:00:00.000000009"),
        ("00:00:00.000000004", "00:00:00.000000008"),
    ),
    "duration": (
        "duration[us]",
        [timedelta(seconds=5), timedelta(seconds=-1), None, timedelta(hours=2)] + [timedelta(seconds=5)] * 4,
        (-1, "2h"),
        (-0.999, "1h59m59.9s"),
    ),
    "text": ("string", ["b", "a", None, "é", "b", "b", "b", "b"], ("a", "é"), ("aa", "z")),
    "long_text": (
        "string",
        [LONG + "b", LONG + "a", None] + [LONG + "b"] * 5,
        (LONG + "a", LONG + "b"),
        (LONG + "aa", LONG + "a"),
    ),
    "very_long": (
        "string",
        [VERY_LONG + "b", VERY_LONG + "a", None] + [VERY_LONG + "b"] * 5,
        (VERY_LONG + "a", VERY_LONG + "b"),
        (VERY_LONG + "aa", VERY_LONG + "a"),
    ),
    "binary": ("binary", [b"b", b"a", None, b"c", b"b", b"b", b"b", b"b"], ("a", "c"), ("aa", "bz")),
    "dictionary": (
        "dictionary<values=string, indices=int32, ordered=0>",
        ["b", "a", None, "c"] + ["b"] * 4,
        ("a", "c"),
        ("aa", "bz"),
    ),
    "nothing": ("string", [None] * 8, ("a", "b"), (None, None)),
}
#: what a writer cannot say, or says as another type
_WITHOUT = {
    "polars": {"halffloat", "time", "dictionary"},
    "duckdb": {"halffloat", "time_nanos", "duration", "dictionary"},
    "fastparquet": {
        "int64",
        "uint64",
        "halffloat",
        "time",
        "time_nanos",
        "dictionary",
        "decimal",
        "decimal_wide",
        "date",
        "utc",
        "duration",
    },
    "deltalake": {"halffloat", "time", "time_nanos", "dictionary", "duration", "nanos", "uint64"},
    "pandas": {"int64", "uint64", "time_nanos"},
}


def table(writer: str) -> Any:
    """What a writer is given."""
    import pyarrow as pa

    kinds = {
        "halffloat": pa.float16(),
        "dictionary<values=string, indices=int32, ordered=0>": pa.dictionary(pa.int32(), pa.string()),
        "decimal128(9, 2)": pa.decimal128(9, 2),
        "decimal128(38, 2)": pa.decimal128(38, 2),
        "timestamp[us, tz=UTC]": pa.timestamp("us", "UTC"),
        "date32[day]": pa.date32(),
    }
    columns = {}
    for name, (kind, values, _, _) in COLUMNS.items():
        if name not in _WITHOUT.get(writer, ()):
            wanted = kinds.get(kind) or pa.type_for_alias(kind)
            if kind == "halffloat":
                import numpy as np

                columns[name] = pa.array([None if each is None else np.float16(each) for each in values], wanted)
            else:
                columns[name] = pa.array(values, wanted, from_pandas=False)
    return pa.table(columns)


def with_pyarrow(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table("pyarrow"), path, row_group_size=4)


def with_pyarrow_without_statistics(path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table("pyarrow"), path, row_group_size=4, write_statistics=False)


def with_pandas(path: Path) -> None:
    table("pandas").to_pandas().to_parquet(path, row_group_size=4)


def with_polars(path: Path) -> None:
    import polars as pl

    pl.from_arrow(table("polars")).write_parquet(path, row_group_size=4, statistics=True)


def with_duckdb(path: Path) -> None:
    import duckdb

    given = table("duckdb")  # noqa: F841  # found by its name
    duckdb.sql(f"COPY (SELECT * FROM given) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 4)")


def with_fastparquet(path: Path) -> None:
    import fastparquet

    fastparquet.write(str(path), table("fastparquet").to_pandas(), row_group_offsets=[0, 4])


def with_deltalake(path: Path) -> None:
    import tempfile

    import deltalake

    with tempfile.TemporaryDirectory() as folder:
        deltalake.write_deltalake(folder, table("deltalake"))
        (found,) = Path(folder).glob("*.parquet")
        path.write_bytes(found.read_bytes())


WRITERS = ("pyarrow", "pyarrow_without_statistics", "pandas", "polars", "duckdb", "fastparquet", "deltalake")

if __name__ == "__main__":
    for chosen in sys.argv[1:] or WRITERS:
        globals()[f"with_{chosen}"](FOLDER / f"{chosen}.parquet")
