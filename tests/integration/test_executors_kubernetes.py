"""Attempts in pods, under a whole engine: the cluster is a pod API server, with rights, faults and kills."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.pod_clusters import pod_cluster
from trainflow.executors.executor import InFlightAttempt
from trainflow.executors.kubernetes.cluster import Cluster
from trainflow.executors.kubernetes.executor import KubernetesExecutor
from trainflow.executors.kubernetes.pod_writer import PodWriter
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.queries import run_queries
from trainflow.observability import processes
from trainflow.testing.contract_engine import ContractEngine, contract_api, contract_engine, lay_out_project, listening
from trainflow.testing.executor_engine_contract import ExecutorEngineContract
from trainflow.testing.kubernetes_api.kubelet import PodRun
from trainflow.testing.kubernetes_api.resources import PODS, QUOTAS, SECRETS
from trainflow.testing.kubernetes_api.server import PodApiServer
from trainflow.testing.kubernetes_api.status import ApiStatus
from trainflow.testing.processes import MARK, marked

#: real supervisors and workers, each an interpreter
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _leftover_supervisors_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Unreachable is not dead: a supervisor whose test took the API server away would ask for it for ever."""
    mark = os.urandom(8).hex()
    monkeypatch.setenv(MARK, mark)
    yield
    for left in marked(mark):
        left.kill()


class TestKubernetesExecutor(ExecutorEngineContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, tmp_path: Path) -> Iterator[PodApiServer]:
        with pod_cluster(tmp_path / "cluster") as (self.cluster, config):
            type(self).executor = table(config)
            yield self.cluster

    def deliver_again(self, engine: ContractEngine, workload: ExecuteTask) -> None:
        executor = engine.executor
        assert isinstance(executor, KubernetesExecutor)
        executor.deliver(workload)


def table(config: Path, **more: object) -> str:
    """The table of the executor, as TOML."""
    options = {"type": "kubernetes", "slots": 4, "image": "any", "kubeconfig": str(config), "redeliver_seconds": 5}
    return "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in {**options, **more}.items()) + "}"


@contextmanager
def engines_with(
    folder: Path, **options: Any
) -> Iterator[tuple[Callable[[], AbstractContextManager[ContractEngine]], PodApiServer]]:
    """What makes engines over a cluster, one after the other; `options`: of the executor."""
    with pod_cluster(folder / "cluster") as (cluster, config), listening() as listener:
        project = lay_out_project(folder / "project", table(config, **options), listener.getsockname()[1])
        project.home.create()
        with contract_api(project, listener):
            yield lambda: contract_engine(project), cluster


@contextmanager
def engine_with(folder: Path, **options: Any) -> Iterator[tuple[ContractEngine, PodApiServer]]:
    """An engine over a cluster; `options`: of the executor."""
    with engines_with(folder, **options) as (next_engine, cluster), next_engine() as engine:
        yield engine, cluster


def pod_run(cluster: PodApiServer) -> PodRun:
    """What runs the newest pod."""
    return cluster.kubelet.run_of(cluster.pods()[-1])


def note_of(engine: ContractEngine, run: int) -> str:
    return engine.task(run).note or ""


def goes_on(engine: ContractEngine, run: int, *outcomes: str) -> None:
    # an attempt that was told to stop could see this before that
    engine.until(lambda: engine.outcomes(run)[: len(outcomes)] == list(outcomes))
    (engine.root / "go").touch()
    assert engine.finish(run) == "success"
    assert engine.outcomes(run) == [*outcomes, "success"]
    assert engine.task(run).failures == 0


def pods_are_gone(engine: ContractEngine, cluster: PodApiServer) -> None:
    engine.until(lambda: cluster.pods() == [])
    assert cluster.store.listing(SECRETS, "default")[1] == []


@pytest.mark.parametrize("secret", [False, True])
def test_pod_is_deleted_when_its_outcome_and_log_are_stored(tmp_path: Path, secret: bool) -> None:
    with engine_with(tmp_path, secret=secret) as (engine, cluster):
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        (pod,) = cluster.pods()
        assert ("tfclaim_" in json.dumps(pod)) is not secret
        assert len(cluster.store.listing(SECRETS, "default")[1]) == secret
        goes_on(engine, run)
        pods_are_gone(engine, cluster)


def test_secret_that_cannot_be_made_after_its_pod_costs_no_try(tmp_path: Path) -> None:
    with engine_with(tmp_path, secret=True, pending_seconds=1) as (engine, cluster):
        cluster.faults.refuse(ApiStatus(500, "InternalError", "etcd is away"), verb="create", plural="secrets", times=2)
        run = engine.trigger("contract_says")
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["success"]


