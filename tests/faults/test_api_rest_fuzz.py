"""Requests to the REST API made up from the OpenAPI document, right ones and wrong ones: every one has an answer that
the document names, of the shape that it says, and none is a fault of the server."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings

from tests.support.rest import RestApi, rest_api
from trainflow.api.openapi import openapi_document
from trainflow.testing.processes import DEADLINE_SECONDS

schemathesis = pytest.importorskip("schemathesis", reason="pip install 'trainflow[test]'")

from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

SCHEMA = schemathesis.openapi.from_dict(msgspec.json.decode(openapi_document("0")))
#: requests are made up when a test runs: when tests are collected, each worker of a run would make up all of them
REST = schemathesis.pytest.from_fixture("document")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
OPTIONS: dict[str, Any] = {"deadline": None, "derandomize": True, "database": None}
#: names that are there, so that requests get further than "there is no such thing"
KNOWN = {
    "dag_id": "d",
    "dag_run_id": "r2",
    "task_id": "a",
    "pipeline": "flights",
    "stage": "main",
    "branch": "main",
    "checkpoint": "head",
    "pool_name": "default_pool",
    "partition": "2013-01-02",
    "xcom_key": "return_value",
    "try_number": 1,
    "file": "model.bin",
}


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestApi]:
    with rest_api(tmp_path_factory.mktemp("fuzz")) as served:
        yield served


@pytest.fixture(scope="module")
def document() -> Any:
    """Of all endpoints."""
    return SCHEMA


@pytest.fixture(autouse=True)
def _name_of_test(request: pytest.FixtureRequest) -> None:
    """Schemathesis 4.32 looks for it where pytest 9.2 has it no more."""
    request.node._nodeid = request.node.nodeid


def about(paths: str) -> Any:
    """Have a test called with requests to the paths that match."""

    def decorate(test: Any) -> Any:
        made_up = REST.include(path_regex=paths).parametrize()
        return pytest.mark.slow(
            made_up(settings(max_examples=5, suppress_health_check=list(HealthCheck), **OPTIONS)(test))
        )

    return decorate


@pytest.mark.exhaustive
@about("^/api/v1/dags/")
def test_every_request_about_a_dag_has_an_answer_that_the_document_names(rest: RestApi, case: Any) -> None:
    _ask(rest, case)


@pytest.mark.exhaustive
@about("^/api/v1/chains/")
def test_every_request_about_a_chain_has_an_answer_that_the_document_names(rest: RestApi, case: Any) -> None:
    _ask(rest, case)


@pytest.mark.exhaustive
@about("^/api/(?!v1/(dags|chains)/)")
def test_every_other_request_has_an_answer_that_the_document_names(rest: RestApi, case: Any) -> None:
    _ask(rest, case)


def _ask(rest: RestApi, case: Any) -> None:
    if zlib.crc32(repr(case.path_parameters).encode()) % 4:
        known = KNOWN if "wait" not in case.path else {**KNOWN, "dag_run_id": "r1"}
        case.path_parameters = {name: known.get(name, value) for name, value in (case.path_parameters or {}).items()}
    # a stopped engine would be this process
    if isinstance(case.body, dict) and case.path.endswith("/engine/stop"):
        case.body = {**case.body, "dry_run": True}
    case.call_and_validate(base_url=rest.api.url, checks=CHECKS, timeout=DEADLINE_SECONDS)
