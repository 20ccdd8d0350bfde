"""An example of a type: a value that is one of it, with words that a reader of the document knows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect

#: what fields of a name look like
_WORDS: dict[str, Any] = {
    "dag_id": "flight_delay",
    "dag_display_name": "flight_delay",
    "dag_run_id": "manual__2026-11-29T10:00:00+00:00_1f3a9c",
    "run_id": "manual__2026-11-29T10:00:00+00:00_1f3a9c",
    "task_id": "train",
    "task_display_name": "train",
    "pipeline": "flight_delay",
    "stage": "main",
    "branch": "main",
    "chain": "flight_delay/main/main",
    "checkpoint": "head",
    "file": "model.bin",
    "partition": "2013-01-31",
    "pool_name": "default_pool",
    "pool": "default_pool",
    "xcom_key": "return_value",
    "key": "return_value",
    "try_number": 1,
    "map_index": -1,
    "alias": "champion",
    "title": "DagNotFound",
    "status": 404,
    "detail": "no DAG is called 'flight_dely'; did you mean 'flight_delay'?",
    "what_to_do": "GET /api/v1/dags lists what there is",
    "path": "pipelines/flight_delay.yaml",
    "length": "1d",
    "sha256": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "ranges": [[0, 28, "trained"], [28, 1, "hole"], [29, 2, "trained"]],
    "borders": [[6, 1, 120_000], [13, 2, 120_400]],
    "state": "success",
    "cursor": "",
    "name": "default_pool",
    "tag": "flights",
    "operator": "TrainOperator",
    "hostname": "trainer-1",
    "owner": "ci",
    "address": "192.0.2.7",
    "reason": "trained on a broken feed",
    "note": "after the feed was mended",
    "branch_name": "wide",
    "what": "head",
    "update_mask": [],
    "conf": {"rows": 100},
    "new_branch": "wide",
    "task_ids": ["train"],
    "overrides": {"params.rate": "0.1"},
    "to": "27",
    "before": None,
}
_MOMENT = datetime(2026, 11, 29, 10, tzinfo=UTC)
_DEEPEST = 6


def example_of(type_: Any) -> Any:
    """A value of a type, as JSON has it."""
    return _example(inspect.type_info(type_), "", 0)


def example_named(name: str) -> Any:
    """What a parameter of a name looks like."""
    return _WORDS.get(name, name)


def _example(info: inspect.Type, name: str, depth: int) -> Any:
    if name in _WORDS and _fits(info, _WORDS[name]):
        return _WORDS[name]
    match info:
        case inspect.Metadata():
            return _example(info.type, name, depth)
        case inspect.UnionType():
            return _of_union(info, name, depth)
        case inspect.StructType():
            return _of_struct(info, depth)
        case inspect.ListType() | inspect.VarTupleType():
            return [] if depth > _DEEPEST else [_example(info.item_type, "", depth + 1)]
        case inspect.NamedTupleType():
            return [_example(each.type, each.name, depth + 1) for each in info.fields]
        case inspect.TupleType():
            return [_example(each, "", depth + 1) for each in info.item_types]
        case inspect.DictType() | inspect.AnyType():
            return {}
        case inspect.LiteralType():
            return info.values[0]
        case inspect.EnumType():
            return next(iter(info.cls)).value
    return _of_scalar(info)


def _fits(info: inspect.Type, value: Any) -> bool:
    """Whether a value is one of a type, as far as that can be said of the type alone."""
    match info:
        case inspect.Metadata():
            return _fits(info.type, value)
        case inspect.UnionType():
            return any(_fits(each, value) for each in info.types)
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.IntType():
            return isinstance(value, int)
        case inspect.LiteralType():
            return value in info.values
        case inspect.ListType():
            return isinstance(value, list) and (not value or isinstance(info.item_type, inspect.TupleType))
        case inspect.DictType():
            return isinstance(value, dict) and isinstance(info.value_type, inspect.AnyType)
    return False


def _of_union(info: inspect.UnionType, name: str, depth: int) -> Any:
    """The first that says something."""
    said = [each for each in info.types if not (isinstance(each, inspect.NoneType) or _is_unset(each))]
    if depth > _DEEPEST and len(said) < len(info.types):
        return None
    return _example(said[0], name, depth)


def _is_unset(info: inspect.Type) -> bool:
    return isinstance(info, inspect.CustomType) and info.cls is msgspec.UnsetType


def _of_struct(info: inspect.StructType, depth: int) -> Any:
    fields = {field.encode_name: _example(field.type, field.encode_name, depth + 1) for field in info.fields}
    if info.array_like:
        return list(fields.values())
    tag = {} if info.tag_field is None else {info.tag_field: info.tag}
    return {**tag, **fields}


def _of_scalar(info: inspect.Type) -> Any:
    match info:
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return info.ge or 1
        case inspect.FloatType():
            return 2.0
        case inspect.DateTimeType():
            return msgspec.to_builtins(_MOMENT)
        case inspect.UUIDType():
            return str(UUID(int=27))
        case inspect.StrType() | inspect.BytesType():
            return "flight_delay"
    return None
