"""What a Ray job is told, and what of it Ray lists."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import msgspec
import pytest

from trainflow.executors.ray.executor import RayExecutor
from trainflow.executors.ray.job_request import may_package, package_of, ray_options, request_of, submission_id
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask
from trainflow.settings.executors import ExecutorSettingsError

WORKLOAD = ExecuteTask(
    AttemptKey("01attempt", 2),
    7,
    "clicks",
    "run-1",
    "train",
    -1,
    DagSource("pipelines/clicks.yaml"),
    "/project",
    "/home",
    "/log",
    queue="gpu",
    api_url="http://api:8080",
    claim_secret="claims-it",
)


def asked(**options: Any) -> dict[str, Any]:
    read = ray_options("ray", {"address": "http://head:8265", **options})
    package = package_of(WORKLOAD) if may_package(read) else None
    return request_of(WORKLOAD, read, package, grace_seconds=30.0)


def test_request_names_attempt_and_gives_a_save_its_time() -> None:
    request = asked()
    assert request["submission_id"] == submission_id(WORKLOAD.key) == "01attempt-2"
    assert request["metadata"] == {
        "dag_id": "clicks",
        "run_id": "run-1",
        "task_id": "train",
        "attempt_id": "01attempt",
    }
    assert request["runtime_env"]["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "45"}
    assert request["entrypoint"] == "exec trainflow execute-workload --file workload.json"
    assert not any(name.startswith("entrypoint_") for name in request)


def test_request_holds_no_secret_and_its_package_does() -> None:
    package = package_of(WORKLOAD)
    assert "claims-it" not in json.dumps(asked())
    assert asked()["runtime_env"]["working_dir"] == f"gcs://{package.name}"
    with zipfile.ZipFile(io.BytesIO(package.content)) as archive:
        assert archive.namelist() == ["workload.json"]
        assert msgspec.json.decode(archive.read("workload.json"), type=ExecuteTask) == WORKLOAD
    # the same attempt is the same package, however often it is submitted
    assert package_of(WORKLOAD) == package


def test_request_with_working_dir_of_its_own_has_workload_in_environment() -> None:
    request = asked(runtime_env={"working_dir": "s3://code/clicks.zip", "env_vars": {"A": "1"}})
    assert request["runtime_env"]["working_dir"] == "s3://code/clicks.zip"
    assert request["runtime_env"]["env_vars"]["A"] == "1"
    assert "claims-it" in request["runtime_env"]["env_vars"]["TRAINFLOW_WORKLOAD"]


def test_request_asks_for_what_queue_needs_over_what_each_job_needs() -> None:
    needs = {"num_cpus": 2, "resources": {"disk": 1}}
    request = asked(needs=needs, queues={"gpu": {"num_gpus": 0.5, "num_cpus": 4}})
    found = {name: value for name, value in request.items() if name.startswith("entrypoint_")}
    assert found == {"entrypoint_num_cpus": 4, "entrypoint_num_gpus": 0.5, "entrypoint_resources": {"disk": 1}}


def test_request_asks_for_what_task_needs_over_all() -> None:
    options = ray_options("ray", {"address": "http://head", "queues": {"gpu": {"num_gpus": 1, "num_cpus": 4}}})
    workload = msgspec.structs.replace(WORKLOAD, executor_config={"num_gpus": 2})
    request = request_of(workload, options, None, grace_seconds=1.0)
    assert (request["entrypoint_num_gpus"], request["entrypoint_num_cpus"]) == (2, 4)


def test_request_says_what_the_settings_say() -> None:
    request = asked(command="/opt/bin/trainflow execute-workload", project="/srv/clicks", stop_wait_seconds=600)
    assert request["entrypoint"] == (
        "exec /opt/bin/trainflow execute-workload --file workload.json --project '/srv/clicks'"
    )
    assert request["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "600"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "executors.ray.address is missing"),
        ({"address": "head:8265"}, "executors.ray.address: it is no URL of a dashboard: write one such as"),
        ({"address": "ray://head:10001"}, "executors.ray.address: this is the address of Ray's client"),
        ({"address": "http://head:x"}, "executors.ray.address: its port must be a whole number"),
        ({"address": "http://head", "num_gpus": 1}, "unknown setting executors.ray.num_gpus"),
        ({"address": "http://head", "needs": {"num_gpus": -1}}, "executors.ray.needs.num_gpus"),
        ({"address": "http://head", "needs": {"gpus": 1}}, "executors.ray.needs"),
        ({"address": "http://head", "poll_seconds": 0}, "executors.ray.poll_seconds"),
    ],
)
def test_options_that_can_never_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExecutorSettingsError, match=message.replace(".", r"\.")):
        RayExecutor.from_options("ray", options)


@pytest.mark.parametrize(
    ("needs", "bundle"),
    [
        ({}, {"CPU": 1.0}),
        ({"num_cpus": 4, "num_gpus": 1, "memory": 64}, {"CPU": 4.0, "GPU": 1.0, "memory": 64.0}),
        ({"num_cpus": 0, "num_gpus": 2, "resources": {"fast": 0.5}}, {"GPU": 2.0, "fast": 0.5}),
    ],
)
def test_ranks_ask_for_places_and_their_job_for_nothing(needs: dict[str, Any], bundle: dict[str, float]) -> None:
    read = ray_options("ray", {"address": "http://head:8265", "needs": needs, "placement": "STRICT_SPREAD"})
    workload = msgspec.structs.replace(WORKLOAD, nodes=4)
    request = request_of(workload, read, package_of(workload), grace_seconds=30.0)
    assert not any(name.startswith("entrypoint_") for name in request)
    placement = json.loads(request["runtime_env"]["env_vars"]["TRAINFLOW_RAY_PLACEMENT"])
    assert placement == {"bundle": bundle, "strategy": "STRICT_SPREAD"}
    assert "claims-it" not in json.dumps(request)