def test_pod_whose_engine_ended_before_its_secret_was_made_is_made_anew(tmp_path: Path) -> None:
    with engine_with(tmp_path, secret=True, pending_seconds=1, redeliver_seconds=2) as (engine, _cluster):
        made = PodWriter._made

        def only_pod(_cluster: Cluster, work: Any) -> dict[str, Any]:
            return made(_cluster, work._replace(secret=False))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PodWriter, "_made", staticmethod(only_pod))
            run = engine.trigger("contract_says")
            executor = engine.executor
            assert isinstance(executor, KubernetesExecutor)
            engine.until(lambda: [each for attempt in executor._attempts.values() for each in attempt.places])
        # as the next engine finds it
        ((key, _),) = executor._attempts.items()
        executor._attempts.clear()
        executor.adopt([InFlightAttempt(key, False, None, None, None)])
        assert engine.finish(run) == "success"
        assert [each for each in engine.outcomes(run) if each != "undelivered"] == ["success"]


def test_secret_of_attempt_is_not_where_code_of_users_runs_nor_in_a_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with engine_with(tmp_path, secret=True) as (engine, cluster):
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        secret = engine.delivered[0].claim_secret
        supervisor = pod_run(cluster).containers[0].process
        assert supervisor is not None
        for pid in (supervisor.pid, engine.task(run).pid):
            assert secret.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
            assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        log = pod_run(cluster).containers[0].log
        goes_on(engine, run)
        assert secret not in log.read_text()
        assert secret not in caplog.text


# -- what becomes of pods ----------------------------------------------------------------------------------------------


def test_pod_that_is_killed_is_lost_and_runs_again(tmp_path: Path) -> None:
    with engine_with(tmp_path) as (engine, cluster):
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        held = engine.task(run)
        pod_run(cluster).kill()
        engine.until(lambda: not processes.is_alive(held.pid, held.process_started))
        goes_on(engine, run, "lost")
        assert engine.attempts(run)[0].problem == "the process was killed (SIGKILL) before it reported an outcome"


def test_pod_out_of_memory_has_failed_and_says_so(tmp_path: Path) -> None:
    with engine_with(tmp_path) as (engine, cluster):
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        pod_run(cluster).kill("OOMKilled")
        assert engine.finish(run) == "failed"
        assert "the kernel killed the process because memory ran out" in engine.task(run).problem


def test_pod_that_is_evicted_is_lost_in_words(tmp_path: Path) -> None:
    with engine_with(tmp_path) as (engine, cluster):
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        pod_run(cluster).evict("The node was low on resource: memory.")
        goes_on(engine, run, "lost")
        said = "its pod was evicted: The node was low on resource: memory"
        assert engine.attempts(run)[0].problem == said


def test_pod_that_is_deleted_by_a_person_is_preempted(tmp_path: Path) -> None:
    with engine_with(tmp_path) as (engine, cluster):
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        os.kill(pod_run(cluster).containers[0].process.pid, signal.SIGTERM)  # type: ignore[union-attr]
        goes_on(engine, run, "preempted")


def test_pod_on_a_lost_node_is_lost_when_it_is_not_heard(tmp_path: Path) -> None:
    with engine_with(tmp_path) as (engine, cluster):
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        pod_run(cluster).lose_node()
        engine.pass_time_until(lambda: engine.outcomes(run)[0] is not None)
        goes_on(engine, run, "lost")
        assert "its worker was not heard for" in engine.attempts(run)[0].problem


def test_pod_that_vanishes_before_it_began_is_made_again_at_no_cost(tmp_path: Path) -> None:
    with engine_with(tmp_path) as (engine, cluster):
        cluster.kubelet.let_schedule("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
        run = engine.trigger("contract_says")
        engine.until(lambda: engine.delivered)
        engine.until(lambda: "no node takes it (0/3 nodes are available: 3 Insufficient" in note_of(engine, run))
        (pod,) = cluster.pods()
        cluster.store.remove(PODS, "default", pod["metadata"]["name"])
        engine.until(lambda: cluster.pods() and cluster.pods()[0]["metadata"]["uid"] != pod["metadata"]["uid"])
        cluster.kubelet.let_schedule()
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["success"]
        assert (engine.task(run).lost, engine.task(run).note) == (0, None)


def test_image_that_cannot_be_pulled_is_told_and_fails_after_a_while(tmp_path: Path) -> None:
    with engine_with(tmp_path, pending_seconds=60) as (engine, cluster):
        cluster.kubelet.bad_images["any"] = ("ImagePullBackOff", 'Back-off pulling image "any"')
        run = engine.trigger("contract_says")
        engine.until(lambda: engine.delivered)
        engine.until(lambda: "its image cannot be pulled" in note_of(engine, run))
        engine.pass_time(60)
        assert engine.finish(run) == "failed"
        assert 'its image cannot be pulled (Back-off pulling image "any")' in engine.task(run).problem
        pods_are_gone(engine, cluster)


def test_pod_that_ends_before_it_claims_is_lost_with_its_last_words(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo no such module; exit 3"]
    with engine_with(tmp_path, command=command) as (engine, _cluster):
        run = engine.trigger("contract_says")
        engine.until(lambda: engine.delivered)
        engine.until(lambda: engine.outcomes(run)[:1] == ["lost"])
        assert engine.attempts(run)[0].problem == "its pod ended before it began: exit code 3: no such module"
        assert engine.task(run).failures == 0


# -- a cluster that does not do what it is asked -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (ApiStatus(429, "TooManyRequests", "slower", retry_after=1), "answers 429: slower"),
        (ApiStatus(500, "InternalError", "etcd is away"), "answers 500: etcd is away"),
        (ApiStatus(403, "Forbidden", "exceeded quota: q"), "answers 403: exceeded quota: q"),
        (None, "does not answer"),
    ],
)
def test_refusal_for_now_keeps_tasks_queued(tmp_path: Path, status: ApiStatus | None, told: str) -> None:
    with engine_with(tmp_path) as (engine, cluster):
        cluster.faults.refuse(status, verb="create", plural="pods")
        run = engine.trigger("contract_says")
        executors = engine.engine.executor
        assert executors is not None
        engine.until(lambda: told in executors.problems.get("tested", ""))
        row = engine.task(run)
        assert (row.state, row.lost, row.failures) == ("queued", 0, 0)
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["success"]


