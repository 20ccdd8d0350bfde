"""The part of the OpenAPI document that is about the REST API: made of the endpoints and their types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from trainflow.api.rest.endpoints import BYTES, Endpoint
from trainflow.api.rest.examples import example_named, example_of
from trainflow.api.rest.problems import MEDIA, OF_ALL, OF_WRITES, Problem

#: path parameters that are numbers
_NUMBERS = frozenset({"try_number", "event_log_id"})


def types_of(endpoints: Iterable[Endpoint]) -> list[Any]:
    """Every type that a schema is needed of, in the order in which `paths_of` takes them."""
    found: list[Any] = [Problem]
    for each in endpoints:
        found += [each.query, *_body(each), *_answer(each)]
    return found


def _body(endpoint: Endpoint) -> list[Any]:
    return [] if endpoint.body is None else [endpoint.body]


def _answer(endpoint: Endpoint) -> list[Any]:
    return [] if endpoint.answer is None or endpoint.answer is bytes else [endpoint.answer]


def paths_of(
    endpoints: Sequence[Endpoint], prefix: str, schemas: Sequence[dict[str, Any]], components: dict[str, Any]
) -> dict[str, Any]:
    """The paths; `schemas`: of `types_of` them, `components`: what these refer to."""
    given = iter(schemas)
    problem = next(given)
    paths: dict[str, Any] = {}
    for each in endpoints:
        query = _resolved(next(given), components)
        body = next(given) if _body(each) else None
        answer = next(given) if _answer(each) else {"type": "string", "format": "binary"}
        paths.setdefault(prefix + each.documented_path, {})[each.method.lower()] = {
            "operationId": each.name,
            "summary": each.summary,
            "description": "\n\n".join(filter(None, (each.description, query.get("description")))),
            "tags": [each.tag],
            "x-role": each.role.value,
            "security": [{"bearer": []}, {}],
            "parameters": [*_path_parameters(each), *_query_parameters(query), *_headers(each)],
            **({} if body is None else {"requestBody": _request_body(each, body)}),
            "responses": _responses(each, answer, problem),
        }
    return paths


def _resolved(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    found: dict[str, Any] = components[reference.rpartition("/")[2]] if reference else schema
    return found


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer"} if name in _NUMBERS else {"type": "string", "minLength": 1},
            "example": example_named(name),
        }
        for name in endpoint.parameters
    ]


def _query_parameters(query: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": name in query.get("required", ()), "schema": schema}
        for name, schema in query.get("properties", {}).items()
    ]


def _headers(endpoint: Endpoint) -> list[dict[str, Any]]:
    if not endpoint.writes:
        schema = {"type": "string", "maxLength": 200}
        names = ["If-None-Match", *(("Range", "If-Range") if 416 in endpoint.statuses else ())]
        return [{"name": name, "in": "header", "required": False, "schema": schema} for name in names]
    return [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "the same key with the same request gets the same answer, and is done once",
            "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
            "example": "8f14e45f-ceea-467f-a830-5f1f3b2f1d6f",
        }
    ]


def _request_body(endpoint: Endpoint, schema: dict[str, Any]) -> dict[str, Any]:
    content = {"schema": schema, "example": example_of(endpoint.body)}
    return {"required": False, "content": {"application/json": content}}


def _responses(endpoint: Endpoint, answer: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    statuses = {**OF_ALL, **(OF_WRITES if endpoint.writes else {}), **endpoint.statuses}
    told = {"schema": problem, "example": example_of(Problem)}
    problems = {str(status): {"description": meaning, "content": {MEDIA: told}} for status, meaning in statuses.items()}
    if endpoint.answer is None:
        return {"204": {"description": "done"}, **problems}
    shown = {} if endpoint.answer is bytes else {"example": example_of(endpoint.answer)}
    content = {media: {"schema": answer, **(shown if media != BYTES else {})} for media in endpoint.media}
    unchanged: dict[str, Any] = {} if endpoint.writes else {"304": {"description": "it is what If-None-Match names"}}
    if 416 in endpoint.statuses:
        unchanged["206"] = {"description": "the part that Range asks for", "content": content}
    return {str(endpoint.success): {"description": "done", "content": content}, **unchanged, **problems}


def schemas_of(types: Sequence[Any], template: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The schema of each type, and what they refer to."""
    schemas, components = msgspec.json.schema_components(types, schema_hook=_anything, ref_template=template)
    return list(schemas), components


def _anything(type_: type) -> dict[str, Any]:
    """The schema of what msgspec does not know: `object`, which is any value."""
    if type_ is object:
        return {"description": "any value"}
    raise NotImplementedError(type_)
