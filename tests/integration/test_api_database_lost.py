"""A database that is lost at any statement of any page and endpoint: 503 with what is wrong and when to come again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from sqlalchemy.exc import OperationalError

from tests.support.rest import RestApi, rest_api
from trainflow.api.openapi import openapi_document
from trainflow.metadata.fast_connection import FastConnection
from trainflow.pages.application import OTHERS, PAGES
from trainflow.pages.decisions import FORMS

#: what the names in a path are in the project of `rest_api`
NAMES = {
    "pipeline": "flights",
    "stage": "main",
    "branch": "main",
    "checkpoint": "2",
    "which": "2",
    "file": "model.bin",
    "dag_id": "d",
    "run_id": "r1",
    "dag_run_id": "r1",
    "task_id": "a",
    "try_number": "1",
    "xcom_key": "k",
    "pool_name": "default_pool",
    "path": "model.bin",
    "start": "2013-01-01T00:00:00+00:00",
}
DOCUMENT = msgspec.json.decode(openapi_document("0"))
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    if path.startswith("/api/")
    for method, operation in methods.items()
}
HTML = {"Accept": "text/html"}
MOST = 60


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestApi]:
    with rest_api(tmp_path_factory.mktemp("lost")) as served:
        database = served.api.server.database
        database.patience_seconds = 0.0
        database.sleep = lambda _seconds: None
        yield served


@contextmanager
def lost(monkeypatch: pytest.MonkeyPatch, statement: int, *, forever: bool) -> Iterator[list[int]]:
    """The database is lost at this statement, and is back at the next, or not. What it yields counts statements."""
    asked: list[int] = []
    execute = FastConnection.execute

    def counted(self: Any, *given: Any, **options: Any) -> Any:
        asked.append(len(asked) + 1)
        if asked[-1] == statement or (forever and asked[-1] > statement):
            cause = sqlite3.OperationalError("disk I/O error")
            cause.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise OperationalError("SELECT", None, cause, hide_parameters=True)
        return execute(self, *given, **options)

    with monkeypatch.context() as patched:
        patched.setattr(FastConnection, "execute", counted)
        yield asked


def _named(path: str) -> str:
    for name, value in NAMES.items():
        path = path.replace(f"{{{name}:path}}", value).replace(f"{{{name}}}", quote(value, safe=""))
    return path


def _check(rest: RestApi, monkeypatch: pytest.MonkeyPatch, ask: Any, *, page: bool) -> None:
    for forever in (True, False):
        for number in range(1, MOST):
            _forget_pages(rest)
            with lost(monkeypatch, number, forever=forever) as asked:
                answer = ask()
            assert answer.status < 500 or answer.status == 503, (number, answer)
            if answer.status == 503:
                assert answer.headers["retry-after"] == "1", (number, answer)
                if page:
                    assert b"the metadata database" in answer.body, (number, answer)
            if len(asked) < number:
                break


def _forget_pages(rest: RestApi) -> None:
    pages = rest.api.server.web.pages.made()
    pages._kept.clear()
    pages.site.forget_overview()


@pytest.mark.parametrize("path", [path for path, _ in (*PAGES, *OTHERS)])
def test_page_whose_database_is_lost_at_any_statement_says_so(
    rest: RestApi, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    html = path in dict(PAGES)
    wanted = _named(path) + ("?first=0&end=9" if path.endswith("borders.json") else "")
    assert rest.api.ask("GET", wanted, **HTML).status == 200, wanted
    _check(rest, monkeypatch, lambda: rest.api.ask("GET", wanted, **(HTML if html else {})), page=html)


@pytest.mark.parametrize("name", sorted(FORMS))
def test_form_whose_database_is_lost_at_any_statement_says_so(
    rest: RestApi, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    chain, run = "pipeline=flights&stage=main&branch=main&to=1&checkpoint=2&alias=x", "dag_id=d&run_id=r1&task_id=a"
    fields = f"{chain}&{run}&state=failed".encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded", **HTML}
    _check(rest, monkeypatch, lambda: rest.api.ask("POST", f"/do/{name}", fields, **headers), page=False)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"wait_for_dag_run", "stop_engine", "start_chain"}))
def test_endpoint_whose_database_is_lost_at_any_statement_says_so(
    rest: RestApi, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    method, path, described = OPERATIONS[name]
    path = _named(path) + ("?a=1&b=2" if name == "compare_checkpoints" else "")
    body, headers = None, {}
    if "requestBody" in described:
        body = msgspec.json.encode(described["requestBody"]["content"]["application/json"]["example"])
        headers = {"Content-Type": "application/json"}
    _check(rest, monkeypatch, lambda: rest.api.ask(method, path, body, **headers), page=False)


def test_browser_whose_token_cannot_be_looked_up_gets_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rest_api(tmp_path, token="0123456789abcdef") as closed, lost(monkeypatch, 1, forever=True):
        closed.api.server.database.patience_seconds = 0.0
        page = closed.api.ask("GET", "/runs", Cookie="trainflow_token=tf_unknown", **HTML)
        program = closed.api.ask("GET", "/api/v1/dags", Authorization="Bearer tf_unknown")
    assert (page.status, page.headers["retry-after"]) == (503, "1")
    assert b"This cannot be read now" in page.body
    assert (program.status, program.body["title"]) == (503, "DatabaseUnavailable")
