from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainflow.errors import SampleUnreadable
from trainflow.samples.checks import comparable, problems
from trainflow.samples.footers import ColumnSummary, Footer, is_parquet, read_footer
from trainflow.samples.spec import Checks
from trainflow.samples.storage import LocalStorage


def footer(rows: int = 10, nulls: int = 0, low: object = 0, high: object = 9) -> Footer:
    return Footer((rows,), pa.schema({"x": pa.int64()}), {"x": ColumnSummary(nulls, low, high)})


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        (Checks(), ()),
        (Checks(min_rows=20, max_rows=20, columns={"x": "int64"}, nulls={"x": 0.15}, ranges={"x": (0, 9)}), ()),
        (Checks(min_rows=21), ("expected at least 21 rows, found 20 in 2 files",)),
        (Checks(max_rows=19), ("expected at most 19 rows, found 20 in 2 files",)),
        (
            Checks(columns={"x": "float64"}),
            tuple(f"{name}.parquet: column 'x': expected float64, found int64" for name in "ab"),
        ),
        (
            Checks(nulls={"x": 0.1}),
            ("column 'x': expected at most 0.1 nulls, found 0.15 (3 of 20 rows; most of them in b.parquet)",),
        ),
        (Checks(ranges={"x": (1, None)}), ("a.parquet: column 'x': expected at least 1, found 0",)),
        (Checks(ranges={"x": (None, 8)}), ("a.parquet: column 'x': expected at most 8, found 9",)),
        (
            Checks(ranges={"x": ("a", None)}),
            tuple(
                f"{name}.parquet: column 'x': expected at least 'a', found {low}: these cannot be compared"
                for name, low in (("a", 0), ("b", 3))
            ),
        ),
        (
            Checks(nulls={"y": 0}),
            tuple(f"{name}.parquet: column 'y': expected by a check, found no such column" for name in "ab"),
        ),
    ],
)
def test_problems(checks: Checks, expected: tuple[str, ...]) -> None:
    footers = [("a.parquet", footer()), ("b.parquet", footer(nulls=3, low=3, high=7))]
    assert problems(checks, footers) == expected


@pytest.mark.parametrize(
    ("bound", "value", "below"),
    [
        (1, Decimal("1.5"), True),
        ("2024-01-01", datetime(2024, 1, 1, 1), True),
        ("2024-01-01T02:00+02:00", datetime(2024, 1, 1, tzinfo=UTC), False),
        ("2024-01-02", date(2024, 1, 1), False),
        ("b", "c", True),
        ("b", b"a", False),
    ],
)
def test_bounds_are_compared_as_what_the_column_holds(bound: float | str, value: object, below: bool) -> None:
    ours, theirs = comparable(bound, value)
    assert (ours < theirs) is below


def write(path: Path, table: pa.Table, **options: object) -> str:
    pq.write_table(table, path, **options)
    return str(path)


def test_a_footer_answers_from_statistics(tmp_path: Path) -> None:
    table = pa.table({"x": [1, None, 3, 4, 5], "s": ["b", "a", None, None, None], "n": pa.nulls(5, pa.int64())})
    path = write(tmp_path / "a.parquet", table, row_group_size=2)
    found = read_footer(LocalStorage(None), path, nulls=["x", "n"], ranges=["x", "s", "absent"])
    assert found.row_groups == (2, 2, 1)
    assert found.schema == pa.schema({"x": pa.int64(), "s": pa.string(), "n": pa.int64()})
    assert found.summaries == {
        "x": ColumnSummary(1, 1, 5),
        "s": ColumnSummary(3, "a", "b"),
        "n": ColumnSummary(5),
    }


def test_statistics_are_enough(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pa.table({"x": list(range(5000))}), compression="none", use_dictionary=False)
    data = bytearray(Path(path).read_bytes())
    data[200:4000] = b"\xff" * 3800  # the data pages, of which nothing may be read
    Path(path).write_bytes(data)
    assert read_footer(LocalStorage(None), path, ranges=["x"]).summaries["x"] == ColumnSummary(0, 0, 4999)


def test_data_is_read_where_a_footer_has_no_statistics(tmp_path: Path) -> None:
    table = pa.table({"x": [1, None, 3], "l": pa.array([[1], None, [2]], pa.list_(pa.int64()))})
    path = write(tmp_path / "a.parquet", table, write_statistics=False)
    found = read_footer(LocalStorage(None), path, nulls=["l"], ranges=["x"])
    assert found.summaries == {"x": ColumnSummary(1, 1, 3), "l": ColumnSummary(1)}


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no footer")
    with pytest.raises(SampleUnreadable, match=r"a\.parquet cannot be read as Parquet: .*have it written again"):
        read_footer(LocalStorage(tmp_path), "a.parquet")


def test_parquet_is_known_by_its_name() -> None:
    assert [is_parquet(name) for name in ("a.parquet", "p.snappy.PARQUET", "a.pq", "a.csv", "000000_0")] == [
        True,
        True,
        True,
        False,
        False,
    ]
