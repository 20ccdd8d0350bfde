"""Which modules are imported for a path, and that each endpoint is found where it is declared."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from trainflow.api.rest.all_endpoints import all_endpoints, endpoints_of, modules_of
from trainflow.api.rest.endpoints import Endpoint


@pytest.mark.parametrize("endpoint", all_endpoints(), ids=lambda each: f"{each.method} {each.path}")
def test_endpoint_is_among_those_of_the_modules_of_its_path(endpoint: Endpoint) -> None:
    path = re.sub(r"{\w+:path}", "a/b", endpoint.path)
    assert endpoint in endpoints_of(modules_of(re.sub(r"{\w+}", "~", path)))


@pytest.mark.parametrize(
    "path", ["", "/", "/dagz", "/dags/", "/dags/d/", "/dags/d/e", "/dags/d/dagRuns/r/e", "/pool", "/dags/d\n/e/f"]
)
def test_path_of_nothing_imports_nothing(path: str) -> None:
    assert modules_of(path) == ()


def test_endpoint_is_declared_once() -> None:
    found = [(each.method, each.path) for each in all_endpoints()]
    assert len(found) == len(set(found))


def test_server_of_people_imports_neither_chains_nor_openapi_nor_what_libraries_seldom_use() -> None:
    look = """if True:
        import sys
        import trainflow.api.server, trainflow.api.web_server
        from trainflow.api.rest.all_endpoints import endpoints_of
        endpoints_of(["dag_runs"])
        heavy = ["trainflow.checkpoints.ledger.fold", "trainflow.samples.splits", "trainflow.insight.metrics.metrics"]
        heavy += ["trainflow.api.openapi", "html.entities", "socketserver", "zipfile"]
        print([each for each in heavy if each in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout
