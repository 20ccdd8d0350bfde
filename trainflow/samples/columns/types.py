"""An Arrow type as text: what a split and a ledger record. The same for every version of Arrow, and read back exactly.

Plain types are written as Arrow prints them (`int64`, `timestamp[us, tz=UTC]`), nested ones as JSON, for a field may
have any name.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.types as kinds

_PLAIN: dict[str, pa.DataType] = {
    str(kind): kind
    for kind in (
        *(pa.null(), pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64()),
        *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()),
        *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()),
        *(pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
        *(maker(unit) for maker in (pa.timestamp, pa.duration) for unit in ("s", "ms", "us", "ns")),
    )
}
_ZONED = re.compile(r"timestamp\[(s|ms|us|ns), tz=(.+)\]")
_DECIMAL = re.compile(r"decimal(32|64|128|256)\((\d+), (-?\d+)\)")
_FIXED = re.compile(r"fixed_size_binary\[(\d+)\]")
_IN_MEMORY = (
    (re.compile(r"dictionary<values=(.*), indices=\w+, ordered=\d>"), r"\1"),
    (re.compile(r"\blarge_(string|binary|list)\b"), r"\1"),
    (re.compile(r"\b(string|binary|list)_view\b"), r"\1"),
    (re.compile(r"\blist<\w+: "), "list<item: "),
    (re.compile(r"tz=(?:Etc/UTC|\+00:00|Z)\]"), "tz=UTC]"),
)
_REQUIRED = " not null"


def columns_of(schema: pa.Schema) -> tuple[tuple[str, str], ...]:
    """Name and type of each column."""
    return tuple((field.name, _text(field.type) + ("" if field.nullable else _REQUIRED)) for field in schema)


def schema_of(columns: Iterable[tuple[str, str]]) -> pa.Schema:
    """The inverse. Raises ValueError for text that is no type's."""
    fields = []
    for name, text in columns:
        plain = text.removesuffix(_REQUIRED)
        fields.append(pa.field(name, type_from_text(plain), nullable=plain == text))
    return pa.schema(fields)


def type_from_text(text: str) -> pa.DataType:
    """The type that a text means. Raises ValueError."""
    return _decoded(json.loads(text) if text.startswith("{") else text)


def is_called(kind: pa.DataType, name: str) -> bool:
    """Whether a column of this type is what a person calls by an Arrow type's name. How Arrow holds it in memory
    (large, as a view, as codes of a dictionary) is the writer's business; nothing but nulls may be of any type."""
    return kinds.is_null(kind) or _essence(str(kind)) == _essence(name)


def decimal_type(bits: int, precision: int, scale: int) -> pa.DataType:
    """A decimal type of so many bits. Arrow 17 knows 128 and 256 only."""
    maker: Any = getattr(pa, f"decimal{bits}")
    return maker(precision, scale)


def _essence(name: str) -> str:
    for pattern, plain in _IN_MEMORY:
        name = pattern.sub(plain, name)
    return name


def _text(kind: pa.DataType) -> str:
    node = _encoded(kind)
    return node if isinstance(node, str) else json.dumps(node, separators=(",", ":"), ensure_ascii=False)


def _encoded(kind: pa.DataType) -> Any:
    text = str(kind)
    if text in _PLAIN or _ZONED.fullmatch(text) or _DECIMAL.fullmatch(text) or _FIXED.fullmatch(text):
        return text
    if kinds.is_dictionary(kind):
        return {"dictionary": [_encoded(kind.index_type), _encoded(kind.value_type), kind.ordered]}
    if kinds.is_fixed_size_list(kind):
        return {"fixed_size_list": [_field(kind.value_field), kind.list_size]}
    if kinds.is_large_list(kind):
        return {"large_list": _field(kind.value_field)}
    if kinds.is_list(kind):
        return {"list": _field(kind.value_field)}
    if kinds.is_map(kind):
        return {"map": [_field(kind.key_field), _field(kind.item_field)]}
    if kinds.is_struct(kind):
        return {"struct": [_field(kind.field(number)) for number in range(kind.num_fields)]}
    written = pa.schema([pa.field("", kind)]).serialize().to_pybytes()
    return {"arrow": base64.b64encode(written).decode()}


def _field(field: pa.Field) -> list[Any]:
    return [field.name, _encoded(field.type), *([] if field.nullable else [False])]


def _decoded(node: Any) -> pa.DataType:
    if isinstance(node, str):
        return _plain(node)
    ((kind, inner),) = node.items()
    if kind == "dictionary":
        return pa.dictionary(_decoded(inner[0]), _decoded(inner[1]), inner[2])
    if kind == "fixed_size_list":
        return pa.list_(_field_of(inner[0]), inner[1])
    if kind == "large_list":
        return pa.large_list(_field_of(inner))
    if kind == "list":
        return pa.list_(_field_of(inner))
    if kind == "map":
        return pa.map_(_field_of(inner[0]), _field_of(inner[1]))
    if kind == "struct":
        return pa.struct([_field_of(each) for each in inner])
    if kind == "arrow":
        return pa.ipc.read_schema(pa.BufferReader(base64.b64decode(inner))).field(0).type
    raise ValueError(f"no Arrow type is written as {node!r}")


def _plain(text: str) -> pa.DataType:
    if text in _PLAIN:
        return _PLAIN[text]
    if (found := _ZONED.fullmatch(text)) is not None:
        return pa.timestamp(found[1], tz=found[2])
    if (found := _DECIMAL.fullmatch(text)) is not None:
        return decimal_type(int(found[1]), int(found[2]), int(found[3]))
    if (found := _FIXED.fullmatch(text)) is not None:
        return pa.binary(int(found[1]))
    raise ValueError(f"no Arrow type is called {text!r}")


def _field_of(node: list[Any]) -> pa.Field:
    return pa.field(node[0], _decoded(node[1]), nullable=len(node) < 3)
