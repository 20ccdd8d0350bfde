"""A cast keeps every value, or refuses it with its place."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.samples.columns.split_columns import F16, F32, F64, I32, I64, LARGE, TEXT, U8, U64
from trainflow.samples.columns.cast import InexactCast, cast
from trainflow.samples.columns.types import columns_of, schema_of


def array_of(values: list[Any], kind: Any) -> pa.Array:
    return pa.array(values, F32).cast(F16) if kind == F16 else pa.array(values, kind)


@pytest.mark.parametrize(
    ("values", "found", "wanted"),
    [
        ([2**53, -(2**53), None], I64, F64),
        ([2**63 - 1, 0], U64, I64),
        ([1.5, None], F16, F64),
        (["a", None], pa.dictionary(pa.int8(), TEXT), LARGE),
        (["a", None], pa.string_view(), LARGE),
        ([Decimal("1.25"), None], pa.decimal128(5, 2), pa.decimal256(60, 10)),
        ([datetime(2262, 4, 11), None], pa.timestamp("s"), pa.timestamp("ns")),
        ([[1, None], None, [], [2]], pa.list_(I32), pa.large_list(F64)),
        ([[1, None], None, [2, 3]], pa.list_(I32, 2), pa.list_(F64, 2)),
        ([{"a": 1}, None, {"a": None}], pa.struct({"a": pa.int8()}), pa.struct({"a": I64})),
        ([[("k", 1), ("j", None)], None, []], pa.map_(TEXT, I32), pa.map_(LARGE, F64)),
        (
            [[{"a": [1]}], None, [None]],
            pa.list_(pa.struct({"a": pa.list_(U8)})),
            pa.list_(pa.struct({"a": pa.list_(I64)})),
        ),
        ([None, None], pa.null(), pa.list_(I32)),
        ([], pa.list_(I32), pa.list_(F64)),
    ],
    ids=str,
)
def test_cast_keeps_every_value_also_of_slice(values: list[Any], found: Any, wanted: Any) -> None:
    array, longer = array_of(values, found), array_of([*values, None], found)
    sliced = pa.chunked_array([longer.slice(1), array])
    for each in (array, sliced):
        done = cast(each, wanted)
        done.validate(full=True)
        assert done.type == wanted
        assert done.to_pylist() == each.to_pylist()


@pytest.mark.parametrize(
    ("values", "found", "wanted", "value"),
    [
        ([1, 2**53 + 2], I64, F64, "9007199254740994"),
        ([-(2**53) - 1], I64, F64, "-9007199254740993"),
        ([2**53 + 1], U64, F64, "9007199254740993"),
        ([1, 2**64 - 1], U64, I64, "18446744073709551615"),
        ([datetime(9999, 12, 31)], pa.timestamp("us"), pa.timestamp("ns"), "9999-12-31 00:00:00"),
        ([datetime(1600, 1, 1)], pa.timestamp("s", "UTC"), pa.timestamp("ns", "UTC"), "1600-01-01 00:00:00"),
        ([2**40], pa.duration("s"), pa.duration("ns"), "1099511627776 s"),
        ([[1], [2**60]], pa.list_(I64), pa.list_(F64), "1152921504606846976"),
        (
            [{"a": {"b": 2**60}}],
            pa.struct({"a": pa.struct({"b": I64})}),
            pa.struct({"a": pa.struct({"b": F64})}),
            "115",
        ),
        ([[("k", 2**60)]], pa.map_(TEXT, I64), pa.map_(TEXT, F64), "1152921504606846976"),
    ],
    ids=str,
)
def test_cast_value_that_does_not_fit_is_refused_with_it(
    values: list[Any], found: Any, wanted: Any, value: str
) -> None:
    with pytest.raises(InexactCast, match=value):
        cast(pa.array(values, found), wanted)


def test_columns_as_text_are_read_back_exactly() -> None:
    fields = [
        pa.field("required", I64, nullable=False),
        pa.field("zoned", pa.timestamp("ns", "Europe/Berlin")),
        pa.field("a: int64 not null", pa.struct([pa.field("x,<>", pa.list_(pa.field("element", U8, nullable=False)))])),
        pa.field("map", pa.map_(TEXT, pa.dictionary(pa.int8(), LARGE))),
        pa.field("vector", pa.list_(F32, 3), nullable=False),
        pa.field("decimal", pa.decimal256(60, -2)),
        pa.field("bytes", pa.binary(16)),
        pa.field("interval", pa.month_day_nano_interval()),
    ]
    schema = pa.schema(fields)
    assert schema_of(columns_of(schema)) == schema
    assert columns_of(schema)[:2] == (("required", "int64 not null"), ("zoned", "timestamp[ns, tz=Europe/Berlin]"))
