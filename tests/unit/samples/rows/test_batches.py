from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from trainflow.errors import InputError, SampleChanged, SamplesRefused
from trainflow.samples.rows.order import windows
from trainflow.samples.splits.next_split import SplitFound, next_split
from trainflow.samples.splits.split import Split


@pytest.fixture
def split(daily, now) -> Split:
    daily.write(0, 1, 2)
    found = next_split(daily.samples, None, None, now, daily.root)
    assert isinstance(found, SplitFound)
    return found.split.reached_by(root=daily.root)


CHRONOLOGICAL = [day * 1000 + row for day in range(3) for row in range(10)]


def values(batches) -> list[int]:
    return [value for batch in batches for value in batch.column("x").to_pylist()]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 100])
def test_chronological_batches_of_one_size(split: Split, batch_size: int) -> None:
    found = list(split.batches(batch_size=batch_size))
    assert values(found) == CHRONOLOGICAL
    assert all(batch.num_rows == batch_size for batch in found[:-1])
    assert all(isinstance(batch, pa.RecordBatch) for batch in found)


def test_batches_read_at_once_are_what_is_left_of_them(split: Split) -> None:
    batches = split.batches(batch_size=7)
    first = next(batches).column("x").to_pylist()
    assert first + batches.read_all().column("x").to_pylist() == CHRONOLOGICAL
    assert batches.position["row"] == batches.total_rows
    nothing = batches.read_all()
    assert (nothing.num_rows, nothing.schema) == (0, batches.schema)
    assert list(split.batches().read_pandas()["x"]) == CHRONOLOGICAL


def test_seed_shuffles_and_always_same_way(split: Split) -> None:
    one, again, other = (values(split.batches(batch_size=7, seed=seed)) for seed in (1, 1, 2))
    assert one == again
    assert sorted(one) == sorted(other) == CHRONOLOGICAL
    assert one != other
    assert one != CHRONOLOGICAL
    assert one == values(split.batches(batch_size=4, seed=1))


def test_batches_each_epoch_has_own_order_first_as_alone(split: Split) -> None:
    batches = split.batches(batch_size=7, seed=1, epochs=3)
    assert batches.total_rows == 90
    found = values(batches)
    first, second, third = found[:30], found[30:60], found[60:]
    assert sorted(first) == sorted(second) == sorted(third) == CHRONOLOGICAL
    assert first != second != third != first
    assert first == values(split.batches(batch_size=7, seed=1))


def test_position_says_how_many_epochs_are_behind(split: Split) -> None:
    batches = split.batches(batch_size=15, epochs=3)
    seen = [(batches.epoch, batches.position["row"]) for _ in batches]
    assert seen == [(0, 15), (1, 30), (1, 45), (2, 60), (2, 75), (3, 90)]
    # what was saved in the second epoch is nothing for a reader of only one
    with pytest.raises(InputError, match="at row 45 of 30"):
        split.batches(position={**batches.position, "row": 45})


def test_shuffled_order_is_pinned() -> None:
    """Positions were saved in it: when this fails, what changed makes every saved position mean something else."""
    from trainflow.samples.rows.order import permutation
    from trainflow.samples.splits.split_content import SampleFile, partition_of

    file = SampleFile("a.parquet", 1, 12, "f", (5, 4, 3))
    day = partition_of(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC), (file,))
    split = Split(day.start, day.end, 86400, (day,))
    (window,), (second,) = windows(split, 7), windows(split, 7, epoch=1)
    assert permutation(window).tolist() == PINNED
    assert permutation(second).tolist() == PINNED_SECOND


PINNED = [6, 2, 5, 9, 11, 0, 1, 10, 4, 3, 7, 8]
PINNED_SECOND = [2, 1, 5, 4, 8, 11, 6, 9, 0, 7, 3, 10]


def test_batches_without_epochs_are_refused(split: Split) -> None:
    with pytest.raises(InputError, match="epochs is 0; it must be at least 1"):
        split.batches(epochs=0)


def test_position_is_json_and_resumes_exactly(split: Split) -> None:
    for seed in (None, 5):
        whole = values(split.batches(batch_size=4, seed=seed))
        reading = split.batches(batch_size=4, seed=seed)
        head = values(islice(reading, 3))
        position = json.loads(json.dumps(reading.position))
        reading.close()
        assert head + values(split.batches(batch_size=7, seed=seed, position=position)) == whole


def test_position_at_end_and_at_beginning(split: Split) -> None:
    reading = split.batches(batch_size=4)
    assert values(split.batches(position=reading.position)) == CHRONOLOGICAL
    values(reading)
    assert values(split.batches(position=reading.position)) == []


