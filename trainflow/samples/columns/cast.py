"""Values as another type, exactly or not at all. Only for types that `join` made of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

#: every whole number up to here is a double
EXACT_DOUBLE = 1 << 53
_LARGEST = (1 << 63) - 1
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_WIDE = (pa.int64(), pa.uint64())


class InexactCast(ValueError):
    """A value that the wanted type cannot hold exactly; the text is the value."""


def cast(column: pa.Array | pa.ChunkedArray, wanted: pa.DataType) -> Any:
    """The values as `wanted`. Raises InexactCast with the first that does not fit."""
    if column.type.equals(wanted):
        return column
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([_cast(chunk, wanted) for chunk in column.chunks], wanted)
    return _cast(column, wanted)


def limits(found: pa.DataType, wanted: pa.DataType) -> tuple[int, int] | None:
    """The smallest and the largest value of `found`, as the whole numbers they are stored as, that `wanted` holds
    exactly; None when it holds every one."""
    if found in _WIDE and wanted.equals(pa.float64()):
        return -EXACT_DOUBLE, EXACT_DOUBLE
    if found.equals(pa.uint64()) and wanted.equals(pa.int64()):
        return 0, _LARGEST
    if (kinds.is_timestamp(found) and kinds.is_timestamp(wanted)) or (
        kinds.is_duration(found) and kinds.is_duration(wanted)
    ):
        factor = _PER_SECOND[wanted.unit] // _PER_SECOND[found.unit]
        return None if factor == 1 else (-(_LARGEST // factor), _LARGEST // factor)
    return None


def decided_by_values(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a value may not fit, at any depth."""
    if found.equals(wanted) or kinds.is_null(found):
        return False
    if kinds.is_dictionary(found):
        plain = wanted.value_type if kinds.is_dictionary(wanted) else wanted
        return decided_by_values(found.value_type, plain)
    if kinds.is_struct(found):
        return any(
            decided_by_values(found.field(number).type, wanted.field(found.field(number).name).type)
            for number in range(found.num_fields)
        )
    if kinds.is_map(found):
        return decided_by_values(found.key_type, wanted.key_type) or decided_by_values(
            found.item_type, wanted.item_type
        )
    if found.num_fields == 1:
        return decided_by_values(found.value_type, wanted.value_type)
    return limits(found, wanted) is not None


def leaves(array: pa.Array) -> Iterator[pa.Array]:
    """The plain arrays below a nested one, in the order of its fields."""
    if kinds.is_struct(array.type):
        for child in array.flatten():
            yield from leaves(child)
    elif kinds.is_map(array.type):
        yield from leaves(array.keys)
        yield from leaves(array.items)
    elif array.type.num_fields == 1 and not kinds.is_dictionary(array.type):
        yield from leaves(array.flatten())
    else:
        yield array


def _cast(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    found = array.type
    if found.equals(wanted):
        return array
    if kinds.is_null(found):
        return pa.nulls(len(array), wanted)
    if kinds.is_dictionary(found):
        return _of_dictionary(array, wanted)
    if kinds.is_struct(found):
        return _struct(array, wanted)
    if kinds.is_map(found):
        return _map(array, wanted)
    if kinds.is_fixed_size_list(found):
        values = _cast(array.flatten() if not array.null_count else _all_values(array), wanted.value_type)
        return _masked(pa.FixedSizeListArray.from_arrays(values, type=wanted), array)
    if kinds.is_list(found) or kinds.is_large_list(found):
        return _list(array, wanted)
    _check(array, limits(found, wanted))
    if found in (pa.string_view(), pa.binary_view()):  # which older versions of Arrow cannot cast
        return pa.array(array.to_pylist(), wanted)
    return array.cast(wanted)


def _check(array: pa.Array, bounds: tuple[int, int] | None) -> None:
    if bounds is None or array.null_count == len(array):
        return
    low, high = bounds
    plain = array if array.type in _WIDE else array.cast(pa.int64())
    found = pc.min_max(plain).as_py()
    for number, wrong in ((found["min"], found["min"] < low), (found["max"], found["max"] > high)):
        if wrong:
            raise InexactCast(_shown(number, array.type))


def _shown(number: int, kind: pa.DataType) -> str:
    """A value as people write it: Python has no moment after the year 9999, and no nanoseconds."""
    scalar = pa.scalar(number, pa.int64() if kind not in _WIDE else kind)
    if kind in _WIDE:
        return str(number)
    if kinds.is_duration(kind):
        return f"{number} {kind.unit}"
    return str(scalar.cast(pa.timestamp(kind.unit)).cast(pa.string()))


def _of_dictionary(array: pa.DictionaryArray, wanted: pa.DataType) -> pa.Array:
    if not kinds.is_dictionary(wanted):
        return _cast(array.dictionary_decode(), wanted)
    values = _cast(array.dictionary, wanted.value_type)
    return pa.DictionaryArray.from_arrays(array.indices.cast(wanted.index_type), values, ordered=wanted.ordered)


def _struct(array: pa.StructArray, wanted: pa.DataType) -> pa.Array:
    names = [array.type.field(number).name for number in range(array.type.num_fields)]
    children = dict(zip(names, array.flatten(), strict=True))
    fields = [wanted.field(number) for number in range(wanted.num_fields)]
    arrays = [
        _cast(children[field.name], field.type) if field.name in children else pa.nulls(len(array), field.type)
        for field in fields
    ]
    return pa.StructArray.from_arrays(arrays, fields=fields, mask=array.is_null() if array.null_count else None)


def _list(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    maker = pa.LargeListArray if kinds.is_large_list(wanted) else pa.ListArray
    offsets = _offsets(array, pa.int64() if kinds.is_large_list(wanted) else pa.int32())
    return maker.from_arrays(offsets, _cast(array.flatten(), wanted.value_type), type=wanted)


def _map(array: pa.MapArray, wanted: pa.DataType) -> pa.Array:
    found = array.type
    entry = pa.struct([found.key_field.with_name("key"), found.item_field.with_name("value")])
    entries = array.cast(pa.list_(pa.field("entries", entry, nullable=False)))
    keys, items = entries.flatten().flatten()
    keys, items = _cast(keys, wanted.key_type), _cast(items, wanted.item_type)
    return pa.MapArray.from_arrays(_offsets(entries, pa.int32()), keys, items, type=wanted)


def _offsets(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Offsets from the lengths: those of a slice, and what lies behind a null, count from elsewhere. Null for a
    null."""
    lengths = pc.list_value_length(array).cast(pa.int64())
    ends = pc.cumulative_sum(pc.fill_null(lengths, 0)).cast(kind)
    starts = pa.concat_arrays([pa.array([0], kind), ends])[:-1] if len(array) else pa.array([], kind)
    last = ends[-1:] if len(array) else pa.array([0], kind)
    return pa.concat_arrays([pc.if_else(array.is_valid(), starts, pa.scalar(None, kind)), last])


def _all_values(array: pa.FixedSizeListArray) -> pa.Array:
    """Values, with what stands behind a null, which `flatten` leaves out."""
    size = array.type.list_size
    return array.values.slice(array.offset * size, len(array) * size)


def _masked(array: pa.Array, like: pa.Array) -> pa.Array:
    if not like.null_count:
        return array
    return pc.if_else(like.is_valid(), array, pa.scalar(None, array.type))
