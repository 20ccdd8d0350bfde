"""Three ranks in the places that a Ray job has found for them: any of them is killed at any step, the job is stopped.
The cluster is the one of `trainflow.testing`, and what its jobs import as Ray a stand-in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.ranked_project import FILE, PIPELINE, assert_trained, begun, disturb, lay_out_ranked, outcomes
from tests.support.live_project import WITHOUT_MLFLOW, LiveProject
from tests.support.ports import free_port
from trainflow.executors.ray.jobs_thread import RayJobsClient
from trainflow.testing.processes import wait_for
from trainflow.testing.ray_jobs_api import RayJobsServer

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

COMMAND = f"{sys.executable} -P -m trainflow.cli.entry execute-workload"
STAND_IN = Path(__file__).parent.parent / "support" / "local_ray"


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayJobsServer]:
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))
    with RayJobsServer(tmp_path / "ray") as server:
        yield server


@pytest.fixture
def ranked(projects: Callable[..., LiveProject], ray: RayJobsServer) -> LiveProject:
    table = f'{{type = "ray", slots = 4, address = "{ray.url}", command = "{COMMAND}", poll_seconds = 0.2}}'
    project = projects(
        "ranked",
        settings=f"{WITHOUT_MLFLOW}[executors]\nlocal = {{}}\ncluster = {table}\n[api]\nport = {free_port()}\n"
        "[workers]\nheartbeat_seconds = 0.5\nlost_after_seconds = 4\n[engine]\nheartbeat_seconds = 0.5\n",
    )
    project.environ["TRAINFLOW__API__ENABLED"] = "true"  # the port is its own
    return lay_out_ranked(project, PIPELINE.replace("nodes: 3,", "nodes: 3, executor: cluster,"))


def test_ranks_on_ray_killed_at_each_step_train_each_row_once(ranked: LiveProject, ray: RayJobsServer) -> None:
    disturb(ranked, "kill-1-0", "kill-0-1")
    ended = ranked.start(FILE)
    assert ended.code == 0, ended.output
    assert_trained(ranked)
    assert set(outcomes(ranked)[:-1]) == {"part_lost"}
    assert outcomes(ranked)[-1] == "success"


def test_job_of_ranks_that_a_person_stops_saves_and_goes_on(ranked: LiveProject, ray: RayJobsServer) -> None:
    disturb(ranked, "hold-0-1")
    running = ranked.begin_start(FILE)
    wait_for(
        lambda: not list((ranked.root / "disturbances").glob("hold*")) and len(ranked.journal()) == 3,
        "a rank that holds",
    )
    (job,) = (name for name, each in ray.jobs.items() if each["status"] == "RUNNING")
    assert "tfclaim_" not in str(ray.jobs)
    RayJobsClient(ray.url).stop(job)
    ended = running.wait()
    assert ended.code == 0, ended.output
    assert outcomes(ranked) == ["preempted", "success"]
    assert_trained(ranked)
    assert begun(ranked) == [(0, 3)] * 3 + [(30, 3)] * 3


def test_job_of_ranks_that_is_killed_is_lost_and_goes_again(ranked: LiveProject, ray: RayJobsServer) -> None:
    disturb(ranked, "hold-0-1")
    running = ranked.begin_start(FILE)
    wait_for(
        lambda: not list((ranked.root / "disturbances").glob("hold*")) and len(ranked.journal()) == 3,
        "a rank that holds",
    )
    ray.kill_all()
    ended = running.wait()
    assert ended.code == 0, ended.output
    assert outcomes(ranked) == ["lost", "success"]
    assert_trained(ranked)
