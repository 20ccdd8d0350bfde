"""The Jobs API: this project's own on this machine, and that of a real cluster whose dashboard RAY_DASHBOARD names
(`python -m tests.support.real_ray`). The same is asked of both, and both have to answer alike."""

from __future__ import annotations

import io
import json
import os
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from trainflow.executors.ray.jobs_thread import RayJobsClient, RayRefused, RayUnreachable
from trainflow.observability.processes import is_alive
from trainflow.testing.processes import DEADLINE_SECONDS
from trainflow.testing.ray_jobs_api import RayJobsServer

REAL = os.environ.get("RAY_DASHBOARD")


class Answer(NamedTuple):
    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Cluster:
    def __init__(self, address: str) -> None:
        self.address = address
        self.client = RayJobsClient(address)
        self._names = (f"t{os.getpid()}-{time.time_ns()}-{number}" for number in range(1000))

    def name(self) -> str:
        return next(self._names)

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}/api/{path}", content, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as answer:
                return Answer(answer.status, answer.read().decode())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode())

    def submit(self, entrypoint: str, **more: Any) -> str:
        name = self.name()
        answer = self.ask("POST", "jobs/", {"entrypoint": entrypoint, "submission_id": name, **more})
        assert (answer.status, answer.json) == (200, {"job_id": name, "submission_id": name})
        return name

    def until(self, name: str, *statuses: str) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            found: dict[str, Any] = self.ask("GET", f"jobs/{name}").json
            if found["status"] in statuses:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.05)


@pytest.fixture(scope="module", params=["ours", *([] if REAL is None else ["real"])])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if request.param == "real":
        assert REAL is not None
        yield Cluster(REAL)
        return
    with RayJobsServer(tmp_path_factory.mktemp("ray")) as server:
        yield Cluster(server.url)


FIELDS = {
    "driver_agent_http_address",
    "driver_exit_code",
    "driver_info",
    "driver_node_id",
    "end_time",
    "entrypoint",
    "error_type",
    "job_id",
    "message",
    "metadata",
    "runtime_env",
    "start_time",
    "status",
    "submission_id",
    "type",
}


def test_job_that_ends_well_is_told_as_it_was_submitted(cluster: Cluster) -> None:
    name = cluster.submit(
        'test "$X" = 1', runtime_env={"env_vars": {"X": "1"}}, metadata={"task_id": "train"}, entrypoint_num_cpus=0.5
    )
    found = cluster.until(name, "SUCCEEDED", "FAILED")
    assert set(found) == FIELDS
    assert (found["status"], found["message"], found["driver_exit_code"]) == (
        "SUCCEEDED",
        "Job finished successfully.",
        0,
    )
    assert (found["type"], found["submission_id"]) == ("SUBMISSION", name)
    assert (found["metadata"], found["runtime_env"]["env_vars"]) == ({"task_id": "train"}, {"X": "1"})
    # all who may list see the environment: nothing secret belongs into it
    (listed,) = [each for each in cluster.ask("GET", "jobs/").json if each["submission_id"] == name]
    assert listed["runtime_env"]["env_vars"] == {"X": "1"}
    assert cluster.client.jobs()[name] == cluster.client.job(name)


def test_job_that_fails_says_its_exit_code_and_the_end_of_its_log(cluster: Cluster) -> None:
    name = cluster.submit("echo no more; exit 3")
    found = cluster.until(name, "FAILED", "SUCCEEDED")
    assert (found["status"], found["driver_exit_code"]) == ("FAILED", 3)
    first, *rest = found["message"].splitlines()
    assert first == "Job entrypoint command failed with exit code 3, last available logs (truncated to 20,000 chars):"
    # it writes lines of its own into the log, and says it last where the job was faster
    assert {"no more", f"Running entrypoint for job {name}: echo no more; exit 3"} <= set(rest)
    assert (found["metadata"], found["runtime_env"]) in ((None, None), ({}, {}))


