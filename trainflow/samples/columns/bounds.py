"""Check whether what a column holds is inside a range: the one place where bounds, statistics and values are compared.

Everything becomes a *key* that compares exactly with the keys of the same Arrow type: whole numbers and moments as
integers (moments, times and durations in nanoseconds), floats as the type rounds them (0.7 is another number as
float32), decimals as decimals, text as its UTF-8 bytes, which order as text does.

Statistics bound what a row group holds from outside. NaN is no value: it is missing, as null is.
"""

from __future__ import annotations

import json
import re
import struct
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

Key = Any
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_STORED_UNITS = {"milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
_DAY = 86_400 * 10**9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FRACTION = re.compile(r"(.*\.\d{6})(\d{1,3})(.*)")
_DURATIONS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": _DAY}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h|d)")
_FLOAT_CODES = {16: "e", 32: "f", 64: "d"}


def bound_key(bound: float | str, kind: pa.DataType) -> Key:
    """A bound as a person writes it, for values of this type. Moments without a zone are UTC, numbers for a duration
    are seconds. Raises TypeError or ValueError when they cannot be compared."""
    kind = plain(kind)
    if isinstance(bound, str):
        return _text_key(bound, kind)
    if bound != bound:
        raise ValueError("nan is no bound")
    if kinds.is_decimal(kind):
        return Decimal(str(bound))
    if kinds.is_duration(kind):
        return Decimal(str(bound)) * 10**9
    if kinds.is_floating(kind):
        return _rounded(float(bound), kind)
    if kinds.is_integer(kind) or kinds.is_boolean(kind):
        return bound
    raise TypeError(f"{bound!r} cannot be compared with {kind}")


def outer_bounds(statistics: Any, column: Any, kind: pa.DataType) -> tuple[Key, Key] | None:
    """Keys between which all values of a row group lie, from its statistics; None: they do not tell. `column` is the
    Parquet schema's (`ColumnSchema`)."""
    if statistics is None or not statistics.has_min_max:
        return None
    kind = plain(kind)
    # older versions of PyArrow have no bounds of decimals that are stored as integers
    with suppress(ValueError, TypeError, OverflowError, NotImplementedError, struct.error):
        low, high = (_stored_key(raw, column, kind) for raw in _raw(statistics, kind))
        if low <= high:  # not so for nan
            return low, high
    return None


def exact_bounds(values: pa.ChunkedArray) -> tuple[Key, Key] | None:
    """Keys of the smallest and the largest value; None when there is none."""
    kind = plain(values.type)
    values = present(values)
    if not len(values):
        return None
    if kinds.is_float16(kind):
        values = values.cast(pa.float32())
    elif _is_text(kind):
        values = _as_binary(values)
    elif kinds.is_temporal(kind):
        values = values.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    found = pc.min_max(values)
    low, high = found["min"].as_py(), found["max"].as_py()
    return _value_key(low, kind), _value_key(high, kind)


