"""What the REST API shows: DAGs, runs, tasks, logs, chains, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import event, insert, select, update

from tests.support.rest import RestApi, rest_api
from trainflow.insight.runs.pages import cursor_of
from trainflow.metadata.models import AttemptTable, DagRunTable, TaskInstanceTable
from trainflow.metadata.queries.page_queries import PagePlace


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestApi]:
    """A server that is only asked."""
    with rest_api(tmp_path_factory.mktemp("rest")) as served:
        yield served


def test_dags_are_listed_with_what_airflows_client_needs(rest: RestApi) -> None:
    found = rest.get("/dags")
    assert [dag["dag_id"] for dag in found["dags"]] == ["d", "flights"]
    assert found["dags"][0]["tags"] == [{"name": "x", "dag_id": "d", "dag_display_name": "d"}]
    assert [dag["dag_id"] for dag in rest.get("/dags?tags=x&dag_id_pattern=%25d%25")["dags"]] == ["d"]
    details = rest.get("/dags/d/details")
    assert (details["latest_dag_version"]["version_number"], details["active_runs_count"]) == (1, 1)
    assert [task["downstream_task_ids"] for task in rest.get("/dags/d/tasks")["tasks"]] == [["b"], []]
    assert rest.get("/dags/d/tasks/b")["upstream_task_ids"] == ["a"]


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/dags/nothing", "DagNotFound"),
        ("/dags/d/tasks/nothing", "NotFound"),
        ("/dags/nothing/dagRuns", "DagNotFound"),
        ("/dags/d/dagRuns/nothing", "DagRunNotFound"),
        ("/dags/d/dagRuns/r", "DagRunNotFound"),
        ("/dags/d/dagRuns/r1/taskInstances/c", "NotFound"),
        ("/dags/d/dagRuns/r1/taskInstances/a/tries/9", "NotFound"),
        ("/dags/d/dagRuns/r1/taskInstances/a/logs/9", "NotFound"),
        ("/dags/d/dagRuns/r1/taskInstances/a/xcomEntries/none", "NotFound"),
        ("/pools/none", "NotFound"),
        ("/chains/none/main/main", "NotFound"),
        ("/chains/flights/main/none", "NotFound"),
        ("/chains/flights/main/main/checkpoints/99", "NotFound"),
        ("/chains/flights/main/main/checkpoints/@champion", "NotFound"),
        ("/chains/flights/main/main/checkpoints/head/files/none.bin", "NotFound"),
        ("/nothing", "NotFound"),
    ],
)
def test_what_is_not_there_is_a_problem_that_says_what_to_do(rest: RestApi, path: str, title: str) -> None:
    answer = rest.ask("GET", path, status=404)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.body["title"], answer.body["status"]) == (title, 404)
    assert answer.body["detail"]
    assert answer.body["what_to_do"]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "nothing=1", "limit=1&limit=2", "state=finished", "order_by=conf"],
)
def test_query_that_is_not_understood_is_refused(rest: RestApi, query: str) -> None:
    assert rest.get(f"/dags/d/dagRuns?{query}", 422)["title"] == "NotUnderstood"


def test_dag_runs_are_listed_by_state_and_of_all_dags(rest: RestApi) -> None:
    found = rest.get("/dags/d/dagRuns")
    assert [(run["dag_run_id"], run["state"]) for run in found["dag_runs"]] == [("r1", "failed"), ("r2", "running")]
    assert (found["total_entries"], found["next_cursor"]) == (2, None)
    assert [run["dag_run_id"] for run in rest.get("/dags/~/dagRuns?order_by=-id")["dag_runs"]] == ["r2", "r1"]
    assert [run["dag_run_id"] for run in rest.get("/dags/d/dagRuns?state=failed")["dag_runs"]] == ["r1"]
    assert rest.get("/dags/d/dagRuns?run_after_gt=2030-01-01T00:00:00Z")["dag_runs"] == []


def test_dag_runs_read_with_cursors_are_each_seen_once_in_both_directions(rest: RestApi) -> None:
    first = rest.get("/dags/d/dagRuns?limit=1&cursor=")
    second = rest.get(f"/dags/d/dagRuns?limit=1&cursor={first['next_cursor']}")
    assert [page["dag_runs"][0]["dag_run_id"] for page in (first, second)] == ["r1", "r2"]
    assert (first["previous_cursor"], second["next_cursor"]) == (None, None)
    back = rest.get(f"/dags/d/dagRuns?limit=1&cursor={second['previous_cursor']}")
    assert back["dag_runs"] == first["dag_runs"]
    assert rest.get("/dags/d/dagRuns?cursor=nonsense", 400)["title"] == "InputError"


def test_task_instances_are_listed_of_a_run_and_of_all(rest: RestApi) -> None:
    found = rest.get("/dags/d/dagRuns/r1/taskInstances")["task_instances"]
    assert [(task["task_id"], task["state"], task["try_number"]) for task in found] == [
        ("a", "success", 1),
        ("b", "failed", 1),
    ]
    assert found[1]["problem"] == "it failed"
    every = rest.get("/dags/~/dagRuns/~/taskInstances")["task_instances"]
    assert [(task["dag_run_id"], task["task_id"]) for task in every] == [
        *[("r1", "a"), ("r1", "b")],
        *[("r2", "a"), ("r2", "b")],
    ]
    page = rest.get("/dags/d/dagRuns/~/taskInstances?limit=3")
    rest_of_it = rest.get(f"/dags/d/dagRuns/~/taskInstances?cursor={page['next_cursor']}")
    assert [task["id"] for task in page["task_instances"] + rest_of_it["task_instances"]] == [t["id"] for t in every]
    assert [task["task_id"] for task in rest.get("/dags/~/dagRuns/~/taskInstances?state=none")["task_instances"]] == [
        "b"
    ]


def test_dependencies_say_why_a_task_does_not_run(rest: RestApi) -> None:
    (found,) = rest.get("/dags/d/dagRuns/r2/taskInstances/b/dependencies")["dependencies"]
    assert found["reason"].startswith("waits for a")
    assert rest.get("/dags/d/dagRuns/r1/taskInstances/a/dependencies")["dependencies"] == []


def test_tries_are_the_attempts_of_a_task(rest: RestApi) -> None:
    found = rest.get("/dags/d/dagRuns/r1/taskInstances/b/tries")
    assert [(each["try_number"], each["outcome"]) for each in found["task_instances"]] == [(1, "failed")]
    assert rest.get("/dags/d/dagRuns/r1/taskInstances/b/tries/1") == found["task_instances"][0]


def test_tries_say_of_each_where_it_ran_and_whether_it_was_refused(tmp_path: Path) -> None:
    with rest_api(tmp_path) as rest:
        now = rest.plane.clock.now()
        with rest.plane.database.transaction() as connection:
            asked = select(AttemptTable.table).order_by(AttemptTable.table.c.queued_at.desc()).limit(1)
            newest = connection.execute(asked).one()
            earlier = {**newest._asdict(), "attempt_id": "0earlier", "queued_at": now - timedelta(days=1)}
            lost = {"outcome": "lost", "hostname": "gpu7", "refused_at": now}
            connection.execute(insert(AttemptTable.table).values({**earlier, **lost}))
            task = connection.execute(
                select(TaskInstanceTable.table.c.task_id, DagRunTable.table.c.run_id)
                .join(DagRunTable.table, DagRunTable.table.c.id == TaskInstanceTable.table.c.dag_run_id)
                .where(TaskInstanceTable.table.c.id == newest.task_instance_id)
            ).one()
        first, last = rest.get(f"/dags/d/dagRuns/{task.run_id}/taskInstances/{task.task_id}/tries")["task_instances"]
        assert (first["outcome"], first["hostname"], first["pid"]) == ("lost", "gpu7", None)
        assert first["refused_at"] is not None
        assert (last["hostname"], last["refused_at"]) == (newest.hostname, None)


def test_log_is_read_part_by_part(rest: RestApi) -> None:
    found = rest.get("/dags/d/dagRuns/r2/taskInstances/a/logs/1")
    assert found["content"] == [{"event": "first line"}, {"event": "second line"}]
    again = rest.get(f"/dags/d/dagRuns/r2/taskInstances/a/logs/-1?token={found['continuation_token']}")
    assert again["content"] == []
    lines = rest.ask(
        "GET", "/dags/d/dagRuns/r2/taskInstances/a/logs/1?follow=false", status=200, Accept="application/x-ndjson"
    ).body
    assert [msgspec.json.decode(line)["event"] for line in lines.splitlines()] == ["first line", "second line"]


def test_xcoms_are_listed_without_values_and_shown_without_secrets(rest: RestApi) -> None:
    (listed,) = rest.get("/dags/d/dagRuns/r1/taskInstances/a/xcomEntries")["xcom_entries"]
    assert (listed["key"], "value" in listed) == ("return_value", False)
    value = rest.get("/dags/d/dagRuns/r1/taskInstances/a/xcomEntries/return_value")["value"]
    assert value == {"rows": 3, "password": "***"}


def test_pools_jobs_and_health_are_shown(rest: RestApi) -> None:
    (pool,) = rest.get("/pools")["pools"]
    assert (pool["name"], pool["running_slots"], pool["open_slots"]) == ("default_pool", 1, 127)
    assert {job["job_type"] for job in rest.get("/jobs?is_alive=true")["jobs"]} == {"engine", "api_server"}
    assert rest.get("/monitor/health")["scheduler"]["status"] == "healthy"
    assert rest.get("/importErrors") == {"import_errors": [], "total_entries": 0}


def test_answer_that_did_not_change_is_not_sent_again(rest: RestApi) -> None:
    etag = rest.ask("GET", "/chains/flights/main/main/partitions").headers["etag"]
    again = rest.ask("GET", "/chains/flights/main/main/partitions", If_None_Match=etag)
    assert (again.status, again.body) == (304, None)


CHAIN = "/chains/flights/main/main"


def test_chain_is_shown_with_why(rest: RestApi) -> None:
    (found,) = rest.get("/chains")["chains"]
    assert (found["head_number"], found["holes"], found["watermark"]) == (3, 1, "2013-01-10T00:00:00Z")
    assert found["why"].startswith("flights: ")
    assert rest.get(CHAIN)["why_kind"] == found["why_kind"]


def test_partitions_of_a_chain_are_ranges(rest: RestApi) -> None:
    found = rest.get(f"{CHAIN}/partitions?first=4&end=100")
    assert found["ranges"] == [[0, 5, "trained"], [5, 1, "hole"], [6, 3, "trained"]]
    assert [border[:2] for border in found["borders"]] == [[6, 2], [8, 3]]
    assert (found["entries"], found["first"], found["length"]) == (3, "2013-01-01T00:00:00Z", "1d")


def test_entries_are_read_from_a_number_on(rest: RestApi) -> None:
    first = rest.get(f"{CHAIN}/entries?limit=2")
    assert [(each["sequence"], each["kind"]) for each in first["entries"]] == [(1, "checkpoint"), (2, "checkpoint")]
    assert (first["newest"], first["next_after"]) == (3, 2)
    assert [each["sequence"] for each in rest.get(f"{CHAIN}/entries?after=2")["entries"]] == [3]
    assert rest.get(f"{CHAIN}/entries?after=3")["entries"] == []


def test_checkpoints_are_shown_with_lineage_and_files(rest: RestApi) -> None:
    found = rest.get(f"{CHAIN}/checkpoints?limit=2")
    assert [each["number"] for each in found["checkpoints"]] == [3, 2]
    assert [each["number"] for each in rest.get(f"{CHAIN}/checkpoints?before=2")["checkpoints"]] == [1]
    assert rest.get(f"{CHAIN}/checkpoints/2")["checkpoint"]["metrics"] == {"auc": 0.7}
    assert len(rest.get(f"{CHAIN}/checkpoints/head/lineage")["partitions"]) == 8
    assert [file["path"] for file in rest.get(f"{CHAIN}/checkpoints/head/files")["files"]] == [
        "model.bin",
        "parts/a.txt",
    ]
    answer = rest.ask("GET", f"{CHAIN}/checkpoints/head/files/parts/a.txt")
    assert (answer.body, answer.headers["content-disposition"]) == (b"one", 'attachment; filename="a.txt"')
    compared = rest.get(f"{CHAIN}/compare?a=1&b=2")
    assert (compared["common"], len(compared["only_b"])) == (4, 2)


def test_part_of_a_file_is_sent(rest: RestApi) -> None:
    path = f"{CHAIN}/checkpoints/head/files/model.bin"
    whole = rest.ask("GET", path)
    assert (whole.status, whole.body, whole.headers["accept-ranges"]) == (200, b"weights", "bytes")
    tag = whole.headers["etag"]
    part = rest.ask("GET", path, Range="bytes=2-4", **{"If-Range": tag})
    assert (part.status, part.body) == (206, b"igh")
    assert (part.headers["content-range"], part.headers["content-length"]) == ("bytes 2-4/7", "3")
    assert rest.ask("GET", path, Range="bytes=-2").body == b"ts"
    # of another content nothing is sent that could be put behind what is there
    assert rest.ask("GET", path, Range="bytes=2-", **{"If-Range": '"other"'}).body == b"weights"
    assert rest.ask("GET", path, Range="bytes=0-1,3-4").status == 200
    beyond = rest.ask("GET", path, Range="bytes=7-")
    assert (beyond.status, beyond.headers["content-range"], beyond.body["title"]) == (416, "bytes */7", "NoSuchRange")
    assert rest.ask("GET", path, Range="bytes=2-", **{"If-None-Match": tag}).status == 304
    head = rest.ask("HEAD", path, Range="bytes=2-4")
    assert (head.status, head.headers["content-length"]) == (200, "7")


@pytest.mark.parametrize(
    "name", ["../../../configs/trainflow.toml", "%2e%2e/secret", "/etc/passwd", "parts/../model.bin"]
)
def test_file_outside_of_a_checkpoint_is_never_read(rest: RestApi, name: str) -> None:
    assert rest.ask("GET", f"{CHAIN}/checkpoints/head/files/{name}").status in (404, 421)


def test_log_whose_path_leads_out_of_the_home_is_not_read(tmp_path: Path) -> None:
    with rest_api(tmp_path) as rest:
        with rest.plane.database.transaction() as connection:
            connection.execute(update(AttemptTable.table).values(log_name="/etc/passwd"))
        assert rest.get("/dags/d/dagRuns/r2/taskInstances/a/logs/1", 404)["title"] == "NotFound"


def test_chain_of_a_file_that_no_engine_has_read_is_shown(rest: RestApi) -> None:
    yaml = (rest.root / "pipelines" / "flights.yaml").read_text().replace("flights", "trains")
    (rest.root / "pipelines" / "trains.yaml").write_text(yaml)
    try:
        found = rest.get("/chains/trains/main/main/partitions")
        assert (found["ranges"], found["head"], found["length"]) == ([], 0, "1d")
    finally:
        (rest.root / "pipelines" / "trains.yaml").unlink()


def test_plan_and_samples_are_asked_of_the_storage(rest: RestApi) -> None:
    assert rest.get(f"{CHAIN}/plan")["outcome"] in ("caught_up", "waiting")
    found = rest.get(f"{CHAIN}/samples?since=2013-01-01T00:00:00Z&until=2013-01-04T00:00:00Z")
    assert [(each["state"], each["partitions"]) for each in found["ranges"]] == [("trained", 3)]
    assert rest.get(f"{CHAIN}/partitions/2013-01-02")["trained_by"]["number"] == 1


@pytest.mark.parametrize(
    "query",
    [
        "/dags/d/dagRuns?limit=10&cursor=CURSOR",
        "/dags/d/dagRuns?state=failed",
        "/dags/d/dagRuns/~/taskInstances",
    ],
)
def test_page_is_found_by_an_index(rest: RestApi, query: str) -> None:
    engine = rest.api.server.web.workspace.database.engine
    heard: list[tuple[str, object]] = []

    def hear(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        heard.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", hear)
    try:
        rest.get(query.replace("CURSOR", cursor_of(PagePlace(1))))
    finally:
        event.remove(engine, "before_cursor_execute", hear)
    statement, parameters = next(each for each in heard if "LIMIT" in each[0] and "ORDER BY dag_run.number" in each[0])
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    said = [row[-1] for row in plan]
    assert any("dag_run" in line and "INDEX" in line for line in said), said
    assert not any(line.startswith("SCAN") for line in said), said
