"""The types of single values in a pipeline file: how they are read, written and shown to an editor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from trainflow.errors import TrainflowError
from trainflow.identifiers import check_name
from trainflow.pipeline_spec.problems import suggest
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
from trainflow.settings.load import check_executors
from trainflow.settings.pod_template import read_template

_V = TypeVar("_V")
Bound = float | str | None

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,249}$"
_LENGTH_PATTERN = r"^((\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?|(\d+y)?(\d+mo)?)$"
_DURATION_PATTERN = r"^(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?$"


_SHORTEST_SECONDS = 60
#: types as a footer says them, without parameters; PyArrow itself is too heavy to ask while a file is read
_ARROW_TYPES = (
    *("null", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("halffloat", "float", "double", "string", "large_string", "string_view", "binary", "large_binary", "binary_view"),
    *("date32[day]", "date64[ms]", "month_day_nano_interval"),
    *(f"{kind}[{unit}]" for kind in ("timestamp", "duration") for unit in ("s", "ms", "us", "ns")),
    *("time32[s]", "time32[ms]", "time64[us]", "time64[ns]"),
)
#: what other libraries call them
_ALSO_CALLED = {
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


@contextmanager
def refusals() -> Iterator[None]:
    """Raise what the packages below refuse as the ValueError that pydantic gathers."""
    try:
        yield
    except TrainflowError as error:
        raise ValueError(str(error)) from None


def checked(check: Callable[[_V], object]) -> Callable[[_V], _V]:
    """A validator: the value as it is, unless `check` refuses it."""

    def validate(value: _V) -> _V:
        with refusals():
            check(value)
        return value

    return validate


def text_as(key: str) -> Callable[[Any], Any]:
    """A validator: text alone stands for a section that says this key and nothing else."""
    return lambda value: {key: value} if isinstance(value, str) else value


def check_arrow_type(name: str) -> str:
    """The name itself. Raises ValueError for what is no type's; those with parameters of their own are taken as they
    are: `decimal128(38, 2)`, `list<item: double>`, `timestamp[us, tz=UTC]`."""
    if name in _ARROW_TYPES or any(sign in name for sign in "(<,"):
        return name
    meant = _ALSO_CALLED.get(name.lower())
    hint = f"; did you mean {meant!r}?" if meant else suggest(name, _ARROW_TYPES)
    raise ValueError(
        f"no Arrow type is called {name!r}{hint or f'; for example {_ARROW_TYPES[5]}, double, string, bool'}"
    )


def _positive(duration: timedelta) -> timedelta:
    if not duration:
        raise ValueError("must be longer than nothing")
    return duration


def _long_enough(length: Length) -> Length:
    if not length.months and length.seconds < _SHORTEST_SECONDS:
        raise ValueError("a partition is at least 1m long")
    return length


def _exists(reference: str, info: ValidationInfo) -> str:
    root = (info.context or {}).get("root")
    if isinstance(root, Path):
        check_reference(reference, root)
    return reference


def _configured(name: str, info: ValidationInfo) -> str:
    root = (info.context or {}).get("root")
    if isinstance(root, Path):
        with refusals():
            check_executors(root, [name])
    return name


def _readable(config: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    root, template = (info.context or {}).get("root"), config.get("pod_template")
    if isinstance(root, Path) and isinstance(template, str):
        with refusals():
            read_template(root / template, template)
    return config


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
Name = Annotated[
    str,
    AfterValidator(checked(lambda name: check_name(name, "pipeline, stage or branch"))),
    WithJsonSchema({"type": "string", "pattern": NAME_PATTERN}),
]
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
#: one of `[executors]`, checked against the settings where the model is validated with `context={"root": …}`
ExecutorName = Annotated[str, AfterValidator(_configured), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
#: what a task asks of its executor; a pod template is read where the model is validated with `context={"root": …}`
ExecutorConfig = Annotated[dict[str, Any], AfterValidator(_readable), WithJsonSchema({"type": "object"})]
#: `module.path:name`, checked against the source where the model is validated with `context={"root": …}`
Function = Annotated[
    str,
    AfterValidator(_exists),
    WithJsonSchema({"type": "string", "pattern": r"^[\w.]+:[\w.]+$", "examples": ["operators.model:train"]}),
]