def test_position_of_something_else_is_refused(split: Split, daily, now) -> None:
    position = split.batches(seed=1).position
    with pytest.raises(InputError, match="another seed: it says 1, this reading has 2"):
        split.batches(seed=2, position=position)
    daily.write(3)
    longer = next_split(daily.samples, None, None, now, daily.root).split
    with pytest.raises(InputError, match="another split"):
        longer.batches(seed=1, position=position)
    for broken in ({**position, "row": 31}, {**position, "row": "x"}, {}):
        with pytest.raises(InputError):
            split.batches(seed=1, position=broken)


def test_rank_reads_only_what_it_needs(split: Split, daily) -> None:
    (daily.folder(1) / "a.parquet").unlink()
    (daily.folder(2) / "a.parquet").unlink()
    assert values(split.batches(batch_size=10, rank=0, world_size=3)) == CHRONOLOGICAL[:10]


def test_rank_without_rows_gets_batch_with_columns_of_split(split: Split) -> None:
    first = split.batches(batch_size=100, rank=0, world_size=40)
    (batch,) = first
    assert (batch.num_rows, batch.schema) == (0, split.batches().schema)
    assert first.position["row"] == 30


@pytest.mark.parametrize("more", [{"rank": 2, "world_size": 2}, {"rank": -1}, {"batch_size": 0}])
def test_arguments_that_mean_nothing(split: Split, more: dict[str, int]) -> None:
    with pytest.raises(InputError):
        split.batches(**more)


def test_batches_unknown_column_is_refused(split: Split) -> None:
    with pytest.raises(SamplesRefused, match="no column 'X'"):
        next(split.batches(columns=["X"]))


def write(daily, number: int, table: pa.Table) -> None:
    pq.write_table(table, daily.folder(number) / "a.parquet")


_VIEW = pa.string_view()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (_VIEW, "a"),
        (pa.binary_view(), b"a"),
        (pa.list_(_VIEW), ["a", None]),
        (pa.large_list(_VIEW), ["a"]),
        (pa.list_(_VIEW, 2), ["a", "b"]),
        (pa.struct([("s", _VIEW), ("n", pa.int64())]), {"s": "a", "n": 1}),
        (pa.map_(pa.string(), _VIEW), [("k", "v")]),
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [None, 1])
def test_batches_views_are_read_as_plain_text_in_any_order(daily, now, kind, value, seed: int | None) -> None:
    daily.write(0)
    # Arrow reads no Parquet file with a null in a column of lists of one size
    stored = [value, value] if pa.types.is_fixed_size_list(kind) else [value, None, value]
    try:
        write(daily, 0, pa.table({"v": pa.array(stored, kind)}))
    except pa.ArrowNotImplementedError as error:  # PyArrow 17
        pytest.skip(f"this PyArrow writes no such column: {error}")
    found = next_split(daily.samples, None, None, now, daily.root)
    assert isinstance(found, SplitFound)
    (batch,) = found.split.reached_by(root=daily.root).batches(seed=seed)
    assert sorted(batch["v"].to_pylist(), key=str) == sorted(stored, key=str)
    assert "view" not in str(batch.schema)


def test_columns_in_order_they_were_asked_for(daily, now) -> None:
    daily.write(0, 1)
    write(daily, 0, pa.table({"x": [1, 2], "y": ["a", "b"], "z": [0.5, 1.5]}))
    write(daily, 1, pa.table({"z": [2.5], "w": [0], "y": ["c"], "x": pa.array([3], pa.int32())}))
    samples = replace(daily.samples, columns="fill")
    split = next_split(samples, None, None, now, daily.root).split.reached_by(root=daily.root)
    reading = split.batches(columns=["y", "x"], batch_size=10)
    assert reading.schema.names == ["y", "x"]
    assert [batch.to_pydict() for batch in reading] == [{"y": ["a", "b", "c"], "x": [1, 2, 3]}]


def test_file_that_changed_or_went_since_split_was_made(split: Split, daily) -> None:
    daily.write(1, rows=11)
    changed = r"date=2024-01-02/a\.parquet has changed since the split was made, from \w+ to \w+"
    with pytest.raises(SampleChanged, match=changed):
        values(split.batches())
    (daily.folder(0) / "a.parquet").unlink()
    with pytest.raises(SampleChanged, match=r"date=2024-01-01/a\.parquet \(\w+\) is gone"):
        values(split.batches())


def test_files_that_are_no_parquet_are_refused(tmp_path: Path) -> None:
    from trainflow.samples.splits.split_content import SampleFile, partition_of

    day = partition_of(
        datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC), (SampleFile("a.csv", 1, None, "f"),)
    )
    with pytest.raises(SamplesRefused, match=r"a\.csv is none"):
        Split(day.start, day.end, 86400, (day,)).batches()


def test_batches_storage_options_are_never_serialized_or_shown(split: Split) -> None:
    import msgspec

    bound = split.reached_by(storage_options={"key": "topsecret"})
    assert bound == split
    assert bound.digest == split.digest
    assert b"topsecret" not in msgspec.json.encode(bound)
    assert "topsecret" not in repr(bound) + repr(bound.reading)
