"""The type that holds the values of two types exactly: a join, so that no order of files decides.

Where only some values fit (int64 as double, seconds as nanoseconds) the type is joined all the same, and `cast` refuses
a value that does not.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as kinds

from trainflow.samples.columns.types import decimal_type

_SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_UNSIGNED = (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
_FLOATS = (pa.float16(), pa.float32(), pa.float64())
_UNITS = ("s", "ms", "us", "ns")
_PRECISIONS = {32: 9, 64: 18, 128: 38, 256: 76}
#: names of one time zone
_UTC = ("UTC", "Etc/UTC", "Etc/GMT", "GMT", "Z", "Zulu", "+00:00", "-00:00", "+0000")


class NoCommonType(ValueError):
    """No type holds both exactly. The text says why where that helps."""


def common_type(one: pa.DataType, other: pa.DataType, *, fill: bool = False) -> pa.DataType:
    """The narrowest type for the values of both. `fill`: a field that only one of two structs has is null in the other.

    Commutative, associative, idempotent. Raises NoCommonType.
    """
    if one.equals(other) or kinds.is_null(other):
        return one
    if kinds.is_null(one):
        return other
    if kinds.is_dictionary(one) or kinds.is_dictionary(other):
        return _dictionaries(one, other, fill)
    for rule in (_numbers, _texts, _decimals, _moments, _nested):
        found = rule(one, other, fill)
        if found is not None:
            return found
    raise NoCommonType


def without_views(kind: pa.DataType) -> pa.DataType:
    """The type with large text and bytes for views of them, at any depth: Arrow can neither put rows of views into an
    order nor do most of what else is done to rows."""
    for view, plain in ((pa.string_view(), pa.large_string()), (pa.binary_view(), pa.large_binary())):
        if kind.equals(view):
            return plain
    if kinds.is_dictionary(kind):
        return pa.dictionary(kind.index_type, without_views(kind.value_type), kind.ordered)
    if kinds.is_struct(kind):
        return pa.struct([_field_without_views(kind.field(number)) for number in range(kind.num_fields)])
    if kinds.is_map(kind):
        return pa.map_(_field_without_views(kind.key_field), _field_without_views(kind.item_field))
    if kinds.is_fixed_size_list(kind):
        return pa.list_(_field_without_views(kind.value_field), kind.list_size)
    if kinds.is_list(kind) or kinds.is_large_list(kind):
        return (pa.list_ if kinds.is_list(kind) else pa.large_list)(_field_without_views(kind.value_field))
    return kind


def _field_without_views(field: pa.Field) -> pa.Field:
    return field.with_type(without_views(field.type))


def common_field(one: pa.Field, other: pa.Field, *, fill: bool = False) -> pa.Field:
    """The same for fields: null may be what may be null in either. The first one's name."""
    return pa.field(one.name, common_type(one.type, other.type, fill=fill), nullable=one.nullable or other.nullable)


def same_zone(one: str | None, other: str | None) -> bool:
    """Whether two names mean one time zone."""
    return one == other or (one in _UTC and other in _UTC)


def _dictionaries(one: pa.DataType, other: pa.DataType, fill: bool) -> pa.DataType:
    """Codes are no values: one that is plain makes it plain."""
    if kinds.is_dictionary(one) and kinds.is_dictionary(other):
        values = common_type(one.value_type, other.value_type, fill=fill)
        return pa.dictionary(common_type(one.index_type, other.index_type), values, one.ordered and other.ordered)
    plain = (kind.value_type if kinds.is_dictionary(kind) else kind for kind in (one, other))
    return common_type(*plain, fill=fill)


def _numbers(one: pa.DataType, other: pa.DataType, _: bool) -> pa.DataType | None:
    integers = [kind for kind in (one, other) if kind in _SIGNED or kind in _UNSIGNED]
    floats = [kind for kind in (one, other) if kind in _FLOATS]
    if len(integers) + len(floats) < 2:
        return None
    if integers and floats:
        return pa.float64()
    if floats:
        return max(floats, key=_FLOATS.index)
    signed = [kind for kind in integers if kind in _SIGNED]
    if len(signed) == 1:
        (unsigned,) = (kind for kind in integers if kind in _UNSIGNED)
        # the next wider one; of uint64 there is none, and its values decide
        return _SIGNED[min(3, max(_SIGNED.index(signed[0]), _UNSIGNED.index(unsigned) + 1))]
    order = _SIGNED if signed else _UNSIGNED
    return max(integers, key=order.index)


