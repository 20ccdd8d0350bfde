"""Forms of the pages: each acts once, for who may, and says first what it would do."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.api import Answer, RunningApi, running_api
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.actions.tokens import create_token
from trainflow.metadata.queries import event_queries, run_queries
from trainflow.metadata.queries.run_queries import RUN
from trainflow.metadata.queries.token_queries import Role
from trainflow.settings.model import ApiSettings, Settings
from trainflow.workspace.workspace import Workspace

HTML = {"Accept": "text/html"}
FORM = {"Content_Type": "application/x-www-form-urlencoded", "Sec_Fetch_Site": "same-origin"}
RUN_PAGE = "/dags/d/runs/r1"


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(tmp_path) as plane:
        plane.add_dag("d", empty_task("a"), empty_task("b", "a"), params={"rows": {"type": "integer", "default": 1}})
        plane.add_run("d", "r1")
        yield plane


@pytest.fixture
def api(plane: ControlPlane) -> Iterator[RunningApi]:
    with running_api(plane) as api:
        yield api


def _send(api: RunningApi, name: str, **fields: str) -> Answer:
    return api.ask("POST", f"/do/{name}", urlencode(fields).encode(), **FORM, **HTML)


def _fields(page: bytes, action: str) -> dict[str, str]:
    """The hidden fields of a form of a page."""
    forms = re.findall(rb"<form.*?</form>", page, re.DOTALL)
    (form,) = [each for each in forms if f'action="{action}"'.encode() in each][:1]
    found = re.findall(rb'<input type="hidden" name="([^"]*)" value="([^"]*)">', form)
    return {name.decode(): value.decode() for name, value in found}


def _runs(plane: ControlPlane) -> int:
    with plane.database.reading() as connection:
        return len(connection.execute(RUN.select()).all())


def _events(plane: ControlPlane) -> list[str]:
    with plane.database.reading() as connection:
        return [row.event for row in event_queries.listing(connection, 100)]


def test_form_that_is_sent_twice_acts_once_and_leads_to_the_same_page(api: RunningApi, plane: ControlPlane) -> None:
    fields = _fields(api.ask("GET", "/dags/d", **HTML).body, "../do/trigger")
    first = _send(api, "trigger", **fields)
    again = _send(api, "trigger", **fields)
    assert (first.status, again.status) == (303, 303)
    assert first.headers["location"] == again.headers["location"]
    assert (_runs(plane), _events(plane)) == (2, ["do_trigger"])
    other = _send(api, "trigger", **fields, **{"param.rows": "7"})
    assert (other.status, other.headers["location"] != first.headers["location"], _runs(plane)) == (303, True, 3)


def test_page_that_is_loaded_again_has_another_key(api: RunningApi, plane: ControlPlane) -> None:
    keys = [_fields(api.ask("GET", "/dags/d", **HTML).body, "../do/trigger")["form_key"] for _ in range(2)]
    assert keys[0] != keys[1]
    for key in keys:
        assert _send(api, "trigger", dag="d", form_key=key).status == 303
    assert _runs(plane) == 3


def test_form_that_is_sent_meanwhile_waits_for_the_first(
    api: RunningApi, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, released, acted = threading.Event(), threading.Event(), []
    forms = api.server.web.pages.made().site.forms

    def slowly(*_: Any, **__: Any) -> Any:
        acted.append(1)
        begun.set()
        released.wait(30)
        return "done"

    def send() -> None:
        found.append(forms.done("ada", "x", {"form_key": "k", "a": "1"}, slowly))

    found: list[Any] = []
    both = [threading.Thread(target=send) for _ in range(2)]
    both[0].start()
    assert begun.wait(30)
    both[1].start()
    released.set()
    for each in both:
        each.join(30)
    assert (sorted(each.repeated for each in found), {each.target for each in found}) == ([False, True], {"done"})
    assert len(acted) == 1


def test_form_that_was_refused_may_be_sent_again(api: RunningApi, plane: ControlPlane) -> None:
    fields = {"dag": "d", "form_key": "k1", "run_id": "r1"}
    refused = [_send(api, "trigger", **fields).status for _ in range(2)]
    with plane.database.transaction() as connection:
        run_queries.delete(connection, run_queries.get(connection, "d", "r1").id)
    assert refused == [409, 409]
    assert _send(api, "trigger", **fields).status == 303


def test_confirmed_form_acts_once(api: RunningApi, plane: ControlPlane) -> None:
    page = _send(api, "cancel", dag="d", run="r1")
    fields = _fields(page.body, "cancel")
    assert fields["confirmed"] == "yes"
    assert [_send(api, "cancel", **fields).status for _ in range(2)] == [303, 303]
    assert _events(plane) == ["do_cancel"]
    # without a key the same is asked anew, and is no longer possible
    assert _send(api, "cancel", dag="d", run="r1", confirmed="yes").status == 409


def test_key_that_no_page_has_is_refused(api: RunningApi) -> None:
    assert _send(api, "trigger", dag="d", form_key="x" * 200).status == 400


def test_task_is_marked_after_a_look_at_what_that_does(api: RunningApi, plane: ControlPlane) -> None:
    (work,) = plane.tick()
    plane.claim(work)
    page = api.ask("GET", f"{RUN_PAGE}/tasks/a", **HTML).body
    # one at work may be marked as failed only
    assert (b"Mark as failed" in page, b"Mark as success" in page) == (True, False)
    assert _send(api, "mark", dag="d", run="r1", task="a", state="success").status == 409
    planned = _send(api, "mark", dag="d", run="r1", task="a", state="failed")
    assert b"told to stop" in planned.body
    assert b"trainflow tasks mark d r1 a --failed" in planned.body
    assert plane.task(1, "a").state == "running"
    done = _send(api, "mark", **_fields(planned.body, "mark"), reason="it hangs")
    assert (done.status, done.headers["location"]) == (303, "../dags/d/runs/r1/tasks/a")
    assert (plane.task(1, "a").state, plane.task(1, "a").note) == ("failed", "it hangs")
    plane.scheduler.sweep()
    plane.tick()
    planned = _send(api, "mark", dag="d", run="r1", task="a", state="success")
    assert b"these run again: b" in planned.body
    assert _send(api, "mark", **_fields(planned.body, "mark")).status == 303
    assert (plane.task(1, "a").state, plane.task(1, "a").note) == ("success", "marked by local")


def test_mark_is_asked_about_by_rest_without_being_done(api: RunningApi, plane: ControlPlane) -> None:
    plane.tick()
    path, json = "/api/v1/dags/d/dagRuns/r1/taskInstances/a", {"Content_Type": "application/json"}
    answer = api.ask("PATCH", f"{path}/dry_run", b'{"new_state": "failed"}', **json)
    assert [each["task_id"] for each in answer.body["task_instances"]] == ["a"]
    assert (plane.task(1, "a").state, _events(plane)) == ("queued", [])
    assert api.ask("PATCH", path, b'{"new_state": "failed"}', **json).status == 200
    assert plane.task(1, "a").state == "failed"


def test_rendered_fields_of_an_attempt_are_kept_and_shown(api: RunningApi, plane: ControlPlane) -> None:
    (work,) = plane.tick()
    plane.play(work, rendered_fields={"command": ["echo", "<2024-01-01>"], "rows": 3})
    page = api.ask("GET", f"{RUN_PAGE}/tasks/a", **HTML).body
    assert b"Rendered fields" in page
    assert b"&lt;2024-01-01&gt;" in page
    path = "/api/v1/dags/d/dagRuns/r1/taskInstances"
    expected = {"command": ["echo", "<2024-01-01>"], "rows": 3}
    listed = {each["task_id"]: each["rendered_fields"] for each in api.ask("GET", path).body["task_instances"]}
    assert listed == {"a": expected, "b": {}}
    assert api.ask("GET", f"{path}/a").body["rendered_fields"] == expected
    assert api.ask("GET", f"{path}/a/tries/1").body["rendered_fields"] == expected


@pytest.mark.parametrize(("role", "sees"), [(Role.VIEWER, False), (Role.OPERATOR, True), (Role.ADMIN, True)])
def test_forms_are_shown_to_who_may_send_them(plane: ControlPlane, role: Role, sees: bool) -> None:
    plane.tick()
    settings = Settings(api=ApiSettings(token="0123456789abcdef"))
    with running_api(plane, settings) as api, Workspace(plane.project, settings) as workspace:
        now = plane.clock.now()
        secret = create_token(workspace, str(role), role, who="test", now=now, lifetime=timedelta(days=1)).token
        for path in ("/dags/d", RUN_PAGE, f"{RUN_PAGE}/tasks/a"):
            # another one has just seen the same page
            for token, forms in (("0123456789abcdef", True), (secret, sees)):
                page = api.ask("GET", path, **HTML, Authorization=f"Bearer {token}")
                assert (page.status, b"<form" in page.body) == (200, forms), (path, token)
        answer = api.ask("POST", "/do/pause", b"dag=d&paused=yes", **FORM, Authorization=f"Bearer {secret}")
        assert answer.status == (303 if sees else 403)
