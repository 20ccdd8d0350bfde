"""Who may ask the API server what: roles and every endpoint, tokens, hosts, other sites, proxies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from tests.support.api import Answer
from tests.support.rest import RestApi, rest_api
from trainflow.actions.tokens import create_token, revoke_token
from trainflow.api.authentication import MOST_WRONG, WRONG_SECONDS
from trainflow.api.openapi import openapi_document
from trainflow.engine.lock import engine_lock
from trainflow.errors import InputError
from trainflow.metadata.queries.token_queries import Role
from trainflow.pages.application import OTHERS, PAGES
from trainflow.pages.decisions import FORMS
from trainflow.pages.lazy_application import LOGIN, PATHS
from trainflow.workspace.workspace import Workspace

SECRET = "0123456789abcdef"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
#: the role that each endpoint needs: one that is not here, or is needed by another role, is a failure
ROLES = {
    "viewer": {
        *("list_dags", "get_dag", "get_dag_details", "list_tasks", "get_task"),
        *("list_dag_runs", "get_dag_run", "wait_for_dag_run"),
        *("list_task_instances", "get_task_instance", "get_task_dependencies", "list_tries", "get_try", "get_log"),
        *("list_xcom_entries", "get_xcom_entry"),
        *("get_pools", "get_pool", "get_import_errors", "get_jobs", "get_event_logs", "get_version", "get_health"),
        *("list_chains", "get_chain", "list_entries", "get_partition_ranges", "get_partition", "list_samples"),
        *("get_plan", "list_checkpoints", "get_checkpoint", "get_lineage", "list_files", "download_file"),
        "compare_checkpoints",
    },
    "operator": {
        *("patch_dag", "trigger_dag_run", "patch_dag_run", "clear_dag_run", "cancel_dag_run"),
        *("clear_task_instances", "patch_task_instance", "patch_task_instance_dry_run", "post_pool", "patch_pool"),
        *("rewind_chain", "fork_chain", "promote_checkpoint", "resume_chain", "repair_chain", "start_chain"),
    },
    "admin": {"delete_dag_run", "delete_pool", "prune_chain", "stop_engine"},
}
DOCUMENT = msgspec.json.decode(openapi_document("0"))
OPERATIONS = {
    operation["operationId"]: (method, path, operation)
    for path, methods in DOCUMENT["paths"].items()
    if path.startswith("/api/")
    for method, operation in methods.items()
}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RestApi, dict[str, str]]]:
    """A server that asks for tokens, and one of each role."""
    with rest_api(tmp_path_factory.mktemp("closed"), token=SECRET) as served:
        tokens = {role.value: _token(served, role.value, role) for role in Role}
        yield served, tokens


def _token(rest: RestApi, name: str, role: str, lifetime: timedelta | None = None) -> str:
    with Workspace(rest.plane.project, rest.plane.settings) as workspace:
        made = create_token(workspace, name, role, who="test", now=rest.plane.clock.now(), lifetime=lifetime)
    return made.token


def _ask(rest: RestApi, operation: str, token: str | None) -> Answer:
    """The example of an operation; nothing that it names is there, so that nothing is done."""
    method, path, described = OPERATIONS[operation]
    for parameter in described["parameters"]:
        if parameter["in"] == "path":
            name = parameter["name"]
            path = path.replace(f"{{{name}}}", "1" if name == "try_number" else "nothing")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    body = None
    if "requestBody" in described:
        body = msgspec.json.encode(described["requestBody"]["content"]["application/json"]["example"])
        headers["Content-Type"] = "application/json"
    query = "?a=1&b=2" if operation == "compare_checkpoints" else ""
    return rest.api.ask(method.upper(), path + query, body, **headers)


@pytest.mark.parametrize("name", ["local", "api.token"])
def test_token_with_the_name_of_another_caller_is_not_made(closed: tuple[RestApi, dict[str, str]], name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' is in the event log for callers without a token of their own"):
        _token(closed[0], name, "viewer")


def test_every_endpoint_has_a_row_in_the_table_of_roles() -> None:
    assert set(OPERATIONS) == set().union(*ROLES.values())
    assert {name: operation["x-role"] for name, (_, _, operation) in OPERATIONS.items()} == {
        name: role for role, names in ROLES.items() for name in names
    }


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_endpoint_is_answered_for_those_with_its_role_alone(
    closed: tuple[RestApi, dict[str, str]], operation: str
) -> None:
    rest, tokens = closed
    needed = Role(next(role for role, names in ROLES.items() if operation in names))
    assert _ask(rest, operation, None).status == 401
    for role in Role:
        answer = _ask(rest, operation, tokens[role])
        assert (answer.status == 403) is (role.rank < needed.rank), (role, answer)
        assert answer.status not in (401, 500)


#: what else stands on the port of the web server: who may ask, by method and path; None: everybody
OTHER_ROLES: dict[tuple[str, str], str | None] = {
    **dict.fromkeys([("GET", "/version"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/events")], "viewer"),
    **{("GET", path): "viewer" for path, _ in (*PAGES, *OTHERS)},
    **{
        ("POST", f"/do/{name}"): "operator"
        for name in ("resume", "promote", "rewind", "clear", "cancel", "mark", "trigger", "pause")
    },
    ("GET", LOGIN): None,
    ("POST", LOGIN): None,
    ("GET", "/static/{name}"): None,
}


def _other_routes(rest: RestApi) -> set[tuple[str, str]]:
    """Every route but those of endpoints; pages stand below routes that take whatever comes."""
    web = rest.api.server.web
    of_server = [
        each for each in web.application.routes if not each.path.startswith("/api/") and each.path not in PATHS
    ]
    return {
        (method, route.path)
        for route in (*of_server, *web.pages.made().routes)
        for method in route.methods or ()
        if method != "HEAD"
    }


def test_every_other_route_has_a_row_too(closed: tuple[RestApi, dict[str, str]]) -> None:
    assert _other_routes(closed[0]) == set(OTHER_ROLES)
    assert {name for method, name in OTHER_ROLES if method == "POST" and name != LOGIN} == {
        f"/do/{name}" for name in FORMS
    }


@pytest.mark.parametrize(("method", "path"), sorted(OTHER_ROLES))
def test_route_is_answered_for_those_with_its_role_alone(
    closed: tuple[RestApi, dict[str, str]], method: str, path: str
) -> None:
    rest, tokens = closed
    needed = OTHER_ROLES[method, path]
    if path == "/events":
        asked = [None]  # a stream that goes on
    else:
        asked = [None, *Role]
    for role in asked:
        headers = {} if role is None else {"Authorization": f"Bearer {tokens[role]}"}
        body = b"" if method == "POST" else None
        status = rest.api.ask(method, re.sub(r"{\w+(:path)?}", "nothing", path), body, **FORM, **headers).status
        assert (status == 401) is (needed is not None and role is None), (role, status)
        assert (status == 403) is (role is not None and needed is not None and role.rank < Role(needed).rank), role
        assert status != 500


def test_token_of_settings_is_the_administrators(closed: tuple[RestApi, dict[str, str]]) -> None:
    rest, _ = closed
    answer = rest.ask("POST", "/engine/stop", {}, Authorization=f"Bearer {SECRET}")
    assert (answer.status, answer.body["dry_run"]) == (200, True)


def test_token_that_was_revoked_or_has_expired_is_worth_nothing(closed: tuple[RestApi, dict[str, str]]) -> None:
    rest, _ = closed
    lost = _token(rest, "lost", "viewer")
    short = _token(rest, "short", "viewer", timedelta(hours=1))
    assert [rest.ask("GET", "/dags", Authorization=f"Bearer {each}").status for each in (lost, short)] == [200, 200]
    with Workspace(rest.plane.project, rest.plane.settings) as workspace:
        revoke_token(workspace, "lost", who="test", now=rest.plane.clock.now())
    rest.plane.clock.advance(timedelta(hours=2))
    assert [rest.ask("GET", "/dags", Authorization=f"Bearer {each}").status for each in (lost, short)] == [401, 401]


def test_tokens_are_kept_as_digests_and_in_no_log(closed: tuple[RestApi, dict[str, str]]) -> None:
    rest, tokens = closed
    home = rest.plane.project.home
    rest.plane.database.engine.dispose()
    stored = home.database.read_bytes() + b"".join(each.read_bytes() for each in home.path.glob("*-wal"))
    assert all(token.encode() not in stored for token in tokens.values())


def test_wrong_tokens_of_an_address_are_heard_a_few_times_a_minute(closed: tuple[RestApi, dict[str, str]]) -> None:
    rest, tokens = closed
    rest.plane.clock.advance(timedelta(seconds=WRONG_SECONDS + 1))
    wrong = [rest.ask("GET", "/dags", Authorization="Bearer wrong").status for _ in range(MOST_WRONG)]
    assert wrong == [401] * MOST_WRONG
    answer = rest.ask("GET", "/dags", Authorization="Bearer wrong")
    assert (answer.status, answer.body["title"]) == (429, "TooManyWrongTokens")
    assert 0 < int(answer.headers["retry-after"]) <= WRONG_SECONDS + 1
    # what is good goes on, and attempts do not notice
    assert rest.ask("GET", "/dags", Authorization=f"Bearer {SECRET}").status == 200
    assert rest.api.ask("GET", "/health").status == 200
    rest.plane.clock.advance(timedelta(seconds=WRONG_SECONDS + 1))
    assert rest.ask("GET", "/dags", Authorization=f"Bearer {tokens['viewer']}").status == 200


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestApi]:
    """A server on loopback that asks for no token."""
    with rest_api(tmp_path_factory.mktemp("open")) as served:
        yield served


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8080", 421),
        ("evil@localhost", 421),
        ("", 421),
    ],
)
def test_server_without_tokens_is_asked_by_its_name_alone(opened: RestApi, host: str, status: int) -> None:
    assert opened.ask("GET", "/version", Host=host).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 404),
        ({"Sec-Fetch-Site": "same-origin"}, 404),
        ({"Sec-Fetch-Site": "none"}, 404),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:8080", "Host": "localhost:8080"}, 404),
        ({"Origin": "http://localhost:3000", "Host": "localhost:8080"}, 403),
    ],
)
def test_browser_that_another_site_sends_changes_nothing(opened: RestApi, headers: dict[str, str], status: int) -> None:
    assert opened.ask("POST", "/dags/nothing/dagRuns", {}, **headers).status == status


def test_every_answer_tells_browsers_to_be_strict(opened: RestApi) -> None:
    for path in ("/api/v1/dags", "/api/v1/nothing", "/health", "/openapi.json"):
        headers = opened.api.ask("GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"


def _proxied(tmp_path: Any, **api: Any) -> Any:
    return rest_api(tmp_path, token=SECRET, trusted_proxies=["127.0.0.1"], **api)


def test_server_below_a_prefix_is_reached_whether_the_proxy_keeps_it_or_not(tmp_path: Any) -> None:
    with _proxied(tmp_path, root_path="/trainflow") as rest:
        headers = {"Authorization": f"Bearer {SECRET}"}
        for path in ("/trainflow/api/v1/dags", "/api/v1/dags", "/trainflow/openapi.json", "/trainflow/health"):
            assert rest.api.ask("GET", path, **headers).status == 200, path
        assert rest.api.ask("GET", "/trainflow/nothing", **headers).status == 404


def test_address_of_a_client_is_what_trusted_proxies_say(tmp_path: Any) -> None:
    with _proxied(tmp_path) as rest:
        headers = {"Authorization": f"Bearer {SECRET}"}
        spoofed = {"X-Forwarded-For": "203.0.113.9, 192.0.2.7", **headers}
        rest.ask("PATCH", "/dags/d", {"is_paused": True}, status=200, **spoofed)
        (event,) = rest.get("/eventLogs", **headers)["event_logs"]
        assert (event["event"], event["owner"], event["address"]) == ("patch_dag", "api.token", "192.0.2.7")


def test_form_of_a_page_that_has_acted_is_an_event(tmp_path: Any) -> None:
    with rest_api(tmp_path) as rest:
        with engine_lock(rest.plane.project.home):
            form = b"dag=d&paused=yes"
            media = "application/x-www-form-urlencoded"
            answer = rest.api.ask("POST", "/do/pause", form, Content_Type=media, Origin=rest.api.url)
        assert answer.status == 303, answer
        (event,) = rest.get("/eventLogs")["event_logs"]
        assert (event["event"], event["owner"], event["address"]) == ("do_pause", "local", "127.0.0.1")


def test_address_that_a_stranger_claims_is_not_believed(opened: RestApi) -> None:
    opened.ask("PATCH", "/dags/d", {"is_paused": False}, status=200, **{"X-Forwarded-For": "203.0.113.9"})
    assert opened.get("/eventLogs?limit=1")["event_logs"][0]["address"] == "127.0.0.1"
