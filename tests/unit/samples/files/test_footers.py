"""Ranges, nulls and types of real files by several writers: type by writer, what just holds and what just does not."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.unit.samples.written.make import COLUMNS, FOLDER, WRITERS
from trainflow.samples.files.footers import read_footer
from trainflow.samples.spec import Checks
from trainflow.samples.table.checks import problems
from trainflow.storage.urls import open_storage

HELD = [
    (writer, column)
    for writer in WRITERS
    for column in COLUMNS
    if column in pq.read_schema(FOLDER / f"{writer}.parquet").names
]


def found(writer: str, **more: Any) -> tuple[str, ...]:
    checks = Checks(**more)
    footer = read_footer(open_storage(".", {}, FOLDER), f"{writer}.parquet", checks)
    return problems(checks, [(writer, footer)])


def missing(column: str) -> int:
    return sum(value is None or value != value for value in COLUMNS[column][1])


@pytest.mark.parametrize(("writer", "column"), HELD)
def test_range_that_just_holds_passes(writer: str, column: str) -> None:
    assert found(writer, ranges={column: COLUMNS[column][2]}) == ()


@pytest.mark.parametrize(("writer", "column"), [pair for pair in HELD if pair[1] != "nothing"])
def test_range_just_exceeded_is_refused_on_each_side(writer: str, column: str) -> None:
    low, high = COLUMNS[column][3]
    (below,) = found(writer, ranges={column: (low, None)})
    (above,) = found(writer, ranges={column: (None, high)})
    assert below.startswith(f"{writer}: column {column!r}: expected at least {low}, found ")
    assert above.startswith(f"{writer}: column {column!r}: expected at most {high}, found ")
    # what is found is a value, not a bound that a writer cut
    if column in ("long_text", "very_long"):
        assert below.endswith("ma")
        assert above.endswith("mb")


@pytest.mark.parametrize(("writer", "column"), HELD)
def test_nulls_and_nan_are_counted(writer: str, column: str) -> None:
    fraction = missing(column) / 8
    assert found(writer, nulls={column: fraction}) == ()
    (said,) = found(writer, nulls={column: fraction - 0.01})
    assert f"({missing(column)} of 8 rows" in said


#: where what is written is another type, and not only held in memory in another way
OTHER_TYPES = {
    ("pandas", "int8"): "double",
    ("pandas", "decimal"): "decimal128(2, 2)",
    ("pandas", "decimal_wide"): "decimal128(2, 2)",
    ("fastparquet", "int8"): "double",
}


@pytest.mark.parametrize(("writer", "column"), HELD)
def test_type_goes_by_name_from_any_writer(writer: str, column: str) -> None:
    other = OTHER_TYPES.get((writer, column))
    expected = () if other is None else (f"{writer}: column {column!r}: expected {COLUMNS[column][0]}, found {other}",)
    assert found(writer, columns={column: COLUMNS[column][0]}) == expected