def test_full_quota_keeps_tasks_queued_until_there_is_room(tmp_path: Path) -> None:
    with engine_with(tmp_path) as (engine, cluster):
        quota = {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {"pods": "1"}}}
        cluster.store.create(QUOTAS, quota)
        first = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(first))
        second = engine.trigger("contract_says")
        executors = engine.engine.executor
        assert executors is not None
        engine.until(lambda: "exceeded quota: q" in executors.problems.get("tested", ""))
        goes_on(engine, first)
        assert engine.finish(second) == "success"
        assert engine.outcomes(second) == ["success"]


def test_pod_that_is_refused_for_good_fails_its_attempt(tmp_path: Path) -> None:
    with engine_with(tmp_path) as (engine, cluster):
        cluster.faults.refuse(ApiStatus(422, "Invalid", 'Pod "x" is invalid: spec.volumes: no'), verb="create")
        run = engine.trigger("contract_says")
        assert engine.finish(run) == "failed"
        assert 'Pod "x" is invalid: spec.volumes: no' in engine.task(run).problem


def test_cluster_that_is_away_ends_no_attempt(tmp_path: Path) -> None:
    with engine_with(tmp_path) as (engine, cluster):
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        cluster.stop()
        other = engine.trigger("contract_says")
        executors = engine.engine.executor
        assert executors is not None
        engine.until(lambda: "does not answer" in executors.problems.get("tested", ""))
        goes_on(engine, run)
        cluster.start()
        assert engine.finish(other) == "success"
        pods_are_gone(engine, cluster)


def test_watch_that_is_too_old_begins_with_a_list(tmp_path: Path) -> None:
    with engine_with(tmp_path) as (engine, cluster):
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        cluster.faults.drop_events(99)
        cluster.store.forget_changes()
        pod_run(cluster).kill()
        cluster.faults.drop_events(0)
        goes_on(engine, run, "lost")


def test_events_that_are_dropped_are_found_by_the_next_look_at_all_pods(tmp_path: Path) -> None:
    with engine_with(tmp_path, reconcile_seconds=1) as (engine, cluster):
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        cluster.faults.drop_events(99)
        pod_run(cluster).evict("why")
        goes_on(engine, run, "lost")
        assert engine.attempts(run)[0].problem == "its pod was evicted: why"


def test_watch_that_says_nothing_is_begun_again(tmp_path: Path) -> None:
    with engine_with(tmp_path, idle_seconds=1) as (engine, cluster):
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        cluster.faults.silence_watches()
        pod_run(cluster).evict("why")
        goes_on(engine, run, "lost")
        assert engine.attempts(run)[0].problem == "its pod was evicted: why"


def test_events_in_another_order_change_nothing(tmp_path: Path) -> None:
    with engine_with(tmp_path) as (engine, cluster):
        cluster.faults.swap_events(99)
        runs = [engine.trigger("contract_says") for _ in range(3)]
        assert [engine.finish(run) for run in runs] == ["success"] * 3
        assert [engine.outcomes(run) for run in runs] == [["success"]] * 3


# -- two engines, and one after another --------------------------------------------------------------------------------


def test_pod_is_made_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    with engine_with(tmp_path) as (engine, cluster):
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        executor = engine.executor
        assert isinstance(executor, KubernetesExecutor)
        for _ in range(3):
            executor.queue_workload(engine.delivered[0])
        engine.turn(0.5)
        assert len(cluster.pods()) == 1
        goes_on(engine, run)


def test_pod_of_an_attempt_that_is_cancelled_before_it_began_is_deleted(tmp_path: Path) -> None:
    with engine_with(tmp_path) as (engine, cluster):
        cluster.kubelet.let_schedule("no node")
        run = engine.trigger("contract_says")
        engine.until(cluster.pods)
        with engine.engine.database.transaction() as connection:
            row, now = run_queries.by_id(connection, run), engine.engine.clock.now()
            run_queries.cancel(connection, row, engine.engine.versions, now, note="not wanted", channels=())
        engine.engine.reactor.wake()
        pods_are_gone(engine, cluster)
