"""Airflow's own client against this API: every call of the table in docs/rest.md works."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.rest import RestApi, rest_api


@pytest.fixture(scope="module")
def airflow() -> Any:
    """The client's package, imported when a test runs: it takes two seconds, which each worker would pay to collect."""
    return pytest.importorskip("airflow_client.client", reason="pip install 'trainflow[test]'")


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestApi]:
    with rest_api(tmp_path_factory.mktemp("airflow")) as served:
        yield served


@pytest.fixture
def api(rest: RestApi, airflow: Any) -> Iterator[Any]:
    """`api(Name)`: one of the client's APIs."""
    with airflow.ApiClient(airflow.Configuration(host=rest.api.url)) as client:
        yield lambda name: getattr(airflow, name)(client)


def test_airflows_client_reads_dags(api: Any, airflow: Any) -> None:
    dags = api("DAGApi")
    assert [dag.dag_id for dag in dags.get_dags(limit=10).dags] == ["d", "flights"]
    assert dags.get_dag("d").is_paused is False
    assert dags.get_dag_details("d").concurrency == 16
    assert dags.patch_dag("d", airflow.DAGPatchBody(is_paused=False)).is_paused is False
    assert [task.task_id for task in api("TaskApi").get_tasks("d").tasks] == ["a", "b"]
    assert api("TaskApi").get_task("d", "b").operator_name


def test_airflows_client_triggers_changes_and_clears_runs(api: Any, airflow: Any) -> None:
    runs = api("DagRunApi")
    made = runs.trigger_dag_run("d", airflow.TriggerDAGRunPostBody(dag_run_id="theirs", conf={"x": 1}))
    assert (made.state, made.run_type, made.triggered_by) == ("queued", "manual", "rest_api")
    assert runs.get_dag_run("d", "theirs").conf == {"x": 1}
    found = runs.get_dag_runs("~", limit=2, order_by=["-id"], state=["queued", "failed"])
    assert [run.dag_run_id for run in found.dag_runs] == ["theirs", "r1"]
    assert runs.patch_dag_run("d", "theirs", airflow.DAGRunPatchBody(note="hello")).note == "hello"
    assert runs.patch_dag_run("d", "theirs", airflow.DAGRunPatchBody(state="failed")).state == "failed"
    runs.delete_dag_run("d", "theirs")
    with pytest.raises(airflow.exceptions.NotFoundException, match="DAG 'd' has no run 'theirs'"):
        runs.get_dag_run("d", "theirs")


def test_airflows_client_reads_tasks_logs_and_xcoms(api: Any, airflow: Any) -> None:
    tasks = api("TaskInstanceApi")
    assert [each.state for each in tasks.get_task_instances("d", "r1").task_instances] == ["success", "failed"]
    assert tasks.get_task_instance("d", "r1", "b").try_number == 1
    assert len(tasks.get_task_instance_tries("d", "r1", "b").task_instances) == 1
    (reason,) = tasks.get_task_instance_dependencies("d", "r2", "b").dependencies
    assert reason.reason.startswith("waits for a")
    log = tasks.get_log("d", "r2", "a", 1)
    assert [line.event for line in log.content.actual_instance] == ["first line", "second line"]
    assert [each.key for each in api("XComApi").get_xcom_entries("d", "r1", "a").xcom_entries] == ["return_value"]
    body = airflow.ClearTaskInstancesBody(dag_run_id="r1", only_failed=True)
    assert [each.task_id for each in tasks.post_clear_task_instances("d", body).task_instances] == ["b"]


def test_airflows_client_reads_the_control_plane(api: Any, airflow: Any) -> None:
    assert api("PoolApi").get_pools().pools[0].open_slots == 127
    assert api("PoolApi").post_pool(airflow.PoolBody(name="gpu", slots=2)).slots == 2
    api("PoolApi").delete_pool("gpu")
    assert api("ImportErrorApi").get_import_errors().total_entries == 0
    assert {job.job_type for job in api("JobApi").get_jobs().jobs} == {"engine", "api_server"}
    assert api("EventLogApi").get_event_logs(limit=5).total_entries > 0
    assert api("MonitorApi").get_health().scheduler.status == "healthy"
    assert api("VersionApi").get_version().version