def test_submission_id_that_is_taken_is_an_internal_error(cluster: Cluster) -> None:
    name = cluster.submit("sleep 600")
    answer = cluster.ask("POST", "jobs/", {"entrypoint": "true", "submission_id": name})
    assert answer.status == 500
    assert answer.text.startswith("Traceback (most recent call last):")
    said = f"ValueError: Job with submission_id {name} already exists. Please use a different submission_id."
    assert said in answer.text
    with pytest.raises(RayUnreachable, match=f"HTTP 500: ValueError: Job with submission_id {name} already exists"):
        cluster.client.submit({"entrypoint": "true", "submission_id": name})
    cluster.client.stop(name)
    cluster.until(name, "STOPPED")


def test_request_that_is_none_is_refused(cluster: Cluster) -> None:
    for request in ({"submission_id": cluster.name()}, {"entrypoint": "true", "nonsense": 1}):
        assert cluster.ask("POST", "jobs/", request).status == 400
        with pytest.raises(RayRefused, match="TypeError: JobSubmitRequest"):
            cluster.client.submit(request)


def test_job_that_is_unknown_is_not_found(cluster: Cluster) -> None:
    for method, path in (("GET", "jobs/nope"), ("POST", "jobs/nope/stop"), ("DELETE", "jobs/nope")):
        assert cluster.ask(method, path) == Answer(404, "Job nope does not exist")
    assert cluster.client.job("nope") is None
    cluster.client.stop("nope")
    cluster.client.delete("nope")


def test_job_is_deleted_once_it_has_ended(cluster: Cluster) -> None:
    name = cluster.submit("sleep 600")
    answer = cluster.ask("DELETE", f"jobs/{name}")
    assert answer.status == 500
    assert f"RuntimeError: Attempted to delete job '{name}', but it is in a non-terminal state" in answer.text
    assert cluster.ask("POST", f"jobs/{name}/stop").json == {"stopped": True}
    found = cluster.until(name, "STOPPED")
    assert found["message"] == "Job was intentionally stopped."
    assert cluster.ask("POST", f"jobs/{name}/stop").json == {"stopped": False}
    assert cluster.ask("DELETE", f"jobs/{name}").json == {"deleted": True}
    assert cluster.client.job(name) is None


def test_job_that_needs_more_than_there_is_waits_and_says_so(cluster: Cluster) -> None:
    name = cluster.submit("true", entrypoint_num_gpus=99)
    found = cluster.until(name, "PENDING")
    assert found["message"] == (
        "Job has not started yet. It may be waiting for resources (CPUs, GPUs, memory, custom resources) to become "
        "available."
    )
    cluster.client.stop(name)


#: says when it is told to stop; its child, in a session of its own, does too
_TELLS = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("told", sys.argv[1], flush=True))
if sys.argv[1] == "parent":
    subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
print("ready", sys.argv[1], os.getpid(), flush=True)
time.sleep(600); time.sleep(600)
"""


def test_stop_tells_all_that_a_job_started_and_kills_it_after_its_wait(cluster: Cluster, tmp_path: Any) -> None:
    program, log = tmp_path / "tells.py", tmp_path / "log"
    program.write_text(_TELLS)
    name = cluster.submit(
        f"python3 {program} parent > {log} 2>&1", runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "3"}}
    )
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not log.exists() or log.read_text().count("ready") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cluster.client.stop(name)
    cluster.until(name, "STOPPED")
    assert sorted(line for line in log.read_text().splitlines() if line.startswith("told")) == [
        "told child",
        "told parent",
    ]
    ready = [line.split() for line in log.read_text().splitlines() if line.startswith("ready")]
    assert not any(is_alive(int(pid), 0.0) for _, _, pid in ready)


def test_job_begins_in_the_package_that_it_names(cluster: Cluster) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("workload.json", cluster.name())
    package = f"_ray_pkg_{time.time_ns():032x}.zip"
    cluster.client.put_package(package, content.getvalue())
    name = cluster.submit("grep -q . workload.json", runtime_env={"working_dir": f"gcs://{package}"})
    found = cluster.until(name, "SUCCEEDED", "FAILED")
    assert found["status"] == "SUCCEEDED", found["message"]
    assert found["runtime_env"]["working_dir"] == f"gcs://{package}"
