"""Values arrive as they were stored, or are refused: whatever types the files have, in whatever order, however they are
dealt to splits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainflow.errors import SampleCheckFailed
from trainflow.samples.columns.cast import decided_by_values
from trainflow.samples.columns.common_type import NoCommonType, common_type
from trainflow.samples.columns.types import columns_of, schema_of
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.samples.splits.next_split import CaughtUp, SplitFound, next_split

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2025, 1, 1, tzinfo=UTC)

BIG = 2**53 + 1
#: types with values of each, some of which another type cannot hold
PLAIN: list[tuple[pa.DataType, list[Any]]] = [
    (pa.null(), [None]),
    (pa.bool_(), [True, False]),
    (pa.int8(), [-128, 1, 127]),
    (pa.int32(), [-(2**31), 7]),
    (pa.int64(), [1, BIG, -(2**63)]),
    (pa.uint8(), [255, 0]),
    (pa.uint64(), [1, 2**64 - 1]),
    (pa.float32(), [0.5, -3.0]),
    (pa.float64(), [0.1, 1e300, 3.0]),
    (pa.string(), ["a", "é", "7"]),
    (pa.large_string(), ["b"]),
    (pa.dictionary(pa.int32(), pa.string()), ["c", "d"]),
    (pa.binary(), [b"a"]),
    (pa.date32(), [date(2024, 1, 1)]),
    (pa.timestamp("ms"), [datetime(2024, 1, 1), datetime(9999, 12, 31)]),
    (pa.timestamp("us"), [datetime(2024, 1, 1, 0, 0, 0, 1)]),
    (pa.timestamp("ns"), [datetime(2024, 1, 1)]),
    (pa.timestamp("us", "UTC"), [datetime(2024, 1, 1, tzinfo=UTC)]),
    (pa.duration("s"), [timedelta(days=20_000_000), timedelta(seconds=1)]),
    (pa.duration("ns"), [timedelta(seconds=1)]),
    (pa.decimal128(5, 2), [Decimal("1.25")]),
    (pa.decimal128(12, 4), [Decimal("1.2345")]),
]


def nested(pair: tuple[pa.DataType, list[Any]], how: str) -> tuple[pa.DataType, list[Any]]:
    kind, values = pair
    if how == "list":
        return pa.list_(kind), [values, [], [None]]
    if how == "large_list":
        return pa.large_list(kind), [values]
    if how == "struct":
        return pa.struct({"a": kind}), [{"a": value} for value in values]
    return pa.map_(pa.string(), kind), [[("k", value)] for value in values]


def having(*wanted: str) -> list[tuple[pa.DataType, list[Any]]]:
    return [pair for pair in PLAIN if str(pair[0]).startswith(wanted)]


#: what may go together, and everything
FAMILIES = [
    having("null", "int64", "double"),
    having("int", "uint"),
    having("float", "double", "int8"),
    having("timestamp"),
    having("duration", "null"),
    having("string", "large_string", "dictionary", "null"),
    having("decimal"),
    PLAIN,
]
HOW = st.sampled_from([None, None, None, "list", "large_list", "struct", "map"])


@st.composite
def families(draw: st.DrawFn, size: int) -> list[tuple[pa.DataType, list[Any]]]:
    """Types with their values, most of which go together."""
    family, how = draw(st.sampled_from(FAMILIES)), draw(HOW)
    found = draw(st.lists(st.sampled_from(family), min_size=2, max_size=size))
    return [pair if how is None else nested(pair, how) for pair in found]


@st.composite
def days(draw: st.DrawFn) -> list[pa.Table]:
    found = []
    for kind, values in draw(families(4)):
        column = draw(st.lists(st.sampled_from([*values, None]), min_size=1, max_size=3))
        found.append(pa.table({"x": pa.array(column, kind)}))
    return found


def joined(types: tuple[pa.DataType, ...]) -> pa.DataType | None:
    found = pa.null()
    try:
        for kind in types:
            found = common_type(found, kind)
    except NoCommonType:
        return None
    return found


@settings(max_examples=300, deadline=None)
@given(families(3))
def test_join_does_not_depend_on_order(typed: list[tuple[pa.DataType, list[Any]]]) -> None:
    types = tuple(kind for kind, _ in typed)
    assert all(common_type(kind, kind) == kind for kind in types)
    found = {str(joined(order)) for order in permutations(types)}
    assert len(found) == 1
    whole = joined(types)
    if whole is not None:
        assert schema_of(columns_of(pa.schema({"x": whole}))) == pa.schema({"x": whole})
        assert all(common_type(whole, kind) == whole for kind in types)
        assert not decided_by_values(whole, whole)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def lay_out(root: Path, partitions: list[list[pa.Table]]) -> Samples:
    root = Path(tempfile.mkdtemp(dir=root))
    for number, files in enumerate(partitions):
        day = root / f"{START + timedelta(days=number):%Y-%m-%d}"
        day.mkdir()
        for name, table in enumerate(files):
            pq.write_table(table, day / f"{name}.parquet")
        (day / "_SUCCESS").touch()
    return Samples(path=f"{root}/{{start:%Y-%m-%d}}/", length_seconds=86400, start=START)


def stored(table: pa.Table) -> list[Any]:
    return table.column("x").to_pylist()


def train(samples: Samples, days_a_split: int) -> tuple[list[Any], list[pa.DataType]]:
    """What a chain is trained on until there is nothing more, or it is refused: values, and the types of the splits."""
    watermark, columns, values, types = None, (), [], []
    while True:
        try:
            limits = SplitLimits(partitions=days_a_split)
            found = next_split(samples, watermark, limits, NOW, None, columns=columns)
        except SampleCheckFailed:
            return values, types
        if isinstance(found, CaughtUp):
            return values, types
        assert isinstance(found, SplitFound)
        batches = found.split.batches(batch_size=2)
        types.append(batches.schema.field("x").type)
        for batch in batches:
            assert batch.schema == batches.schema
            values += batch.column("x").to_pylist()
        watermark, columns = found.split.end, found.split.columns


@settings(max_examples=60, deadline=None)
@given(days())
@example([pa.table({"x": [BIG]}), pa.table({"x": [0.1]})])
@example([pa.table({"x": [[BIG]]}), pa.table({"x": [[0.1]]})])
@example([pa.table({"x": pa.array([2**64 - 1], pa.uint64())}), pa.table({"x": [1]})])
def test_columns_in_any_grouping_keep_stored_values(folder: Path, days: list[pa.Table]) -> None:
    samples = lay_out(folder, [[table] for table in days])
    one_by_one, types = train(samples, 1)
    everything = [value for table in days for value in stored(table)]
    assert one_by_one == everything[: len(one_by_one)]
    assert all(common_type(before, after) == after for before, after in pairwise(types))
    for size in range(2, len(days) + 1):
        assert train(samples, size)[0] == one_by_one


@settings(max_examples=40, deadline=None)
@given(days())
def test_columns_in_any_file_order_give_one_schema_or_refusal(folder: Path, days: list[pa.Table]) -> None:
    found = set()
    for order in permutations(days[:3]):
        values, types = train(lay_out(folder, [list(order)]), 1)
        found.add(tuple(map(str, types)))
        if types:
            assert values == [value for table in order for value in stored(table)]
    assert len(found) == 1