def present(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without null and NaN, dictionaries as what they stand for."""
    if kinds.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    values = values.drop_null()
    if kinds.is_floating(values.type):
        numbers = values.cast(pa.float32()) if kinds.is_float16(values.type) else values
        values = values.filter(pc.invert(pc.is_nan(numbers)))
    return values


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values: a dictionary's codes are none."""
    return kind.value_type if kinds.is_dictionary(kind) else kind


def in_nanoseconds(stored: tuple[int, int], kind: pa.DataType) -> tuple[Key, Key]:
    """The keys of two values as they are stored."""
    return _value_key(stored[0], kind), _value_key(stored[1], kind)


def shown(key: Key, kind: pa.DataType) -> str:
    """A key as people write the value."""
    kind = plain(kind)
    if kinds.is_date(kind):
        return _shown_moment(key).removesuffix("T00:00:00")
    if kinds.is_timestamp(kind):
        return _shown_moment(key) + ("+00:00" if kind.tz else "")
    if kinds.is_time(kind):
        return _shown_moment(key).split("T")[1]
    if kinds.is_duration(kind):
        return f"{Decimal(key) / 10**9:f} s"
    return key.decode(errors="replace") if isinstance(key, bytes) else str(key)


def _shown_moment(key: int) -> str:
    seconds, nanoseconds = divmod(key, 10**9)
    text = str(pa.scalar(seconds, pa.timestamp("s")).cast(pa.string())).replace(" ", "T")
    return f"{text}.{nanoseconds:09d}".rstrip("0") if nanoseconds else text


def _text_key(text: str, kind: pa.DataType) -> Key:
    if _is_text(kind):
        return text.encode()
    if kinds.is_timestamp(kind) or kinds.is_date(kind):
        plain_text, extra = _whole_microseconds(text)
        moment = datetime.fromisoformat(plain_text)
        delta = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
        return (delta.days * 86_400 + delta.seconds) * 10**9 + delta.microseconds * 1000 + extra
    if kinds.is_time(kind):
        plain_text, extra = _whole_microseconds(text)
        moment = datetime.combine(date(1970, 1, 1), time.fromisoformat(plain_text))
        return (moment.hour * 3600 + moment.minute * 60 + moment.second) * 10**9 + moment.microsecond * 1000 + extra
    if kinds.is_duration(kind):
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text.removeprefix("-").replace(" ", ""):
            raise ValueError(f"{text!r} is no duration")
        total = sum(Decimal(number) * _DURATIONS[unit] for number, unit in parts)
        return -total if text.startswith("-") else total
    raise TypeError(f"{text!r} cannot be compared with {kind}")


def _whole_microseconds(text: str) -> tuple[str, int]:
    """What Python can parse, and the nanoseconds that it would drop."""
    found = _FRACTION.fullmatch(text)
    return (text, 0) if found is None else (found[1] + found[3], int(found[2].ljust(3, "0")))


def _rounded(number: float, kind: pa.DataType) -> float:
    code = _FLOAT_CODES[kind.bit_width]
    try:
        (found,) = struct.unpack(f"<{code}", struct.pack(f"<{code}", number))
    except OverflowError:  # beyond what the type holds: it is beyond every value, too
        return number
    return float(found)


def _raw(statistics: Any, kind: pa.DataType) -> tuple[Any, Any]:
    """Values as they are stored, except where PyArrow alone knows how: the sign of unsigned numbers, a decimal's
    scale."""
    if kinds.is_unsigned_integer(kind) or kinds.is_decimal(kind):
        return statistics.min, statistics.max
    return statistics.min_raw, statistics.max_raw


def _stored_key(raw: Any, column: Any, kind: pa.DataType) -> Key:
    """Raises TypeError for what is not understood: the data is read then."""
    if kinds.is_float16(kind):
        return float(struct.unpack("<e", raw)[0])
    if kinds.is_timestamp(kind) or kinds.is_time(kind):
        return raw * _NANOSECONDS[_stored_unit(column)]
    if kinds.is_date(kind):
        if column.physical_type != "INT32":
            raise TypeError(column.physical_type)
        return raw * _DAY
    if kinds.is_duration(kind):
        return raw * _NANOSECONDS[kind.unit]
    if _is_text(kind):
        return bytes(raw) if isinstance(raw, bytes | bytearray) else raw.encode()
    if kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind) or kinds.is_decimal(kind):
        return raw
    raise TypeError(str(kind))


def _stored_unit(column: Any) -> str:
    """Unit of a moment or time in Parquet; Arrow's may be another."""
    told = json.loads(column.logical_type.to_json())
    if told.get("timeUnit") not in _STORED_UNITS:
        raise TypeError(str(column.logical_type))
    return _STORED_UNITS[told["timeUnit"]]


def _value_key(value: Any, kind: pa.DataType) -> Key:
    if kinds.is_date32(kind):
        return value * _DAY
    if kinds.is_date64(kind):
        return value * 10**6
    if kinds.is_timestamp(kind) or kinds.is_time(kind) or kinds.is_duration(kind):
        return value * _NANOSECONDS[kind.unit]
    return value


def _is_text(kind: pa.DataType) -> bool:
    return kind in (
        *(pa.string(), pa.large_string(), pa.string_view()),
        *(pa.binary(), pa.large_binary(), pa.binary_view()),
    ) or kinds.is_fixed_size_binary(kind)


def _as_binary(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if values.type in (pa.string_view(), pa.binary_view()):
        chunks = (value.encode() if isinstance(value, str) else value for value in values.to_pylist())
        return pa.chunked_array([pa.array(chunks, pa.large_binary())])
    if values.type.equals(pa.string()):
        values = values.cast(pa.large_string())
    return values.cast(pa.large_binary())
