"""The types of single values in a pipeline file: how they are read, written and shown to an editor."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from trainflow.errors import InputError
from trainflow.identifiers import check_name
from trainflow.pipeline_spec.arrow_types import check_arrow_type
from trainflow.pipeline_spec.quantities import (
    Length,
    format_duration,
    format_length,
    format_moment,
    parse_duration,
    parse_length,
    parse_moment,
    parse_size,
)
from trainflow.pipeline_spec.references import check_reference

Bound = float | str | None

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,249}$"
_LENGTH_PATTERN = r"^((\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?|(\d+y)?(\d+mo)?)$"
_SHORTEST_SECONDS = 60
_DURATION_PATTERN = r"^(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?$"


def _positive(duration: timedelta) -> timedelta:
    if not duration:
        raise ValueError("must be longer than nothing")
    return duration


def _long_enough(length: Length) -> Length:
    if not length.months and length.seconds < _SHORTEST_SECONDS:
        raise ValueError("a partition is at least 1m long")
    return length


def _nameable(name: str) -> str:
    try:
        return check_name(name, "pipeline, stage or branch")
    except InputError as error:
        raise ValueError(str(error)) from None


def _exists(reference: str, info: ValidationInfo) -> str:
    root = (info.context or {}).get("root")
    if isinstance(root, Path):
        check_reference(reference, root)
    return reference


def _names_or_types(value: Any) -> Any:
    return dict.fromkeys(value) if isinstance(value, list) and all(isinstance(name, str) for name in value) else value


def _bounds(value: Any) -> tuple[Bound, Bound]:
    if not isinstance(value, list) or len(value) != 2 or not all(_is_bound(bound) for bound in value):
        raise ValueError("write [smallest, largest], each a number, text or null (open)")
    low, high = value
    if low is not None and high is not None and (type(low) is str) != (type(high) is str):
        raise ValueError("both bounds are numbers, or both are text")
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:  # text orders by its column
        raise ValueError(f"the smallest value {low!r} is above the largest {high!r}")
    return low, high


def _is_bound(value: Any) -> bool:
    number = isinstance(value, str | int | float) and not isinstance(value, bool)
    return value is None or (number and value == value)  # nothing is above or below nan


_AnyDuration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": _DURATION_PATTERN, "examples": ["30s", "45m", "6h", "1d", "1h30m"]}),
]
#: `0s` is allowed
Wait = _AnyDuration
Duration = Annotated[_AnyDuration, AfterValidator(_positive)]
PartitionLength = Annotated[
    Length,
    BeforeValidator(parse_length),
    AfterValidator(_long_enough),
    PlainSerializer(format_length, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": _LENGTH_PATTERN, "examples": ["15m", "1h", "1d", "1mo", "3mo", "1y"]}),
]
UtcDatetime = Annotated[
    datetime,
    BeforeValidator(parse_moment),
    PlainSerializer(format_moment, when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["2013-01-01", "2013-01-01T06:00:00Z"]}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(ge=1),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}], "examples": ["512MB", "2GiB"]}),
]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, AfterValidator(_nameable), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
#: column → Arrow type or None; a list of names is short for columns of any type
Columns = Annotated[
    dict[str, Annotated[str, AfterValidator(check_arrow_type)] | None],
    BeforeValidator(_names_or_types, json_schema_input_type=dict[str, str | None] | list[str]),
]
Range = Annotated[
    Any,
    PlainValidator(_bounds),
    WithJsonSchema(
        {"type": "array", "items": {"type": ["number", "string", "null"]}, "minItems": 2, "maxItems": 2},
    ),
]
#: `module.path:name`, checked against the source where the model is validated with `context={"root": …}`
Function = Annotated[
    str,
    AfterValidator(_exists),
    WithJsonSchema({"type": "string", "pattern": r"^[\w.]+:[\w.]+$", "examples": ["operators.model:train"]}),
]
