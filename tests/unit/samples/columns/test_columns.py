"""The columns of a split: what goes together, as which type, and what is said where it does not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from tests.sample_files import described_file
from tests.unit.samples.columns.split_columns import F64, I64, LARGE, TEXT
from trainflow.errors import SampleCheckFailed, SampleUnreadable
from trainflow.samples.spec import Checks, SplitLimits
from trainflow.samples.splits.next_split import SplitFound, next_split
from trainflow.samples.splits.split import Split
from trainflow.samples.splits.split_content import partition_of
from trainflow.samples.splits.split_xcom import split_from_xcom, split_to_xcom
from trainflow.storage.urls import open_storage


def write(daily: Any, number: int, *tables: pa.Table) -> None:
    daily.write(number)
    (daily.folder(number) / "a.parquet").unlink()
    for table, name in zip(tables, "abc", strict=False):
        pq.write_table(table, daily.folder(number) / f"{name}.parquet")


def split_of(daily: Any, now: datetime, policy: str = "strict", columns: Any = (), most: int | None = None) -> Split:
    samples = replace(daily.samples, columns=policy)
    found = next_split(samples, None, SplitLimits(partitions=most), now, daily.root, columns=columns)
    assert isinstance(found, SplitFound)
    return found.split.reached_by(root=daily.root)


def rows(split: Split) -> list[dict[str, Any]]:
    return [row for batch in split.batches() for row in batch.to_pylist()]


def by_text(row: dict[str, Any]) -> str:
    return row["s"] or ""


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_columns_of_other_types_give_stored_values_in_any_order(daily, now, order: Any) -> None:
    tables = (
        pa.table({"x": pa.array([1], I64), "s": pa.array([None], pa.null())}),
        pa.table({"x": pa.array([None], pa.null()), "s": pa.array(["a"], LARGE)}),
        pa.table({"s": pa.array(["b"]).dictionary_encode(), "x": pa.array([0.5])}),
    )
    for day, number in enumerate(order):
        write(daily, day, tables[number])
    split = split_of(daily, now)
    assert split.batches().schema == pa.schema({"s": LARGE, "x": F64})
    stored = [row for table in tables for row in table.to_pylist()]
    assert sorted(rows(split), key=by_text) == sorted(stored, key=by_text)


def test_batches_schema_is_known_without_opening_file(daily, now, tmp_path: Path) -> None:
    write(daily, 0, pa.table({"x": [1]}))
    write(daily, 1, pa.table({"x": [0.5]}))
    split = split_of(daily, now)
    xcom = split_to_xcom(split, spill_url=str(tmp_path))
    for path in daily.root.rglob("*.parquet"):
        path.unlink()
    handed = split_from_xcom(xcom)
    for rank in range(2):
        assert handed.batches(rank=rank, world_size=2, seed=rank).schema == pa.schema({"x": F64})


def test_split_through_manifest_keeps_its_columns(daily, now, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("trainflow.samples.splits.split_xcom.INLINE_BYTES", 0)
    write(daily, 0, pa.table({"x": [1]}))
    split = split_of(daily, now)
    handed = split_from_xcom(split_to_xcom(split, spill_url=str(tmp_path)))
    assert handed.columns == split.columns == (("x", "int64"),)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"x": [1]}, {"x": ["a"]}, "column 'x' is string, and int64 in data/date=2024-01-01/a.parquet"),
        ({"x": ["a"]}, {"x": [1]}, "column 'x' is int64, and string in data/date=2024-01-01/a.parquet"),
        ({"x": [1]}, {"x": [True]}, "column 'x' is bool, and int64 in"),
        ({"x": [1]}, {"x": [1], "y": [1]}, "has the column 'y', which data/date=2024-01-01/a.parquet has not"),
        ({"x": [1], "y": [1]}, {"x": [1]}, "has no column 'y', which data/date=2024-01-01/a.parquet has"),
        (
            {"x": pa.array([1], pa.timestamp("us"))},
            {"x": pa.array([1], pa.timestamp("us", "UTC"))},
            "one has the time zone none, the other UTC",
        ),
    ],
)
def test_columns_not_joinable_end_split_and_are_refused(daily, now, first: Any, second: Any, said: str) -> None:
    write(daily, 0, pa.table(first))
    write(daily, 1, pa.table(second))
    split = split_of(daily, now)
    assert len(split.partitions) == 1  # as with one partition a split
    with pytest.raises(SampleCheckFailed) as caught:
        next_split(daily.samples, split.end, None, now, daily.root, columns=split.columns)
    assert caught.value.partition == daily.start(1)
    there = said.replace("data/date=2024-01-01/a.parquet has not", "was not in").replace(
        "which data/date=2024-01-01/a.parquet has", "which the chain was trained on before"
    )
    there = there.replace("data/date=2024-01-01/a.parquet", "what the chain was trained on before")
    assert there in str(caught.value)
    assert "data/date=2024-01-02/a.parquet" in str(caught.value)


def test_columns_not_joinable_in_one_partition_are_refused_with_advice(daily, now) -> None:
    write(daily, 0, pa.table({"x": [1]}), pa.table({"x": ["a"]}))
    with pytest.raises(SampleCheckFailed, match=r"b\.parquet: column 'x' is string, and int64 in .*a\.parquet") as one:
        split_of(daily, now)
    said = "Have the column written with one type, or leave it out: 'trainflow resume PIPELINE --skip'"
    assert said in str(one.value)
    write(daily, 0, pa.table({"x": [1]}), pa.table({"x": [1], "y": [1]}))
    with pytest.raises(SampleCheckFailed, match=r"samples\.columns: fill"):
        split_of(daily, now)


@pytest.mark.parametrize("big_first", [True, False])
def test_value_that_common_type_cannot_hold_is_refused_before_training(daily, now, big_first: bool) -> None:
    tables = [pa.table({"x": [2**53 + 2]}), pa.table({"x": [0.5]})]
    write(daily, 0, *(tables if big_first else reversed(tables)))
    said = rf"{'a' if big_first else 'b'}\.parquet: column 'x' is int64, and double in .*: its value 9007199254740994"
    with pytest.raises(SampleCheckFailed, match=said):
        split_of(daily, now)


def test_partition_whose_values_only_fit_alone_is_split_alone(daily, now) -> None:
    write(daily, 0, pa.table({"x": [2**53 + 2]}))
    write(daily, 1, pa.table({"x": [0.5]}))
    first = split_of(daily, now)
    assert rows(first) == [{"x": 2**53 + 2}]
    second = next_split(daily.samples, first.end, None, now, daily.root, columns=first.columns).split
    assert second.columns == (("x", "double"),)


@pytest.mark.parametrize("days", [1, 2])
def test_columns_missing_are_null_with_any_days_a_split(daily, now, days: int) -> None:
    write(daily, 0, pa.table({"id": [1]}), pa.table({"id": [2], "device": ["ios"]}))
    write(daily, 1, pa.table({"id": [3], "s": [{"a": 1}]}), pa.table({"id": [4], "s": [{"b": 2}]}))
    found, columns, watermark = [], (), None
    samples = replace(daily.samples, columns="fill")
    for _ in range(2 // days):
        limits = SplitLimits(partitions=days)
        split = next_split(samples, watermark, limits, now, daily.root, columns=columns).split
        columns, watermark = split.columns, split.end
        found += rows(split.reached_by(root=daily.root))
    assert [(row["id"], row["device"], row.get("s")) for row in found] == [
        (1, None, None),
        (2, "ios", None),
        (3, None, {"a": 1, "b": None}),
        (4, None, {"a": None, "b": 2}),
    ]


def test_types_only_widen_along_chain(daily, now) -> None:
    write(daily, 0, pa.table({"x": [1]}))
    split = split_of(daily, now, columns=(("x", "double"),))
    assert split.columns == (("x", "double"),)
    assert rows(split) == [{"x": 1.0}]


def test_columns_changed_since_never_give_other_values(daily, now) -> None:
    write(daily, 0, pa.table({"x": [0.5]}))
    split = split_of(daily, now)
    pq.write_table(pa.table({"x": [2**53 + 1]}), daily.folder(0) / "a.parquet")
    with pytest.raises(SampleUnreadable, match=r"a\.parquet has changed since the split was made"):
        rows(split)


def test_columns_unspecified_are_those_of_all_files(tmp_path: Path) -> None:
    files = []
    for name, values in (("a", [1]), ("b", [0.5])):
        pq.write_table(pa.table({"x": values}), tmp_path / f"{name}.parquet")
        files.append(described_file(open_storage(".", {}, tmp_path), f"{name}.parquet"))
    day = partition_of(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC), tuple(files))
    batches = Split(day.start, day.end, 86400, (day,)).reached_by(root=tmp_path).batches()
    assert batches.schema == pa.schema({"x": F64})
    assert [value for batch in batches for value in batch["x"].to_pylist()] == [1.0, 0.5]


def test_duplicate_column_is_refused(daily, now) -> None:
    write(daily, 0, pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"]))
    with pytest.raises(SampleCheckFailed, match="the column 'x' is there twice"):
        split_of(daily, now)


def test_int96_timestamps_are_what_was_written_whatever_year(daily, now) -> None:
    moments = pa.array([datetime(9999, 12, 31), datetime(1, 1, 1), None], pa.timestamp("us"))
    daily.write(0)
    path = daily.folder(0) / "a.parquet"
    pq.write_table(pa.table({"x": moments}), path, use_deprecated_int96_timestamps=True)
    assert [row["x"] for row in rows(split_of(daily, now))] == moments.to_pylist()


def test_flipped_byte_of_page_with_checksum_is_error(daily, now) -> None:
    daily.write(0)
    path = daily.folder(0) / "a.parquet"
    table = pa.table({"x": list(range(5000))})
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[2000] ^= 0xFF
    path.write_bytes(data)
    split = split_of(daily, now)
    with pytest.raises(SampleUnreadable, match=r"a\.parquet cannot be read as Parquet: .*CRC"):
        rows(split)


def test_columns_values_are_read_only_without_proving_statistics(daily, now) -> None:
    options = {"compression": "none", "use_dictionary": False}
    for number, values in enumerate(([1, 2**53], [0.5])):
        daily.write(number)
        pq.write_table(pa.table({"x": values * 500}), daily.folder(number) / "a.parquet", **options)
    path = daily.folder(0) / "a.parquet"
    data = bytearray(path.read_bytes())
    data[200:4000] = b"\xff" * 3800  # the data pages, of which nothing may be read
    path.write_bytes(data)
    assert split_of(daily, now).columns == (("x", "double"),)


def test_parquet_without_suffix_is_read(daily, now) -> None:
    daily.write(0)
    folder = daily.folder(0)
    (folder / "a.parquet").rename(folder / "000000_0")
    samples = replace(daily.samples, files="0*")
    split = next_split(samples, None, None, now, daily.root).split.reached_by(root=daily.root)
    assert split.rows == 10
    assert [row["x"] for row in rows(split)] == list(range(10))


@pytest.mark.parametrize("nested", [False, True])
def test_int96_with_nanoseconds_is_refused_with_value(daily, now, nested: bool) -> None:
    values, kind = [1_700_000_000_123_456_000, None, 1_700_000_000_123_456_789], pa.timestamp("ns")
    column = pa.array([[value] for value in values], pa.list_(kind)) if nested else pa.array(values, kind)
    daily.write(0)
    path = daily.folder(0) / "a.parquet"
    pq.write_table(pa.table({"at": column}), path, use_deprecated_int96_timestamps=True)
    with pytest.raises(SampleCheckFailed, match=r"a\.parquet: column 'at' has 2023-11-14 22:13:20\.123456789 as INT96"):
        split_of(daily, now)


def in_folders(daily: Any, tables: dict[str, pa.Table], **checks: Any) -> Any:
    daily.write(0)
    (daily.folder(0) / "a.parquet").unlink()
    for folder, table in tables.items():
        (daily.folder(0) / folder).mkdir(parents=True)
        pq.write_table(table, daily.folder(0) / folder / "a.parquet")
    return replace(daily.samples, files="**/*.parquet", checks=Checks(**checks) if checks else None)


def test_columns_in_names_of_folders_are_text_in_every_file(daily, now, tmp_path: Path, monkeypatch) -> None:
    table = pa.table({"x": [1, 2]})
    tables = {
        "region=eu/hour=00": table,
        "region=a%2Fb c/hour=07": table,
        "region=__HIVE_DEFAULT_PARTITION__/hour=x": table,
    }
    samples = in_folders(daily, tables, nulls={"region": 0.4}, ranges={"hour": ("00", "x")})
    split = next_split(samples, None, None, now, daily.root).split
    monkeypatch.setattr("trainflow.samples.splits.split_xcom.INLINE_BYTES", 0)
    split = split_from_xcom(split_to_xcom(split, spill_url=str(tmp_path / "spill"))).reached_by(root=daily.root)
    assert split.batches().schema == pa.schema({"x": I64, "region": TEXT, "hour": TEXT})
    found = {(row["region"], row["hour"]) for row in rows(split)}
    assert found == {("eu", "00"), ("a/b c", "07"), (None, "x")}
    only = split.batches(columns=["hour"])
    assert sorted(row["hour"] for batch in only for row in batch.to_pylist()) == ["00", "00", "07", "07", "x", "x"]


def test_columns_in_folder_names_have_declared_type_or_are_refused(daily, now) -> None:
    table = pa.table({"x": [1]})
    samples = in_folders(daily, {"hour=007": table, "hour=12": table}, columns={"hour": "int32"})
    split = next_split(samples, None, None, now, daily.root).split.reached_by(root=daily.root)
    assert sorted(row["hour"] for row in rows(split)) == [7, 12]
    other = replace(samples, checks=Checks(ranges={"hour": (None, "08")}))
    with pytest.raises(SampleCheckFailed, match="column 'hour': expected at most 08, found 12"):
        next_split(other, None, None, now, daily.root)
    (daily.folder(0) / "hour=12").rename(daily.folder(0) / "hour=noon")
    with pytest.raises(SampleCheckFailed, match=r"hour=noon/a\.parquet: column 'hour' in its path: 'noon' is no int32"):
        next_split(samples, None, None, now, daily.root)


@pytest.mark.parametrize(
    ("column", "other"),
    [(["eu", "eu"], None), (["eu", "us"], "'us'"), (["eu", None], "None"), ([1, 2], "'eu' is no int64")],
)
def test_column_in_path_and_file_agrees_or_is_refused(daily, now, column: list[Any], other: str | None) -> None:
    samples = in_folders(daily, {"region=eu": pa.table({"region": column})})
    if other is None:
        split = next_split(samples, None, None, now, daily.root).split.reached_by(root=daily.root)
        assert [row["region"] for row in rows(split)] == column
        return
    with pytest.raises(SampleCheckFailed, match=f"column 'region' is 'eu' in its path, and in the file: {other}"):
        next_split(samples, None, None, now, daily.root)


def test_column_that_only_some_paths_have_is_refused_or_filled(daily, now) -> None:
    samples = in_folders(daily, {"region=eu": pa.table({"x": [1]}), "plain": pa.table({"x": [2]})})
    with pytest.raises(SampleCheckFailed, match="'region'"):
        next_split(samples, None, None, now, daily.root)
    split = next_split(replace(samples, columns="fill"), None, None, now, daily.root).split
    found = rows(split.reached_by(root=daily.root))
    assert {row["x"]: row["region"] for row in found} == {1: "eu", 2: None}
