"""The DAGs that engines have read, and one of them: its graph, its runs, and a form that triggers one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request

from trainflow.insight.runs.dags import dag_detail, list_dags
from trainflow.insight.runs.runs import list_runs
from trainflow.pages.graph import graph
from trainflow.pages.site import Answer, Site
from trainflow.serialization.document import DagDocument

_RUNS = 25


class ParamField(NamedTuple):
    """A param as a field of a form. `kind`: text, number, integer, checkbox, choice, date, datetime or json."""

    name: str
    kind: str
    title: str
    help: str
    value: str
    checked: bool
    required: bool
    choices: list[str]
    least: str
    most: str
    pattern: str


def dags(site: Site, _request: Request) -> Answer:
    """All DAGs, and files that give none."""
    listing = list_dags(site.workspace)
    return Answer("dags.html", {"title": "DAGs", "listing": listing}, ("fleet", "runs"))


def dag(site: Site, request: Request) -> Answer:
    """The page of a DAG."""
    detail = dag_detail(site.workspace, request.path_params["dag_id"])
    document = msgspec.convert(detail.document, DagDocument)
    upstream = {task.task_id: task.upstream for task in document.tasks}
    drawn = graph(upstream, {}, {task.task_id: task.operator for task in document.tasks})
    values = {
        "title": detail.dag_id,
        "dag": detail,
        "document": document,
        "graph": drawn,
        "fields": param_fields(document.params),
        "runs": list_runs(site.workspace, detail.dag_id, site.now, limit=_RUNS).runs,
    }
    return Answer("dag.html", values, (f"dag:{detail.dag_id}", "runs"))


def param_fields(params: Mapping[str, Mapping[str, Any]]) -> list[ParamField]:
    """A field for each param, from its JSON Schema."""
    return [_field(name, schema) for name, schema in params.items()]


def _field(name: str, schema: Mapping[str, Any]) -> ParamField:
    default = schema.get("default")
    kind = _kind(schema)
    value = "" if default is None else default if isinstance(default, str) and kind != "json" else _json(default)
    return ParamField(
        name=name,
        kind=kind,
        title=str(schema.get("title") or name),
        help=str(schema.get("description") or ""),
        value=value,
        checked=default is True,
        required="default" not in schema and "null" not in _types(schema),
        choices=[each if isinstance(each, str) else _json(each) for each in schema.get("enum", ())],
        least=str(schema.get("minimum", "")),
        most=str(schema.get("maximum", "")),
        pattern=str(schema.get("pattern") or ""),
    )


def _types(schema: Mapping[str, Any]) -> list[str]:
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else list(types)


_KINDS = {"boolean": "checkbox", "integer": "integer", "number": "number", "string": "text"}
_FORMATS = {"date": "date", "date-time": "datetime"}


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "choice"
    types = [each for each in _types(schema) if each != "null"]
    if types == ["string"]:
        return _FORMATS.get(str(schema.get("format")), "text")
    if len(types) == 1:
        return _KINDS.get(types[0], "json")
    if not types and isinstance(schema.get("default"), str):
        return "text"
    return "json"


def conf_of(params: Mapping[str, Mapping[str, Any]], given: Mapping[str, str]) -> dict[str, Any]:
    """What a form says, as conf: a field that is as its default is left out. Raises ValueError with the field."""
    conf: dict[str, Any] = {}
    for field in param_fields(params):
        schema = params[field.name]
        value = _value(field, given.get(f"param.{field.name}"))
        if value is not msgspec.UNSET and (value != schema.get("default") or "default" not in schema):
            conf[field.name] = value
    return conf


def _value(field: ParamField, text: str | None) -> Any:
    if field.kind == "checkbox":
        return text is not None
    if text is None or (text == "" and field.kind != "text"):
        return msgspec.UNSET
    try:
        match field.kind:
            case "integer":
                return int(text)
            case "number":
                return float(text)
            case "json":
                return msgspec.json.decode(text)
            case "choice":
                return _choice(text)
    except (ValueError, msgspec.DecodeError):
        raise ValueError(f"param '{field.name}': {text!r} is no {_NOUN.get(field.kind, 'JSON')}") from None
    return text


_NOUN = {"integer": "whole number", "number": "number"}


def _choice(text: str) -> Any:
    """A choice is written as itself where it is text, and as JSON otherwise."""
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return found if not isinstance(found, str) else text


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
