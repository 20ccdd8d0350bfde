"""The OpenAPI document, made from the types of the messages."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from trainflow.api.rest.all_endpoints import PREFIX as REST_PREFIX
from trainflow.api.rest.all_endpoints import all_endpoints
from trainflow.api.rest.document import paths_of, schemas_of, types_of
from trainflow.messages.execution_api import Failed, Refused, Reply, Start, SupervisorReply
from trainflow.messages.http_protocol import (
    OPERATIONS,
    PREFIX,
    PROTOCOL,
    PROTOCOL_HEADER,
    TOKEN_HEADER,
    WORKER_OPERATION,
    HttpProblem,
    Operation,
    WorkerHeartbeat,
    WorkerOrders,
)

_SCHEMA = "#/components/schemas/{name}"
_PROBLEMS = {
    400: "not understood",
    401: "no such token, or claim secret",
    403: "the token is that of another attempt",
    408: "its body did not come to an end: try again",
    413: "larger than any request of its kind",
    503: "not now: try again after `Retry-After` seconds",
}


@cache
def openapi_document(version: str) -> bytes:
    """Describe everything that the API server answers, as JSON: kept as that, since it is large as objects."""
    requests = [*(operation.request for operation in OPERATIONS), WorkerHeartbeat, WorkerOrders]
    others = [Reply | SupervisorReply, Refused, Failed | HttpProblem, HttpProblem]
    endpoints = all_endpoints()
    schemas, components = schemas_of([*requests, *others, *types_of(endpoints)], _SCHEMA)
    bodies = dict(zip(requests, schemas, strict=False))
    reply, refused, failed, problem = schemas[len(requests) : len(requests) + len(others)]
    of_rest = paths_of(endpoints, REST_PREFIX, schemas[len(requests) + len(others) :], components)
    answers = {
        "200": _answer("applied, now or before", reply),
        "410": _answer("the attempt is not waited for any more: stop", refused),
        "422": _answer("understood, and cannot be satisfied", failed),
        **{str(status): _answer(meaning, problem) for status, meaning in _PROBLEMS.items()},
    }
    operations = {
        f"{PREFIX}/{each.name}": {"post": _operation(each, bodies[each.request], answers, problem)}
        for each in OPERATIONS
    }
    document = {
        "openapi": "3.1.0",
        "info": {"title": "trainflow", "version": version},
        "paths": {
            **_OF_THE_SERVER,
            **of_rest,
            **operations,
            f"{PREFIX}/{WORKER_OPERATION}": _of_workers(bodies[WorkerHeartbeat], bodies[WorkerOrders], problem),
        },
        "components": {"schemas": components, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }
    return msgspec.json.encode(document)


def _operation(
    operation: Operation, body: dict[str, Any], answers: dict[str, Any], problem: dict[str, Any]
) -> dict[str, Any]:
    headers = [_header(PROTOCOL_HEADER, {"type": "integer", "const": PROTOCOL})]
    if operation.request is Start:
        headers.append(_header(TOKEN_HEADER, {"type": "string", "minLength": 40}))
        answers = {**answers, "409": _answer("another process has this attempt", problem)}
    return {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": ["execution"],
        "security": [{"bearer": []}],
        "parameters": headers,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": answers,
    }


def _of_workers(body: dict[str, Any], orders: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    described = {
        "operationId": WORKER_OPERATION,
        "summary": "Say that a worker lives; what it is told.",
        "tags": ["execution"],
        "security": [{"bearer": []}, {}],
        "parameters": [_header(PROTOCOL_HEADER, {"type": "integer", "const": PROTOCOL})],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": _answer("noted", orders),
            **{str(status): _answer(meaning, problem) for status, meaning in _PROBLEMS.items() if status != 403},
            "422": _answer("understood, and cannot be kept", problem),
        },
    }
    return {"post": described}


def _header(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": True, "schema": schema}


def _answer(meaning: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {} if schema is None else {"content": {"application/json": {"schema": schema}}}
    return {"description": meaning, **content}


def _get(summary: str, *, proven: bool, **answers: str) -> dict[str, Any]:
    responses = {status.removeprefix("_"): _answer(meaning) for status, meaning in answers.items()}
    if not proven:
        return {"get": {"summary": summary, "tags": ["server"], "responses": responses}}
    responses["401"] = _answer("api.token is set, and was not shown")
    security: list[dict[str, list[str]]] = [{"bearer": []}, {}]
    return {"get": {"summary": summary, "tags": ["server"], "security": security, "responses": responses}}


_AWAY = "the metadata database cannot be used now, and why"
_OF_THE_SERVER = {
    "/health": _get("Whether this process answers.", proven=False, _200="it does"),
    "/ready": _get("Whether the control plane works.", proven=False, _200="it does", _503="it does not, and why"),
    "/version": _get("The versions of trainflow and of the protocol.", proven=True, _200="the versions", _503=_AWAY),
    "/metrics": _get("Metrics in the text format of Prometheus.", proven=True, _200="the metrics", _503=_AWAY),
    "/openapi.json": _get("This document.", proven=True, _200="the document"),
}