def _texts(one: pa.DataType, other: pa.DataType, _: bool) -> pa.DataType | None:
    for small, large, view in (
        (pa.string(), pa.large_string(), pa.string_view()),
        (pa.binary(), pa.large_binary(), pa.binary_view()),
    ):
        if one in (small, large, view) and other in (small, large, view):
            return large
    return None


def _decimals(one: pa.DataType, other: pa.DataType, _: bool) -> pa.DataType | None:
    if not (kinds.is_decimal(one) and kinds.is_decimal(other)):
        return None
    scale = max(one.scale, other.scale)
    precision = max(one.precision - one.scale, other.precision - other.scale) + scale
    least = max(one.bit_width, other.bit_width)
    for bits, most in _PRECISIONS.items():
        if bits >= least and precision <= most:
            return decimal_type(bits, precision, scale)
    raise NoCommonType(f"together they need {precision} digits, and a decimal has at most 76")


def _moments(one: pa.DataType, other: pa.DataType, _: bool) -> pa.DataType | None:
    if kinds.is_timestamp(one) and kinds.is_timestamp(other):
        if not same_zone(one.tz, other.tz):
            zones = [kind.tz or "none" for kind in (one, other)]
            raise NoCommonType(f"one has the time zone {zones[0]}, the other {zones[1]}")
        return pa.timestamp(_finer(one, other), tz=one.tz if one.tz == other.tz else "UTC")
    if kinds.is_duration(one) and kinds.is_duration(other):
        return pa.duration(_finer(one, other))
    if kinds.is_time(one) and kinds.is_time(other):
        unit = _finer(one, other)
        return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    if kinds.is_date(one) and kinds.is_date(other):
        return pa.date32()
    return None


def _finer(one: pa.DataType, other: pa.DataType) -> str:
    return _UNITS[max(_UNITS.index(one.unit), _UNITS.index(other.unit))]


def _nested(one: pa.DataType, other: pa.DataType, fill: bool) -> pa.DataType | None:
    if kinds.is_struct(one) and kinds.is_struct(other):
        return _structs(one, other, fill)
    if kinds.is_map(one) and kinds.is_map(other):
        key = common_field(one.key_field, other.key_field, fill=fill)
        return pa.map_(key, common_field(one.item_field, other.item_field, fill=fill))
    if kinds.is_fixed_size_list(one) and kinds.is_fixed_size_list(other) and one.list_size == other.list_size:
        return pa.list_(common_field(one.value_field, other.value_field, fill=fill), one.list_size)
    lists = [kind for kind in (one, other) if kinds.is_list(kind) or kinds.is_large_list(kind)]
    if len(lists) < 2:
        return None
    item = common_field(one.value_field, other.value_field, fill=fill)
    return pa.large_list(item) if any(map(kinds.is_large_list, lists)) else pa.list_(item)


def _structs(one: pa.DataType, other: pa.DataType, fill: bool) -> pa.DataType:
    mine, theirs = ({kind.field(n).name: kind.field(n) for n in range(kind.num_fields)} for kind in (one, other))
    if len(mine) < one.num_fields or len(theirs) < other.num_fields:
        raise NoCommonType("a field's name is there twice")
    only = sorted(mine.keys() ^ theirs.keys())
    if only and not fill:
        raise NoCommonType(f"only one of them has the field {only[0]!r}")
    # fields in one order keep it; no order of two goes before the other
    names = list(mine) if list(mine) == list(theirs) else sorted({**mine, **theirs})
    fields = []
    for name in names:
        found = [each[name] for each in (mine, theirs) if name in each]
        fields.append(common_field(*found, fill=fill) if len(found) == 2 else found[0].with_nullable(True))
    return pa.struct(fields)
