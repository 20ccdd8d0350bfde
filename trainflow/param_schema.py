"""The part of JSON Schema that params use: check schemas when a DAG is parsed, values when a run is triggered. Pure.

Ours instead of the `jsonschema` package: these keywords fit on two pages, whereas that package (with `referencing`,
`rpds` and `attrs`) would be imported by every attempt. In exchange a keyword that is not here is refused where the
schema is written; none is ever ignored.

Stands on a low floor because both sides need it: the authoring side and the control plane, which has only documents.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sized
from datetime import date, datetime
from typing import Any

from trainflow.bounds import check_nesting, clip
from trainflow.errors import InputError, ParamValidationError
from trainflow.identifiers import canonical_json

Schema = Mapping[str, Any]

_ANNOTATIONS = frozenset({"title", "description", "examples", "default"})
#: of a value that does not fit, so many characters are shown
_SHOWN = 120


def check_schema(schema: Schema, where: str) -> None:
    """Raise InputError, with `where` in front, for a schema that is malformed or uses an unsupported keyword."""
    for keyword, argument in schema.items():
        if keyword in _ANNOTATIONS:
            continue
        if keyword not in _KEYWORDS:
            allowed = ", ".join(sorted(_KEYWORDS.keys() | _ANNOTATIONS))
            raise InputError(f"{where}: the schema keyword {keyword!r} is not supported. Supported: {allowed}")
        well_formed, _ = _KEYWORDS[keyword]
        try:
            fits = well_formed(argument)
        except re.error as error:
            raise InputError(f"{where}: {keyword} {argument!r} is no regular expression: {error}") from None
        if not fits:
            raise InputError(f"{where}: {keyword} cannot be {argument!r}")
        for name, inner in _inner_schemas(keyword, argument):
            check_schema(inner, f"{where}{name}")


def check_value(value: Any, schema: Schema, where: str) -> None:
    """Raise ParamValidationError, with `where` in front, for the first way in which `value` breaks `schema`."""
    for keyword, argument in schema.items():
        if keyword not in _ANNOTATIONS:
            problem = _KEYWORDS[keyword][1](value, argument, schema)
            if problem:
                raise ParamValidationError(f"{where}: {clip(value, _SHOWN)} {problem}")
    for name, item, inner in _inner_values(value, schema):
        check_value(item, inner, f"{where}{name}")


def resolve(schemas: Mapping[str, Schema], conf: Mapping[str, Any] | None) -> dict[str, Any]:
    """Values of the params: each schema's `default`, overridden by `conf`, which may hold more than the params.

    Raises ParamValidationError for a value that breaks its schema and for a param that has neither.
    """
    given = dict(conf or {})
    missing = sorted(name for name, schema in schemas.items() if name not in given and "default" not in schema)
    if missing:
        raise ParamValidationError(f"param {missing[0]!r} has no default: give it in conf")
    values = {**{name: _own(schema["default"]) for name, schema in schemas.items() if "default" in schema}, **given}
    for name, schema in schemas.items():
        check_value(values[name], schema, f"param {name!r}")
    return values


def _own(value: Any) -> Any:
    """A copy: what a task does to its params stays in its run."""
    if isinstance(value, Mapping):
        return {key: _own(item) for key, item in value.items()}
    return [_own(item) for item in value] if isinstance(value, list | tuple) else value


# -- types -----------------------------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": _is_integer,
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list | tuple),
    "object": lambda value: isinstance(value, Mapping),
}


def _types(argument: Any) -> list[str]:
    return [argument] if isinstance(argument, str) else argument


def _same(one: Any, other: Any) -> bool:
    """Equality of JSON: 1 and 1.0 are the same, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


# -- problems: what is wrong with a value, or None -------------------------------------------------------------------


def _type(value: Any, argument: Any, _: Schema) -> str | None:
    names = _types(argument)
    return None if any(_TYPES[name](value) for name in names) else f"is not of type {' or '.join(names)}"


def _enum(value: Any, argument: Any, _: Schema) -> str | None:
    return None if any(_same(value, member) for member in argument) else f"is none of {clip(argument, _SHOWN)}"


def _const(value: Any, argument: Any, _: Schema) -> str | None:
    return None if _same(value, argument) else f"is not {clip(argument, _SHOWN)}"


def _number(problem: str, holds: Callable[[Any, Any], bool]) -> Callable[[Any, Any, Schema], str | None]:
    return lambda value, argument, _: (
        f"is {problem} {argument}" if _is_number(value) and not holds(value, argument) else None
    )


def _length(
    kinds: tuple[type[Sized], ...], problem: str, holds: Callable[[int, int], bool]
) -> Callable[..., str | None]:
    return lambda value, argument, _: (
        f"is {problem} {argument}" if isinstance(value, kinds) and not holds(len(value), argument) else None
    )


def _is_multiple(value: Any, of: Any) -> bool:
    from decimal import Decimal

    # decimal, as written: 0.3 is a multiple of 0.1, which no binary division says. // and % would need the precision
    # of the quotient
    numerator, denominator = Decimal(str(value)).as_integer_ratio()
    of_numerator, of_denominator = Decimal(str(of)).as_integer_ratio()
    return numerator * of_denominator % (denominator * of_numerator) == 0


