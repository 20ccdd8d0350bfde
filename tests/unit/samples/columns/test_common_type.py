"""Which type two types have in common, and when there is none."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.unit.samples.columns.split_columns import F16, F32, F64, I32, I64, LARGE, TEXT, U8, U64
from trainflow.samples.columns.common_type import NoCommonType, common_type


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (pa.null(), TEXT, TEXT),
        (I32, I64, I64),
        (U8, pa.uint32(), pa.uint32()),
        (U8, pa.int8(), pa.int16()),
        (pa.uint32(), pa.int8(), I64),
        (U64, pa.int8(), I64),
        (I64, F64, F64),
        (U8, F16, F64),
        (F32, F64, F64),
        (F16, F32, F32),
        (TEXT, LARGE, LARGE),
        (TEXT, pa.string_view(), LARGE),
        (pa.binary(), pa.large_binary(), pa.large_binary()),
        (pa.dictionary(I32, TEXT), TEXT, TEXT),
        (pa.dictionary(I32, TEXT), LARGE, LARGE),
        (pa.dictionary(pa.int8(), TEXT), pa.dictionary(I32, LARGE), pa.dictionary(I32, LARGE)),
        (pa.decimal128(5, 2), pa.decimal128(10, 4), pa.decimal128(10, 4)),
        (pa.decimal128(38, 0), pa.decimal128(5, 2), pa.decimal256(40, 2)),
        (pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("us")),
        (pa.timestamp("ms", "+00:00"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
        (pa.timestamp("s", "Europe/Berlin"), pa.timestamp("ns", "Europe/Berlin"), pa.timestamp("ns", "Europe/Berlin")),
        (pa.duration("s"), pa.duration("ms"), pa.duration("ms")),
        (pa.time32("s"), pa.time64("ns"), pa.time64("ns")),
        (pa.date32(), pa.date64(), pa.date32()),
        (pa.list_(I32), pa.large_list(F64), pa.large_list(F64)),
        (pa.list_(I32, 2), pa.list_(I64, 2), pa.list_(I64, 2)),
        (pa.struct({"a": I32, "b": pa.null()}), pa.struct({"b": TEXT, "a": I64}), pa.struct({"a": I64, "b": TEXT})),
        (pa.map_(TEXT, I32), pa.map_(LARGE, F64), pa.map_(LARGE, F64)),
    ],
    ids=str,
)
def test_join_two_types_is_narrowest_that_holds_both(one: Any, other: Any, expected: Any) -> None:
    assert common_type(one, other) == common_type(other, one) == expected
    assert common_type(expected, one) == common_type(expected, other) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TEXT, I64),
        (TEXT, pa.binary()),
        (I64, pa.bool_()),
        (I64, pa.timestamp("us")),
        (I64, pa.decimal128(19, 0)),
        (F64, pa.decimal128(5, 2)),
        (pa.timestamp("us"), pa.date32()),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us", "Europe/Berlin"), pa.timestamp("us", "UTC")),
        (pa.duration("s"), I64),
        (pa.binary(2), pa.binary(3)),
        (pa.list_(I64), I64),
        (pa.list_(I64, 2), pa.list_(I64, 3)),
        (pa.list_(I64, 2), pa.list_(I64)),
        (pa.struct({"a": I64}), pa.struct({"a": I64, "b": I64})),
        (pa.struct({"a": I64}), pa.struct({"a": TEXT})),
        (pa.decimal256(76, 0), pa.decimal256(76, 1)),
    ],
    ids=str,
)
def test_join_types_of_different_kinds_is_refused(one: Any, other: Any) -> None:
    for pair in ((one, other), (other, one)):
        with pytest.raises(NoCommonType):
            common_type(*pair)


def test_join_structs_with_fill_has_fields_of_both() -> None:
    joined = common_type(pa.struct({"b": I64}), pa.struct({"b": I64, "a": TEXT}), fill=True)
    assert joined == pa.struct({"a": TEXT, "b": I64})
