"""The pages over HTTP: who may see them, what is refused, and what every answer says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode

import pytest
from sqlalchemy import select, update

from tests.support.api import RunningApi, running_api
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.metadata.models import AttemptTable
from trainflow.metadata.queries import run_queries
from trainflow.settings.model import ApiSettings, Settings
from trainflow.states import DagRunState

SECRET = "0123456789abcdef"
HTML = {"Accept": "text/html"}
FORM = {"Content_Type": "application/x-www-form-urlencoded", "Sec_Fetch_Site": "same-origin"}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(tmp_path) as plane:
        plane.add_dag("d", empty_task("a"), params={"rows": {"type": "integer", "default": 1}})
        plane.add_run("d", "manual__2026-01-01T00:00:00+00:00")
        yield plane


@pytest.fixture
def api(plane: ControlPlane) -> Iterator[RunningApi]:
    with running_api(plane) as api:
        yield api


def _post(api: RunningApi, path: str, **fields: str) -> tuple[int, bytes]:
    answer = api.ask("POST", path, urlencode(fields).encode(), **FORM, **HTML)
    return answer.status, answer.body or b""


RUN = f"/dags/d/runs/{quote('manual__2026-01-01T00:00:00+00:00', safe='')}"


@pytest.mark.parametrize("path", ["/", "/runs", "/dags", "/dags/d", RUN, f"{RUN}/tasks/a", "/waits"])
def test_page_is_answered_and_forbids_what_is_not_of_this_server(
    api: RunningApi, plane: ControlPlane, path: str
) -> None:
    plane.tick()
    answer = api.ask("GET", path, **HTML)
    assert answer.status == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert b"<script>" not in answer.body
    assert b" style=" not in answer.body
    assert b"http://" not in answer.body.replace(b"http://www.w3.org", b"")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/chains/none/main/main", 404),
        ("/chains/..%2f..%2fetc/main/main", 404),
        ("/dags/none", 404),
        ("/dags/d/runs/none", 404),
        (f"{RUN}/tasks/none", 404),
        ("/static/..%2f__init__.py", 404),
        ("/static/nothing.js", 404),
    ],
)
def test_what_is_not_there_is_said(api: RunningApi, path: str, status: int) -> None:
    assert api.ask("GET", path, **HTML).status == status


def test_form_of_another_site_is_refused(api: RunningApi) -> None:
    form = {**FORM, "Sec_Fetch_Site": "cross-site"}
    assert api.ask("POST", "/do/pause", b"dag=d&paused=yes", **form).status == 403
    elsewhere = {"Content_Type": FORM["Content_Type"], "Origin": "https://elsewhere.example"}
    assert api.ask("POST", "/do/pause", b"dag=d&paused=yes", **elsewhere).status == 403


def test_forms_plan_first_and_act_when_confirmed(api: RunningApi, plane: ControlPlane) -> None:
    fields = {"dag": "d", "run": "manual__2026-01-01T00:00:00+00:00"}
    status, body = _post(api, "/do/cancel", **fields)
    assert (status, b"Nothing has been done yet" in body) == (200, True)
    assert b"trainflow runs cancel d manual__2026-01-01T00:00:00+00:00" in body
    assert _run_state(plane, fields["run"]) != DagRunState.FAILED
    assert _post(api, "/do/cancel", **fields, confirmed="yes")[0] == 303
    assert _run_state(plane, fields["run"]) == DagRunState.FAILED


def _run_state(plane: ControlPlane, run_id: str) -> str:
    with plane.database.reading() as connection:
        return str(run_queries.get(connection, "d", run_id).state)


def test_wrong_input_of_a_form_is_said(api: RunningApi) -> None:
    status, body = _post(api, "/do/trigger", dag="d", **{"param.rows": "many"})
    assert (status, b"param &#39;rows&#39;" in body) == (400, True)
    assert _post(api, "/do/trigger", dag="none")[0] == 404
    assert _post(api, "/do/trigger")[0] == 400
    assert api.ask("POST", "/do/pause", b"x" * 300_000, **FORM).status == 413


def test_file_that_has_not_changed_is_not_sent_again(api: RunningApi) -> None:
    first = api.ask("GET", "/static/pages.css")
    again = api.ask("GET", "/static/pages.css", If_None_Match=first.headers["etag"])
    assert (first.status, again.status, again.body) == (200, 304, None)


def test_log_outside_of_the_home_is_not_shown(api: RunningApi, plane: ControlPlane) -> None:
    (work,) = plane.tick()
    plane.play(work)
    with plane.database.transaction() as connection:
        connection.execute(update(AttemptTable.table).values(log_name="../../../../../../../../etc/passwd"))
    assert api.ask("GET", f"{RUN}/tasks/a", **HTML).status == 404
    assert api.ask("GET", f"{RUN}/tasks/a/log").status == 404


def test_part_of_a_log_is_sent_and_of_one_that_has_ended_only_of_the_same(api: RunningApi, plane: ControlPlane) -> None:
    (work,) = plane.tick()
    with plane.database.reading() as connection:
        (log_name,) = connection.execute(select(AttemptTable.table.c.log_name)).scalars()
    log = plane.project.home.logs / log_name
    log.parent.mkdir(parents=True, exist_ok=True)
    log.with_name(f"{log.name}.1").write_bytes(b"first\n")
    log.write_bytes(b"second\n")
    running = api.ask("GET", f"{RUN}/tasks/a/log")
    assert (running.body, running.headers["accept-ranges"], "etag" in running.headers) == (
        b"first\nsecond\n",
        "bytes",
        False,
    )
    part = api.ask("GET", f"{RUN}/tasks/a/log", Range="bytes=4-8")
    assert (part.status, part.body, part.headers["content-range"]) == (206, b"t\nsec", "bytes 4-8/13")
    plane.play(work)
    tag = api.ask("GET", f"{RUN}/tasks/a/log").headers["etag"]
    rest = api.ask("GET", f"{RUN}/tasks/a/log", Range="bytes=6-", If_Range=tag)
    assert (rest.status, rest.body) == (206, b"second\n")
    log.write_bytes(b"second\nthird\n")
    assert api.ask("GET", f"{RUN}/tasks/a/log", Range="bytes=6-", If_Range=tag).body == b"first\nsecond\nthird\n"
    assert api.ask("GET", f"{RUN}/tasks/a/log", Range="bytes=99-").status == 416


class TestWithToken:
    @pytest.fixture
    def api(self, plane: ControlPlane) -> Iterator[RunningApi]:
        with running_api(plane, Settings(api=ApiSettings(token=SECRET))) as api:
            yield api

    def test_browser_is_sent_to_where_a_token_is_given_and_back(self, api: RunningApi) -> None:
        sent = api.ask("GET", "/runs?state=failed", **HTML)
        assert (sent.status, sent.headers["location"]) == (303, "/login?next=%2Fruns%3Fstate%3Dfailed")
        assert api.ask("GET", sent.headers["location"], **HTML).status == 200
        assert api.ask("GET", "/static/pages.css").status == 200
        body = urlencode({"token": SECRET, "next": "/runs?state=failed"}).encode()
        given = api.ask("POST", "/login", body, **FORM)
        assert (given.status, given.headers["location"]) == (303, "/runs?state=failed")
        cookie = given.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict"} <= {part.strip() for part in cookie.split(";")}
        name = cookie.partition(";")[0]
        assert api.ask("GET", "/runs", **HTML, Cookie=name).status == 200
        wrong = api.ask("GET", "/runs", **HTML, Cookie="trainflow_token=wrong")
        assert "wrong=yes" in wrong.headers["location"]

    def test_page_where_a_token_is_given_shows_nothing_that_its_address_says(self, api: RunningApi) -> None:
        asked = {"base": "https://elsewhere.example/", "title": "Elsewhere", "path": "/x", "project": "Elsewhere"}
        page = api.ask("GET", f"/login?{urlencode(asked)}", **HTML).body.decode()
        assert "elsewhere" not in page.lower()
        assert "data-silent" in page

    def test_way_back_to_a_page_of_another_alphabet_is_an_address(self, api: RunningApi) -> None:
        sent = api.ask("GET", f"/dags/{quote('模型')}?state=failed", **HTML)
        [target] = parse_qs(sent.headers["location"].partition("?")[2])["next"]
        given = api.ask("POST", "/login", urlencode({"token": SECRET, "next": target}).encode(), **FORM)
        assert given.headers["location"] == f"/dags/{quote('模型')}?state=failed"

    @pytest.mark.parametrize(
        "target",
        [
            "https://elsewhere.example",
            "//elsewhere.example",
            "/\\elsewhere.example",
            "/\t/elsewhere.example",
            "/\n/elsewhere.example",
            "/模型",
        ],
    )
    def test_way_back_leads_to_no_other_site(self, api: RunningApi, target: str) -> None:
        given = api.ask("POST", "/login", urlencode({"token": SECRET, "next": target}).encode(), **FORM)
        assert given.headers["location"] == "./"

    @pytest.mark.parametrize("path", ["/", "/events", "/dags/d", f"{RUN}/tasks/a/log"])
    def test_program_without_token_is_refused(self, api: RunningApi, path: str) -> None:
        assert api.ask("GET", path).status == 401


def test_pages_below_a_prefix_lead_nowhere_else(plane: ControlPlane) -> None:
    with running_api(plane, Settings(api=ApiSettings(root_path="/flow"))) as api:
        for path in (RUN, f"/flow{RUN}"):  # a proxy takes the prefix away, or leaves it
            body = api.ask("GET", path, **HTML).body.decode()
            assert 'href="../../../static/pages.css' in body
            assert 'href="/' not in body
            assert 'action="/' not in body
