"""Schemas of params, as tables."""

from __future__ import annotations

import pytest

from trainflow.errors import InputError, ParamValidationError
from trainflow.param_schema import check_schema, check_value, resolve

GOOD = [
    ({"type": "integer"}, [0, -3, 2.0]),
    ({"type": "number"}, [0, 1.5]),
    ({"type": "string"}, ["", "x"]),
    ({"type": "boolean"}, [True, False]),
    ({"type": "null"}, [None]),
    ({"type": "array"}, [[], [1]]),
    ({"type": "object"}, [{}, {"a": 1}]),
    ({"type": ["null", "string"]}, [None, "x"]),
    ({"enum": ["a", 1, None]}, ["a", 1, 1.0, None]),
    ({"const": [1, {"a": 2}]}, [[1, {"a": 2}]]),
    ({"minimum": 1, "maximum": 3}, [1, 3, 2.5, "text has no minimum"]),
    ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0.5]),
    ({"multipleOf": 0.1}, [0.3, 7, 1e300]),
    ({"minLength": 2, "maxLength": 3}, ["ab", "abc", 5]),
    ({"pattern": "^a.c"}, ["abc", "axcd", 5]),
    ({"format": "date"}, ["2013-01-31"]),
    ({"format": "date-time"}, ["2013-01-31T10:00:00Z", "2013-01-31T10:00:00+02:00"]),
    ({"items": {"type": "integer"}, "minItems": 1, "maxItems": 2, "uniqueItems": True}, [[1], [1, 2]]),
    ({"uniqueItems": True}, [[1, True]]),
    ({"properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}, [{"a": 1}]),
    ({"additionalProperties": {"type": "integer"}}, [{"a": 1, "b": 2}, {}]),
    ({"anyOf": [{"type": "integer"}, {"const": "auto"}]}, [3, "auto"]),
    ({"title": "T", "description": "D", "examples": [1], "default": 1}, ["anything"]),
]

BAD = [
    ({"type": "integer"}, True, "is not of type integer"),
    ({"type": "integer"}, 1.5, "is not of type integer"),
    ({"type": "integer"}, "1", "is not of type integer"),
    ({"type": "number"}, True, "is not of type number"),
    ({"type": "number"}, float("nan"), "is not of type number"),
    ({"type": ["null", "string"]}, 3, "null or string"),
    ({"enum": [1, "a"]}, True, "is none of"),
    ({"const": 0}, False, "is not 0"),
    ({"minimum": 1}, 0, "less than 1"),
    ({"maximum": 3}, 3.01, "more than 3"),
    ({"exclusiveMinimum": 0}, 0, "not more than 0"),
    ({"exclusiveMaximum": 1}, 1, "not less than 1"),
    ({"multipleOf": 0.1}, 0.35, "no multiple of 0.1"),
    ({"minLength": 2}, "a", "shorter than 2"),
    ({"maxLength": 1}, "ab", "longer than 1"),
    ({"pattern": "^a$"}, "b", "does not match"),
    ({"format": "date"}, "2013-02-30", "is no date"),
    ({"format": "date-time"}, "soon", "is no date-time"),
    ({"format": "date-time"}, "2013-01-31T10:00:00", "time zone"),
    ({"items": {"type": "integer"}}, [1, "x"], r"p\[1\]: 'x'"),
    ({"minItems": 1}, [], "shorter than 1"),
    ({"maxItems": 0}, [1], "longer than 0"),
    ({"uniqueItems": True}, [{"a": 1}, {"a": 1.0}], "twice"),
    ({"properties": {"a": {"minimum": 1}}}, {"a": 0}, r"p\['a'\]: 0"),
    ({"required": ["a"]}, {}, "lacks 'a'"),
    ({"properties": {"a": {}}, "additionalProperties": False}, {"b": 1}, "unknown entry 'b'"),
    ({"additionalProperties": {"type": "integer"}}, {"b": "x"}, r"p\['b'\]"),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "x", "anyOf"),
]

MALFORMED = [
    ({"minimun": 1}, "'minimun' is not supported. Supported: .*minimum"),
    ({"$ref": "x"}, "not supported"),
    ({"type": "int"}, "type cannot be 'int'"),
    ({"type": []}, "type cannot be"),
    ({"enum": []}, "enum cannot be"),
    ({"minimum": "1"}, "minimum cannot be"),
    ({"multipleOf": 0}, "multipleOf cannot be"),
    ({"minLength": -1}, "minLength cannot be"),
    ({"pattern": "("}, "no regular expression"),
    ({"format": "email"}, "format cannot be"),
    ({"required": "a"}, "required cannot be"),
    ({"items": {"typ": "x"}}, "p/items: .*'typ'"),
    ({"properties": {"a": {"typ": "x"}}}, "p/a: .*'typ'"),
    ({"anyOf": [{}, {"typ": "x"}]}, "p/anyOf/1"),
    ({"additionalProperties": {"typ": "x"}}, "p/additionalProperties"),
]


@pytest.mark.parametrize(("schema", "values"), GOOD)
def test_good_values_pass(schema, values):
    check_schema(schema, "p")
    for value in values:
        check_value(value, schema, "p")


@pytest.mark.parametrize(("schema", "value", "message"), BAD)
def test_bad_values_are_named(schema, value, message):
    check_schema(schema, "p")
    with pytest.raises(ParamValidationError, match=message):
        check_value(value, schema, "p")


@pytest.mark.parametrize(("schema", "message"), MALFORMED)
def test_schema_keyword_is_never_ignored(schema, message):
    with pytest.raises(InputError, match=message):
        check_schema(schema, "p")


def test_conf_overrides_defaults_and_brings_its_own():
    schemas = {"n": {"type": "integer", "default": 1}, "m": {"default": [1]}}
    assert resolve(schemas, {"n": 5, "extra": "e"}) == {"n": 5, "m": [1], "extra": "e"}
    assert resolve(schemas, None) == {"n": 1, "m": [1]}


def test_default_is_checked_like_any_other_value():
    with pytest.raises(ParamValidationError, match="param 'n': None is not of type string"):
        resolve({"n": {"type": "string", "default": None}}, {})


def test_param_without_default_must_be_given():
    with pytest.raises(ParamValidationError, match="'n' has no default"):
        resolve({"n": {}}, {"m": 1})
    assert resolve({"n": {}}, {"n": None}) == {"n": None}


def test_changing_resolved_default_changes_no_other_run():
    schemas = {"m": {"default": {"a": [1]}}}
    resolve(schemas, {})["m"]["a"].append(2)
    assert resolve(schemas, {}) == {"m": {"a": [1]}}