def _pattern(value: Any, argument: Any, _: Schema) -> str | None:
    return f"does not match {argument!r}" if isinstance(value, str) and not re.search(argument, value) else None


def _format(value: Any, argument: Any, _: Schema) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        if argument == "date":
            date.fromisoformat(value)
            return None
        moment = datetime.fromisoformat(value)
    except ValueError:
        return f"is no {argument}"
    aware = moment.tzinfo is not None and len(value) > len("2013-01-01T00:00")
    return None if aware else "is no date-time with a time zone (2013-01-01T00:00:00Z)"


def _unique(value: Any, argument: Any, _: Schema) -> str | None:
    if not argument or not isinstance(value, list | tuple):
        return None
    pairs = ((one, other) for index, one in enumerate(value) for other in value[:index])
    return "has the same item twice" if any(_same(one, other) for one, other in pairs) else None


def _required(value: Any, argument: Any, _: Schema) -> str | None:
    missing = [name for name in argument if name not in value] if isinstance(value, Mapping) else []
    return f"lacks {missing[0]!r}" if missing else None


def _additional(value: Any, argument: Any, schema: Schema) -> str | None:
    if argument is not False or not isinstance(value, Mapping):
        return None
    unknown = sorted(str(name) for name in value if name not in schema.get("properties", {}))
    return f"has the unknown entry {unknown[0]!r}" if unknown else None


def _any_of(value: Any, argument: Any, _: Schema) -> str | None:
    for schema in argument:
        try:
            check_value(value, schema, "")
        except ParamValidationError:
            continue
        return None
    return "fits none of the schemas of anyOf"


def _nothing(value: Any, argument: Any, schema: Schema) -> str | None:
    return None


# -- keywords: (is the keyword's argument well formed?, problem with a value) ----------------------------------------


def _count(argument: Any) -> bool:
    return isinstance(argument, int) and not isinstance(argument, bool) and argument >= 0


def _is_schema(argument: Any) -> bool:
    return isinstance(argument, Mapping) and all(isinstance(key, str) for key in argument)


def _strings(argument: Any) -> bool:
    return isinstance(argument, list | tuple) and all(isinstance(item, str) for item in argument)


_KEYWORDS: dict[str, tuple[Callable[[Any], bool], Callable[[Any, Any, Schema], str | None]]] = {
    "type": (lambda a: isinstance(a, str | list) and bool(a) and all(t in _TYPES for t in _types(a)), _type),
    "enum": (lambda a: isinstance(a, list | tuple) and len(a) > 0, _enum),
    "const": (lambda a: True, _const),
    "minimum": (_is_number, _number("less than", lambda value, limit: value >= limit)),
    "maximum": (_is_number, _number("more than", lambda value, limit: value <= limit)),
    "exclusiveMinimum": (_is_number, _number("not more than", lambda value, limit: value > limit)),
    "exclusiveMaximum": (_is_number, _number("not less than", lambda value, limit: value < limit)),
    "multipleOf": (lambda a: _is_number(a) and a > 0, _number("no multiple of", _is_multiple)),
    "minLength": (_count, _length((str,), "shorter than", lambda length, limit: length >= limit)),
    "maxLength": (_count, _length((str,), "longer than", lambda length, limit: length <= limit)),
    "pattern": (lambda a: isinstance(a, str) and bool(re.compile(a)), _pattern),
    "format": (lambda a: a in ("date", "date-time"), _format),
    "minItems": (_count, _length((list, tuple), "shorter than", lambda length, limit: length >= limit)),
    "maxItems": (_count, _length((list, tuple), "longer than", lambda length, limit: length <= limit)),
    "uniqueItems": (lambda a: isinstance(a, bool), _unique),
    "items": (_is_schema, _nothing),
    "properties": (lambda a: _is_schema(a) and all(map(_is_schema, a.values())), _nothing),
    "required": (_strings, _required),
    "additionalProperties": (lambda a: isinstance(a, bool) or _is_schema(a), _additional),
    "anyOf": (lambda a: isinstance(a, list | tuple) and len(a) > 0 and all(map(_is_schema, a)), _any_of),
}


def _inner_schemas(keyword: str, argument: Any) -> list[tuple[str, Schema]]:
    if keyword == "items" or (keyword == "additionalProperties" and isinstance(argument, Mapping)):
        return [(f"/{keyword}", argument)]
    if keyword == "properties":
        return [(f"/{name}", inner) for name, inner in argument.items()]
    if keyword == "anyOf":
        return [(f"/anyOf/{index}", inner) for index, inner in enumerate(argument)]
    return []


def _inner_values(value: Any, schema: Schema) -> list[tuple[str, Any, Schema]]:
    result: list[tuple[str, Any, Schema]] = []
    if isinstance(value, list | tuple) and "items" in schema:
        result += [(f"[{index}]", item, schema["items"]) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        properties = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        for name, item in value.items():
            inner = properties.get(name, extra if isinstance(extra, Mapping) else None)
            if inner is not None:
                result.append((f"[{name!r}]", item, inner))
    return result


def check_json(value: Any, where: str) -> None:
    """Raise InputError, with `where` in front, for a value that JSON has no form for, or that is nested too deeply."""
    check_nesting(value, where)
    try:
        canonical_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: {clip(value, _SHOWN)} is not JSON: {error}") from None
