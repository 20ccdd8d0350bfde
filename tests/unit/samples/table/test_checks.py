from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainflow.errors import SampleUnreadable
from trainflow.samples.columns.bounds import bound_key
from trainflow.samples.columns.types import is_called
from trainflow.samples.files.footers import ColumnSummary, Footer, is_parquet, read_footer
from trainflow.samples.spec import Checks
from trainflow.samples.table.checks import problems
from trainflow.storage.urls import open_storage


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
                f"{name}.parquet: column 'x': expected at least 'a', which cannot be compared with int64"
                for name in "ab"
            ),
        ),
        (
            Checks(nulls={"y": 0}),
            tuple(f"{name}.parquet: column 'y': expected by a check, found no such column" for name in "ab"),
        ),
    ],
)
def test_checks_problems_are_listed(checks: Checks, expected: tuple[str, ...]) -> None:
    footers = [("a.parquet", footer()), ("b.parquet", footer(nulls=3, low=3, high=7))]
    assert problems(checks, footers) == expected


@pytest.mark.parametrize(
    ("bound", "kind", "key"),
    [
        (1, pa.decimal128(5, 2), Decimal(1)),
        (0.1, pa.decimal128(5, 2), Decimal("0.1")),
        (0.7, pa.float32(), 0.699999988079071),
        (1e300, pa.float32(), 1e300),
        (0.7, pa.float64(), 0.7),
        (0.5, pa.int8(), 0.5),
        ("1970-01-01T00:00:01", pa.timestamp("ns"), 10**9),
        ("1970-01-01T02:00:01.123456789+02:00", pa.timestamp("us", "UTC"), 1_123_456_789),
        ("1970-01-02", pa.date32(), 86_400 * 10**9),
        ("00:00:00.000000007", pa.time64("ns"), 7),
        (1.5, pa.duration("ms"), 1_500_000_000),
        ("-1h30m", pa.duration("s"), -5400 * 10**9),
        ("é", pa.dictionary(pa.int8(), pa.large_string()), "é".encode()),
        ("a", pa.binary(1), b"a"),
    ],
)
def test_bound_is_key_of_what_column_holds(bound: float | str, kind: pa.DataType, key: object) -> None:
    assert bound_key(bound, kind) == key


@pytest.mark.parametrize(
    ("bound", "kind"),
    [
        ("1", pa.int64()),
        (1, pa.string()),
        (1, pa.timestamp("us")),
        ("soon", pa.timestamp("us")),
        ("1 week", pa.duration("s")),
        (float("nan"), pa.float64()),
        (1, pa.list_(pa.int64())),
        ("a", pa.struct({"a": pa.string()})),
    ],
)
def test_bound_of_another_kind_is_refused(bound: float | str, kind: pa.DataType) -> None:
    with pytest.raises((TypeError, ValueError)):
        bound_key(bound, kind)


@pytest.mark.parametrize(
    ("name", "kind", "called"),
    [
        ("string", pa.large_string(), True),
        ("large_string", pa.string(), True),
        ("string", pa.string_view(), True),
        ("string", pa.dictionary(pa.int32(), pa.large_string()), True),
        ("string", pa.null(), True),
        ("string", pa.binary(), False),
        ("list<item: string>", pa.large_list(pa.field("element", pa.large_string())), True),
        ("timestamp[us, tz=UTC]", pa.timestamp("us", "+00:00"), True),
        ("timestamp[us, tz=UTC]", pa.timestamp("us"), False),
        ("int64", pa.int32(), False),
    ],
)
def test_type_goes_by_its_name_however_arrow_holds_it(name: str, kind: pa.DataType, called: bool) -> None:
    assert is_called(kind, name) is called


def write(path: Path, table: pa.Table, **options: object) -> str:
    pq.write_table(table, path, **options)
    return str(path)


def test_footer_answers_from_statistics(tmp_path: Path) -> None:
    table = pa.table({"x": [1, None, 3, 4, 5], "s": ["b", "a", None, None, None], "n": pa.nulls(5, pa.int64())})
    path = write(tmp_path / "a.parquet", table, row_group_size=2)
    ranges = {"x": (1, 5), "s": ("a", None), "absent": (0, 1)}
    found = read_footer(open_storage(".", {}, None), path, Checks(nulls={"x": 0, "n": 0}, ranges=ranges))
    assert found.row_groups == (2, 2, 1)
    assert found.schema == pa.schema({"x": pa.int64(), "s": pa.string(), "n": pa.int64()})
    assert found.summaries == {
        "x": ColumnSummary(1, 1, 5),
        "s": ColumnSummary(3, b"a", b"b"),
        "n": ColumnSummary(5),
    }


def test_statistics_are_enough(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pa.table({"x": list(range(5000))}), compression="none", use_dictionary=False)
    data = bytearray(Path(path).read_bytes())
    data[200:4000] = b"\xff" * 3800  # the data pages, of which nothing may be read
    Path(path).write_bytes(data)
    footer = read_footer(open_storage(".", {}, None), path, Checks(ranges={"x": (0, None)}))
    assert footer.summaries["x"] == ColumnSummary(0, 0, 4999)


def test_data_is_read_where_footer_has_no_statistics(tmp_path: Path) -> None:
    table = pa.table({"x": [1, None, 3], "l": pa.array([[1], None, [2]], pa.list_(pa.int64()))})
    path = write(tmp_path / "a.parquet", table, write_statistics=False)
    found = read_footer(open_storage(".", {}, None), path, Checks(nulls={"l": 0}, ranges={"x": (0, 9)}))
    assert found.summaries == {"x": ColumnSummary(1, 1, 3), "l": ColumnSummary(1)}


def test_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no footer")
    with pytest.raises(SampleUnreadable, match=r"a\.parquet cannot be read as Parquet: .*have it written again"):
        read_footer(open_storage(".", {}, tmp_path), "a.parquet")


def test_parquet_is_known_by_name_or_first_bytes(tmp_path: Path) -> None:
    contents = {"000000_0": b"PAR1..", "part-0": b"a,b,c", "empty": b"", "2024.01.02": b"PAR1"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    storage = open_storage(".", {}, tmp_path)
    names = ("a.parquet", "p.snappy.PARQUET", "a.pq", "000000_0", "2024.01.02", "a.csv", "part-0", "empty")
    assert [is_parquet(storage, name) for name in names] == [True] * 5 + [False] * 3
