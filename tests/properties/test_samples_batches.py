"""Every row comes exactly once: for any files, any seed, any number of ranks, from any position."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sample_files import described_file
from trainflow.samples.rows.order import RankRows, Window, permutation, rows_of_step, share
from trainflow.samples.splits.split import Split
from trainflow.samples.splits.split_content import SampleFile, partition_of
from trainflow.storage.urls import open_storage

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
#: row groups of each file
SHAPES = ((), (1,), (5, 5, 3), (40,), (7, 1, 1, 20))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@cache
def sample_file(folder: Path, number: int, shape: tuple[int, ...]) -> SampleFile:
    path = folder / f"{number}-{'-'.join(map(str, shape))}.parquet"
    schema, first = pa.schema([("x", pa.int64())]), number * 1000
    with pq.ParquetWriter(path, schema) as writer:
        for rows in shape:
            writer.write_table(pa.table({"x": list(range(first, first + rows))}, schema))
            first += rows
    return described_file(open_storage(".", {}, None), str(path))


def split_of(folder: Path, shapes: list[tuple[int, ...]]) -> Split:
    partitions = tuple(
        partition_of(START + n * DAY, START + (n + 1) * DAY, (sample_file(folder, n, shape),))
        for n, shape in enumerate(shapes)
    )
    return Split(START, START + len(shapes) * DAY, 86400, partitions)


def rows(split: Split) -> list[int]:
    return [n * 1000 + row for n, file in enumerate(split.files) for row in range(file.rows or 0)]


def values(batches: Iterator[Any]) -> list[int]:
    return [value for batch in batches for value in batch.column(0).to_pylist()]


shapes = st.lists(st.sampled_from(SHAPES), min_size=1, max_size=5)
seeds = st.none() | st.integers(-(2**70), 2**70)
quiet = settings(max_examples=60)


@quiet
@given(shapes, seeds, st.integers(1, 30), st.integers(1, 5), st.integers(1, 3))
def test_ranks_share_stream_and_every_row_comes_once_epoch(
    folder: Path, shapes: list[tuple[int, ...]], seed: int | None, batch_size: int, world_size: int, epochs: int
) -> None:
    split = split_of(folder, shapes)
    whole = [batch.column(0).to_pylist() for batch in split.batches(batch_size=batch_size, seed=seed, epochs=epochs)]
    found = [row for batch in whole for row in batch]
    each = len(rows(split))
    assert len(found) == each * epochs
    for epoch in range(epochs):
        once = found[epoch * each : (epoch + 1) * each]
        assert sorted(once) == rows(split)
        assert seed is not None or once == rows(split)
    assert all(len(batch) == batch_size for batch in whole[:-1])
    readers = [split.batches(None, batch_size, seed, rank, world_size, None, epochs) for rank in range(world_size)]
    steps = list(zip(*readers, strict=True))  # all ranks take as many
    assert [row for step in steps for batch in step for row in batch.column(0).to_pylist()] == found
    assert all(batch.num_rows == batch_size for step in steps[:-2] for batch in step)


@quiet
@given(shapes, seeds, st.integers(1, 30), st.integers(1, 3), st.data())
def test_resuming_with_other_ranks_goes_on_exactly_where_it_stopped(
    folder: Path, shapes: list[tuple[int, ...]], seed: int | None, batch_size: int, epochs: int, data: st.DataObject
) -> None:
    split = split_of(folder, shapes)
    seen: list[int] = []
    position = None
    for _ in range(3):
        world_size = data.draw(st.integers(1, 4))
        steps = data.draw(st.integers(0, 3))
        readers = [
            split.batches(None, batch_size, seed, rank, world_size, position, epochs) for rank in range(world_size)
        ]
        for _ in range(steps):
            for reader in readers:
                batch = next(reader, None)
                seen += [] if batch is None else batch.column(0).to_pylist()
        positions = [reader.position for reader in readers]
        assert all(found == positions[0] for found in positions)
        position = positions[0]
        for reader in readers:
            reader.close()
    rest, whole = split.batches(seed=seed, position=position, epochs=epochs), split.batches(seed=seed, epochs=epochs)
    assert seen + values(rest) == values(whole)


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
def test_window_is_permuted(rows: int, key: int) -> None:
    assert sorted(permutation(Window(0, rows, (), key)).tolist()) == list(range(rows))


@given(st.integers(0, 300), st.integers(0, 100), st.integers(1, 12), st.integers(1, 5), st.data())
def test_windows_of_rank_are_those_it_needs(
    total: int, first: int, batch_size: int, ranks: int, data: st.DataObject
) -> None:
    first = min(first, total)
    rank = data.draw(st.integers(0, ranks - 1))
    offset, rows = data.draw(st.integers(0, 310)), data.draw(st.integers(1, 60))
    mine: set[int] = set()
    row = first
    while row < total:
        step = rows_of_step(total - row, batch_size, ranks)
        low, high = share(step, rank, ranks)
        mine |= set(range(row + low, row + high))
        row += step
    needed = bool(mine & set(range(offset, offset + rows)))
    assert RankRows(first, total, batch_size, rank, ranks).overlaps(Window(offset, rows, ())) is needed


@given(st.integers(0, 500), st.integers(1, 40), st.integers(1, 9))
def test_steps_share_out_all_rows_and_no_rank_is_without_while_there_are_enough(
    left: int, batch_size: int, ranks: int
) -> None:
    taken = 0
    while taken < left:
        rows = rows_of_step(left - taken, batch_size, ranks)
        parts = [share(rows, rank, ranks) for rank in range(ranks)]
        assert [row for low, high in parts for row in range(low, high)] == list(range(rows))
        sizes = [high - low for low, high in parts]
        assert 0 < max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) > 0 or left < ranks or batch_size == 1
        taken += rows
    assert taken == left
