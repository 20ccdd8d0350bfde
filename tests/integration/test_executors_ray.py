"""Attempts as Ray jobs, under a whole engine. The cluster is the one of `trainflow.testing`, or a real one whose
dashboard RAY_DASHBOARD names (`python -m tests.support.real_ray` starts one)."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator

import pytest

from trainflow.executors.ray.executor import RayExecutor
from trainflow.executors.ray.job_request import submission_id
from trainflow.executors.ray.jobs_thread import RayJobsClient
from trainflow.messages.workload import ExecuteTask
from trainflow.testing.contract_engine import ContractEngine
from trainflow.testing.executor_engine_contract import ExecutorEngineContract
from trainflow.testing.ray_jobs_api import RayJobsServer

#: real supervisors, each an interpreter
pytestmark = pytest.mark.slow

COMMAND = f"{sys.executable} -P -m trainflow.cli.entry execute-workload"
REAL = os.environ.get("RAY_DASHBOARD")


#: a real cluster is neither restarted nor filled by a test
own_cluster = pytest.mark.skipif(REAL is not None, reason="RAY_DASHBOARD names a real cluster")


@pytest.mark.exhaustive
class TestRayExecutor(ExecutorEngineContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        if REAL is not None:
            self._use(REAL)
            yield
            return
        with RayJobsServer(tmp_path_factory.mktemp("ray")) as self.ray:
            self._use(self.ray.url)
            yield

    def _use(self, address: str) -> None:
        self.address = address
        type(self).executor = (
            f'{{type = "ray", slots = 4, address = "{address}", command = "{COMMAND}", poll_seconds = 0.2, '
            "needs = {num_cpus = 0.1}}"
        )

    def deliver_again(self, engine: ContractEngine, workload: ExecuteTask) -> None:
        executor = engine.executor
        assert isinstance(executor, RayExecutor)
        executor.deliver(workload)

    @own_cluster
    def test_head_that_is_away_keeps_tasks_queued_and_attempts_go_on(self, engine: ContractEngine) -> None:
        held = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(held))
        self.ray.hang_up()
        run = engine.trigger("contract_says")
        executors = engine.engine.executor
        assert executors is not None
        engine.until(lambda: "tested" in executors.problems)
        assert f"Ray at {self.ray.url} takes no jobs: " in executors.problems["tested"]
        row = engine.task(run)
        assert (row.state, row.lost, row.failures) == ("queued", 0, 0)
        self.ray.listen()
        (engine.root / "go").touch()
        assert engine.finish(run) == engine.finish(held) == "success"
        assert engine.outcomes(run) == engine.outcomes(held) == ["success"]

    @own_cluster
    def test_head_that_is_restarted_forgets_jobs_and_no_attempt_is_lost(self, engine: ContractEngine) -> None:
        held = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(held))
        self.ray.restart()
        engine.turn(1.0)
        (engine.root / "go").touch()
        assert engine.finish(held) == "success"
        assert engine.outcomes(held) == ["success"]

    @own_cluster
    def test_job_that_is_forgotten_before_it_began_is_submitted_again_at_no_cost(self, engine: ContractEngine) -> None:
        self.ray.num_cpus = 0
        run = engine.trigger("contract_says")
        engine.until(lambda: self.ray.jobs)
        self.ray.restart()
        engine.until(lambda: self.ray.jobs)
        self.ray.num_cpus = 8
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["success"]

    @own_cluster
    def test_job_that_waits_for_resources_says_so(self, engine: ContractEngine) -> None:
        self.ray.num_cpus = 0
        run = engine.trigger("contract_says")
        engine.until(lambda: self.ray.jobs and engine.task(run).note)
        assert engine.task(run).note == (
            "Ray has not started it: Job has not started yet. It may be waiting for resources (CPUs, GPUs, memory, "
            "custom resources) to become available. It may be waiting for the runtime environment to be set up."
        )
        self.ray.num_cpus = 8
        assert engine.finish(run) == "success"

    @own_cluster
    def test_job_that_is_killed_is_lost_at_once(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        self.ray.kill_all()
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["lost", "success"]
        assert engine.attempts(run)[0].problem.startswith("its Ray job failed: Job entrypoint command failed")

    def test_job_that_a_person_stops_saves_and_is_preempted(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        RayJobsClient(self.address).stop(submission_id(engine.delivered[0].key))
        engine.until(lambda: engine.outcomes(run)[0] is not None)
        assert engine.outcomes(run)[0] == "preempted"
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"

    def test_what_claims_an_attempt_is_in_nothing_that_is_listed(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        with urllib.request.urlopen(f"{self.address}/api/jobs/") as answer:
            listed = answer.read().decode()
        workload = engine.delivered[0]
        assert workload.claim_secret
        assert workload.claim_secret not in listed
        (job,) = [each for each in json.loads(listed) if each["submission_id"] == submission_id(workload.key)]
        assert job["metadata"]["task_id"] == workload.task_id
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"
        # what has ended is not kept
        client = RayJobsClient(self.address)
        engine.until(lambda: client.job(submission_id(workload.key)) is None)
