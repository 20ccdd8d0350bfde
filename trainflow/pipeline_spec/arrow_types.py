"""Names of Arrow types as a footer says them; PyArrow itself is too heavy to ask while a file is read."""

from __future__ import annotations

from trainflow.pipeline_spec.problems import suggest

#: as PyArrow prints them, without parameters
_PLAIN = (
    *("null", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("halffloat", "float", "double", "string", "large_string", "string_view", "binary", "large_binary", "binary_view"),
    *("date32[day]", "date64[ms]", "month_day_nano_interval"),
    *(f"{kind}[{unit}]" for kind in ("timestamp", "duration") for unit in ("s", "ms", "us", "ns")),
    *("time32[s]", "time32[ms]", "time64[us]", "time64[ns]"),
)
#: what other libraries call them
_ALSO = {
    "boolean": "bool",
    "float16": "halffloat",
    "float32": "float",
    "float64": "double",
    "int": "int64",
    "integer": "int64",
    "long": "int64",
    "str": "string",
    "text": "string",
    "utf8": "string",
    "varchar": "string",
    "object": "string",
    "bytes": "binary",
    "date": "date32[day]",
    "date32": "date32[day]",
    "datetime": "timestamp[us]",
    "datetime64[ns]": "timestamp[ns]",
    "timestamp": "timestamp[us]",
}


def check_arrow_type(name: str) -> str:
    """The name itself. Raises ValueError for what is no type's; those with parameters of their own are taken as they
    are: `decimal128(38, 2)`, `list<item: double>`, `timestamp[us, tz=UTC]`."""
    if name in _PLAIN or any(sign in name for sign in "(<,"):
        return name
    meant = _ALSO.get(name.lower())
    hint = f"; did you mean {meant!r}?" if meant else suggest(name, _PLAIN)
    raise ValueError(f"no Arrow type is called {name!r}{hint or f'; for example {_PLAIN[5]}, double, string, bool'}")
