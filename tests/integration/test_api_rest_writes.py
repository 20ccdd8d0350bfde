"""What the REST API does: runs, tasks, pools, decisions about chains; once for each key, and noted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import TOKEN
from tests.support.control_plane import empty_task
from tests.support.rest import RestApi, rest_api
from trainflow.actions.dags import keep_in_database
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Promotion, Rewind
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.errors import DatabaseUnavailable
from trainflow.messages.execution_api import Heartbeat
from trainflow.messages.workload import DagSource
from trainflow.metadata.queries import dag_queries, event_queries, run_queries
from trainflow.storage.local import LocalStore
from trainflow.testing.processes import DEADLINE_SECONDS
from trainflow.workspace.pipelines import read_pipeline
from trainflow.workspace.workspace import Workspace

CHAIN = "/chains/flights/main/main"
_TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def rest(tmp_path: Path) -> Iterator[RestApi]:
    with rest_api(tmp_path) as served:
        yield served


def test_run_that_is_asked_for_twice_is_one_run(rest: RestApi) -> None:
    body = {"dag_run_id": "mine", "conf": {"x": 1}, "note": "by hand"}
    made = rest.post("/dags/d/dagRuns", body)
    assert (made["dag_run_id"], made["state"], made["triggered_by"]) == ("mine", "queued", "rest_api")
    assert rest.post("/dags/d/dagRuns", body) == made
    assert rest.post("/dags/d/dagRuns", {**body, "conf": {"x": 2}}, 409)["title"] == "DagRunAlreadyExists"
    assert rest.post("/dags/d/dagRuns", {**body, "dag_run_id": "r1"}, 409)["title"] == "DagRunAlreadyExists"
    assert len(rest.get("/dags/d/dagRuns")["dag_runs"]) == 3


@pytest.mark.parametrize(("given", "kept"), [(_TRACEPARENT, _TRACEPARENT), ("nothing of the kind", None)])
def test_triggered_run_knows_the_span_it_was_asked_for_in(rest: RestApi, given: str, kept: str | None) -> None:
    made = rest.ask("POST", "/dags/d/dagRuns", {"logical_date": None}, status=200, traceparent=given).body
    with rest.plane.database.reading() as connection:
        assert run_queries.get(connection, "d", made["dag_run_id"]).traceparent == kept


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"dag_run_id": ""}, 422),
        ({"dag_run_id": "a b"}, 400),
        ({"dag_run_id": "\x00"}, 400),
        ({"conf": []}, 422),
        ({"logical_date": "2026-01-01T00:00:00"}, 422),
        ({"partition_key": "2026"}, 422),
        ([], 422),
    ],
)
def test_run_that_cannot_be_is_refused(rest: RestApi, body: Any, status: int) -> None:
    answer = rest.post("/dags/d/dagRuns", body, status)
    assert answer["detail"]
    assert len(rest.get("/dags/d/dagRuns")["dag_runs"]) == 2


def test_body_that_is_no_json_is_refused(rest: RestApi) -> None:
    def status(content: bytes, media: str, **headers: str) -> int:
        return rest.api.ask("POST", "/api/v1/dags/d/dagRuns", content, Content_Type=media, **headers).status

    assert status(b"{", "application/json") == 422
    assert status(b"a=1", "application/x-www-form-urlencoded") == 415
    assert status(b"", "application/json", Content_Length="1100000") == 413


def test_same_key_does_it_once_and_another_request_with_it_is_refused(rest: RestApi) -> None:
    first = rest.ask("POST", "/dags/d/dagRuns", {"conf": {}}, status=200, Idempotency_Key="k1")
    again = rest.ask("POST", "/dags/d/dagRuns", {"conf": {}}, status=200, Idempotency_Key="k1")
    assert again.body == first.body
    assert len(rest.get("/dags/d/dagRuns")["dag_runs"]) == 3
    other = rest.ask("POST", "/dags/d/dagRuns", {"conf": {"x": 1}}, Idempotency_Key="k1")
    assert (other.status, other.body["title"]) == (422, "KeyUsed")
    refused = [rest.ask("POST", "/dags/none/dagRuns", {}, Idempotency_Key="k2") for _ in range(2)]
    assert [(each.status, each.body["title"]) for each in refused] == [(404, "DagNotFound")] * 2
    assert rest.ask("POST", "/dags/d/dagRuns", {}, Idempotency_Key="k" * 201).status == 422


@pytest.mark.parametrize(("path", "runs"), [("/dags/d/dagRuns", 3), ("/dags/none/dagRuns", 2)])
def test_key_of_what_was_done_is_not_given_to_it_again_when_it_cannot_be_noted(
    rest: RestApi, path: str, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise DatabaseUnavailable("the disk of the metadata database is full")

    with monkeypatch.context() as patch:
        patch.setattr(event_queries, "add", away)
        assert rest.ask("POST", path, {}, Idempotency_Key="k1").status == 503
    again = rest.ask("POST", path, {}, Idempotency_Key="k1")
    assert (again.status, again.body["title"]) == (409, "StillAtWork")
    assert len(rest.get("/dags/d/dagRuns")["dag_runs"]) == runs


def test_run_is_cleared_cancelled_and_noted(rest: RestApi) -> None:
    would = rest.post("/dags/d/dagRuns/r1/clear", {"only_failed": True})
    assert (would["task_ids"], would["dry_run"], would["state"]) == (["b"], True, "failed")
    assert rest.get("/dags/d/dagRuns/r1")["state"] == "failed"
    assert rest.post("/dags/d/dagRuns/r1/clear", {"dry_run": False})["task_ids"] == ["a", "b"]
    assert rest.get("/dags/d/dagRuns/r1")["state"] == "queued"
    assert rest.post("/dags/d/dagRuns/r2/cancel")["failing"] == ["a"]
    done = rest.post("/dags/d/dagRuns/r2/cancel", {"dry_run": False, "note": "enough"})
    assert (done["dag_run"]["state"], done["dag_run"]["note"]) == ("failed", "enough")
    assert rest.post("/dags/d/dagRuns/r2/cancel", {}, 409)["title"] == "LostTransition"
    assert rest.patch("/dags/d/dagRuns/r2", {"note": None})["note"] is None
    assert rest.patch("/dags/d/dagRuns/r2", {"state": "success"}, 409)["title"] == "NeverMarked"
    assert rest.patch("/dags/d/dagRuns/r2", {"state": "queued"})["state"] == "queued"


def test_run_that_has_ended_is_deleted_and_no_other(rest: RestApi) -> None:
    assert rest.ask("DELETE", "/dags/d/dagRuns/r2").status == 409
    assert rest.ask("DELETE", "/dags/d/dagRuns/r1").status == 204
    assert rest.ask("GET", "/dags/d/dagRuns/r1").status == 404


def test_tasks_are_cleared_as_airflows_clients_ask_for_it(rest: RestApi) -> None:
    asked = {"dag_run_id": "r1", "only_failed": False, "task_ids": [["a", -1]], "include_downstream": True}
    assert [each["task_id"] for each in rest.post("/dags/d/clearTaskInstances", asked)["task_instances"]] == ["a", "b"]
    assert rest.get("/dags/d/dagRuns/r1/taskInstances/a")["state"] == "success"
    rest.post("/dags/d/clearTaskInstances", {**asked, "dry_run": False, "include_downstream": False})
    states = [each["state"] for each in rest.get("/dags/d/dagRuns/r1/taskInstances")["task_instances"]]
    assert states == [None, "failed"]
    assert rest.post("/dags/d/clearTaskInstances", {**asked, "include_upstream": True}, 422)["title"] == "NotUnderstood"


def test_task_is_marked_and_what_waits_for_it_goes_on(rest: RestApi) -> None:
    (marked,) = rest.patch("/dags/d/dagRuns/r1/taskInstances/b", {"new_state": "success"})["task_instances"]
    assert (marked["state"], marked["problem"]) == ("success", None)
    assert rest.get("/dags/d/dagRuns/r1")["state"] == "queued"
    rest.plane.scheduler.sweep()
    rest.plane.tick()
    assert rest.get("/dags/d/dagRuns/r1")["state"] == "success"
    busy = rest.patch("/dags/d/dagRuns/r2/taskInstances/a", {"new_state": "success"}, 409)
    assert "it can be marked as failed, or waited for" in busy["detail"]
    rest.patch("/dags/d/dagRuns/r2/taskInstances/a", {"new_state": "failed", "note": "hangs"})
    failed = rest.get("/dags/d/dagRuns/r2/taskInstances/a")
    assert (failed["state"], failed["problem"]) == ("failed", "marked as failed by hand: hangs")


def test_task_that_works_on_a_chain_is_never_marked_as_done(rest: RestApi) -> None:
    rest.plane.add_run("flights", "f1")
    rest.plane.tick()
    answer = rest.patch("/dags/flights/dagRuns/f1/taskInstances/train", {"new_state": "success"}, 400)
    assert "what its ledger does not have was not trained" in answer["detail"]


def test_pools_are_made_changed_and_deleted(rest: RestApi) -> None:
    assert rest.post("/pools", {"name": "gpu", "slots": 2}, 201)["open_slots"] == 2
    assert rest.post("/pools", {"name": "gpu", "slots": 2}, 409)["title"] == "PoolExists"
    assert rest.patch("/pools/gpu", {"slots": 3})["slots"] == 3
    assert rest.ask("DELETE", "/pools/gpu").status == 204
    assert rest.ask("DELETE", "/pools/default_pool").status == 400


def test_dag_is_paused_and_the_event_log_says_who_did_it(rest: RestApi) -> None:
    assert rest.patch("/dags/d", {"is_paused": True})["is_paused"] is True
    (event,) = rest.get("/eventLogs?dag_id=d")["event_logs"]
    assert (event["event"], event["owner"], event["dag_id"]) == ("patch_dag", "local", "d")
    assert '"is_paused":true' in event["extra"]
    rest.post("/dags/d/dagRuns/r2/cancel")  # a dry run is no event
    assert len(rest.get("/eventLogs")["event_logs"]) == 1


def ledger_of(rest: RestApi, branch: str = "main") -> Ledger:
    return Ledger(LocalStore(rest.root / "checkpoints"), ChainKey("flights", "main", branch))


def test_chain_is_rewound_only_when_that_is_said_and_the_ledger_says_who_did_it(rest: RestApi) -> None:
    would = rest.post(f"{CHAIN}/rewind", {"to": "1", "reason": "a broken feed"})
    assert (would["dry_run"], would["rewound"][0]["checkpoints"]) == (True, [2, 3])
    assert ledger_of(rest).state().head_sequence == 3
    done = rest.post(f"{CHAIN}/rewind", {"to": "1", "reason": "a broken feed", "dry_run": False})
    assert done["rewound"][0]["to"] == 1
    entry = list(ledger_of(rest).entries())[-1]
    assert isinstance(entry, Rewind)
    assert (entry.by.person, entry.by.hostname, entry.reason) == ("local", "127.0.0.1", "a broken feed")
    assert rest.get(f"{CHAIN}/partitions")["ranges"] == [[0, 4, "trained"], [4, 5, "undone"]]
    assert rest.post(f"{CHAIN}/rewind", {}, 400)["title"] == "InputError"
    assert rest.post(f"{CHAIN}/rewind", {"to": "99"}, 404)["title"] == "NotFound"


def test_checkpoint_is_promoted_and_read_by_its_alias(rest: RestApi) -> None:
    rest.post(f"{CHAIN}/promote", {"checkpoint": "2", "alias": "champion", "dry_run": False})
    assert isinstance(list(ledger_of(rest).entries())[-1], Promotion)
    assert rest.get(f"{CHAIN}/checkpoints/@champion")["checkpoint"]["number"] == 2
    marks = rest.get(f"{CHAIN}/partitions")["marks"]
    assert [(each["what"], each["name"], each["place"]) for each in marks] == [
        ("promoted", "champion", 6),
        ("head", "", 8),
    ]


def test_branch_is_forked_and_shown_before_it_is_trained(rest: RestApi) -> None:
    body = {"new_branch": "wide", "from": "2", "overrides": {"split.partitions": "2"}}
    assert rest.post(f"{CHAIN}/fork", body)["dry_run"] is True
    done = rest.post(f"{CHAIN}/fork", {**body, "dry_run": False})
    assert done["forked"][0]["origin"]["number"] == 2
    found = rest.get("/chains/flights/main/wide/partitions")
    assert found["ranges"] == [[0, 7, "inherited"]]
    assert rest.get("/chains/flights/main/wide")["branch"] == "wide"


def test_start_of_branch_begins_its_own_dag_with_what_it_was_forked_with(rest: RestApi) -> None:
    rest.post(f"{CHAIN}/fork", {"new_branch": "wide", "overrides": {"split.partitions": "2"}, "dry_run": False})
    rest.plane.clock.advance(timedelta(seconds=1))
    (begun,) = rest.post("/chains/flights/main/wide/start")["runs"]
    assert rest.get(f"/dags/flights.main.wide/dagRuns/{begun}")["state"] == "queued"
    assert [each["dag_run_id"] for each in rest.get("/dags/~/dagRuns")["dag_runs"] if each["dag_id"] == "flights"] == []
    with rest.plane.database.reading() as connection:
        assert dag_queries.overrides_of(connection, "pipelines/flights.yaml") == {
            "branch": "wide", "split.partitions": "2",
        }  # fmt: skip
    assert rest.post("/chains/flights/main/wide/start")["runs"] == [begun]
    # and that of the file itself its own, whatever was begun last
    rest.plane.clock.advance(timedelta(seconds=1))
    (own,) = rest.post(f"{CHAIN}/start")["runs"]
    assert rest.get(f"/dags/flights/dagRuns/{own}")["state"] == "queued"


def test_prune_repair_resume_start_and_stop_say_what_they_would_do(rest: RestApi) -> None:
    assert [each["number"] for each in rest.post(f"{CHAIN}/prune")["pruned"]] == [1]
    assert rest.post(f"{CHAIN}/repair")["plan"]["holes"] == 1
    assert "there is nothing to decide about" in rest.post(f"{CHAIN}/resume", status=400)["detail"]
    assert rest.post("/engine/stop") == {"pid": None, "dry_run": True}
    started = rest.post(f"{CHAIN}/start")
    assert len(started["runs"]) == 1
    assert started["waits_for"].startswith("no engine is alive")
    assert rest.post(f"{CHAIN}/start")["runs"] == started["runs"]


def test_what_is_decided_goes_by_what_the_chain_is_trained_with(rest: RestApi) -> None:
    """`start --set` of a person: another retention, say."""
    overrides = {"retention.keep_latest": "3", "split.partitions": "4"}
    path, plane = rest.plane.project.root / "pipelines/flights.yaml", rest.plane
    workspace = Workspace(plane.project, plane.settings, plane.database)
    parsed = read_pipeline(workspace, path, overrides).parsed
    assert parsed is not None
    keep_in_database(workspace, DagSource("pipelines/flights.yaml", overrides), parsed, plane.clock.now())
    assert rest.post(f"{CHAIN}/prune")["pruned"] == []
    rest.post(f"{CHAIN}/start")
    with plane.database.reading() as connection:
        assert dag_queries.overrides_of(connection, "pipelines/flights.yaml") == overrides


def test_heartbeats_are_answered_while_every_thread_for_people_is_busy(rest: RestApi, monkeypatch: Any) -> None:
    released, asked = threading.Event(), threading.Barrier(rest.plane.settings.api.rest_threads + 1)

    def hang(*_: Any) -> Any:
        asked.wait(DEADLINE_SECONDS)
        released.wait(DEADLINE_SECONDS)
        return []

    monkeypatch.setattr("trainflow.api.rest.server.parts", hang)
    rest.plane.add_dag("e", empty_task("a"))
    rest.plane.add_run("e", "e1")
    (work,) = rest.plane.tick()
    assert rest.api.start(work, rest.api.issue(work)).status == 200
    clients = [threading.Thread(target=lambda: rest.ask("GET", "/jobs")) for _ in range(40)]
    for client in clients:
        client.start()
    asked.wait(DEADLINE_SECONDS)
    answers = [rest.api.post(Heartbeat(work.key), TOKEN).status for _ in range(20)]
    waiting = sum(client.is_alive() for client in clients)
    monkeypatch.undo()
    monkeypatch.setattr("trainflow.api.rest.server.parts", lambda *_: [])
    released.set()
    for client in clients:
        client.join(DEADLINE_SECONDS)
    assert (answers, waiting) == ([200] * 20, 40)
