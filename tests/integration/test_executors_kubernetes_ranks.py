"""An attempt whose ranks are pods, under a whole engine: they are made together, meet, and go together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.integration.test_executors_kubernetes import (
    _leftover_supervisors_end,  # noqa: F401 - a fixture of every test
    engine_with,
    goes_on,
    note_of,
    pods_are_gone,
    table,
)
from tests.support.pod_clusters import pod_cluster
from trainflow.clock import SystemClock
from trainflow.executors.kubernetes.cluster import Cluster
from trainflow.executors.kubernetes.options import KubernetesOptions
from trainflow.executors.kubernetes.pod import PodPlace, pod_of
from trainflow.executors.kubernetes.pod_writer import PodWriter
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask
from trainflow.metadata.queries import run_queries
from trainflow.testing.contract_engine import ContractEngine, contract_api, contract_engine, lay_out_project, listening
from trainflow.testing.executor_engine_contract import RankContract
from trainflow.testing.kubernetes_api.kubelet import PodRun
from trainflow.testing.kubernetes_api.resources import PODS, QUOTAS, SECRETS
from trainflow.testing.kubernetes_api.server import PodApiServer

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


class TestRanks(RankContract):
    @pytest.fixture
    def engine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ContractEngine]:
        monkeypatch.setattr("trainflow.executors.kubernetes.pod_attempt.SAYS_ITSELF_SECONDS", 0.5)
        with engine_with(tmp_path) as (engine, self.cluster):
            yield engine

    def hosts(self, engine: ContractEngine, run: int) -> int:
        attempt = engine.attempts(run)[-1].attempt_id
        return sum(pod["metadata"]["labels"]["trainflow/attempt"] == attempt for pod in self.cluster.pods())

    def lose_rank(self, engine: ContractEngine, run: int, rank: int) -> None:
        rank_run(self.cluster, rank).delete(0)


FILE = "pipelines/ranks.py"
#: a task that nothing but its operator tells from one that trains: its ranks have nothing to do
CODE = """
import time
from pathlib import Path
from trainflow import DAG
from trainflow.operators import PythonOperator

HERE = Path(__file__).parent.parent

def waits():
    while not (HERE / "go").exists():
        time.sleep(0.01)
    return "went on"

with DAG("ranks"):
    PythonOperator(task_id="waits", python_callable=waits).nodes = 3
"""


@contextmanager
def ranks_with(folder: Path, **options: Any) -> Iterator[tuple[ContractEngine, PodApiServer]]:
    """An engine over a cluster, which knows a task of three ranks."""
    with engine_with(folder, **options) as (engine, cluster):
        learn(engine)
        yield engine, cluster


def learn(engine: ContractEngine) -> None:
    (engine.root / FILE).write_text(CODE)
    engine.read(FILE)


def pods_of(cluster: PodApiServer) -> dict[int, dict[str, Any]]:
    return {int(pod["metadata"]["labels"]["trainflow/rank"]): pod for pod in cluster.pods()}


def uids(cluster: PodApiServer) -> dict[int, str]:
    return {rank: pod["metadata"]["uid"] for rank, pod in pods_of(cluster).items()}


def rank_run(cluster: PodApiServer, rank: int) -> PodRun:
    return cluster.kubelet.run_of(pods_of(cluster)[rank])


def vanish(cluster: PodApiServer, rank: int) -> None:
    """Take a pod away, and all that runs in it."""
    run = rank_run(cluster, rank)
    cluster.store.remove(PODS, "default", run.name)
    run.silent = True
    run.kill()


@pytest.mark.parametrize("secret", [False, True])
def test_attempt_runs_once_all_ranks_are_there_and_its_pods_go(tmp_path: Path, secret: bool) -> None:
    with ranks_with(tmp_path, secret=secret) as (engine, cluster):
        run = engine.trigger("ranks")
        engine.until(lambda: engine.is_running(run))
        assert set(pods_of(cluster)) == {0, 1, 2}
        goes_on(engine, run)
        pods_are_gone(engine, cluster)


def test_rank_that_no_node_takes_is_told_and_those_that_vanish_are_made_again_at_no_cost(tmp_path: Path) -> None:
    with ranks_with(tmp_path) as (engine, cluster):
        cluster.kubelet.let_schedule("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
        run = engine.trigger("ranks")
        engine.until(lambda: engine.delivered)
        engine.until(lambda: "Insufficient nvidia.com/gpu); 2 more of its ranks wait" in note_of(engine, run))
        assert note_of(engine, run).startswith("rank 0 of 3: pod trainflow-")
        third = pods_of(cluster)[2]["metadata"]["name"]
        cluster.kubelet.hold(third, "0/3 nodes are available.")
        cluster.kubelet.let_schedule()
        engine.until(lambda: note_of(engine, run).startswith("rank 2 of 3: pod"))
        for rank in (2, 1, 0):
            before = uids(cluster)
            vanish(cluster, rank)
            engine.until(lambda rank=rank, before=before: uids(cluster).get(rank, before[rank]) != before[rank])
            # the others stay where they are
            assert {**uids(cluster), rank: ""} == {**before, rank: ""}
        assert not engine.is_running(run)
        cluster.kubelet.hold(third, None)
        engine.until(lambda: engine.is_running(run))
        goes_on(engine, run)
        assert (engine.task(run).lost, engine.task(run).note) == (0, None)
        pods_are_gone(engine, cluster)


def test_rank_whose_pod_is_evicted_ends_attempt_that_says_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainflow.executors.kubernetes.pod_attempt.SAYS_ITSELF_SECONDS", 0.5)
    with ranks_with(tmp_path) as (engine, cluster):
        run = engine.trigger("ranks")
        engine.until(lambda: engine.is_running(run))
        rank_run(cluster, 1).evict("The node was low on resource: memory.")
        engine.until(lambda: engine.outcomes(run)[:1] == ["lost"])
        goes_on(engine, run, "lost")
        said = "rank 1 of 3: its pod was evicted: The node was low on resource: memory"
        assert engine.attempts(run)[0].problem == said
        pods_are_gone(engine, cluster)


def test_ranks_that_find_no_room_give_back_what_they_have(tmp_path: Path) -> None:
    with ranks_with(tmp_path) as (engine, cluster):
        quota = {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {"pods": "2"}}}
        cluster.store.create(QUOTAS, quota)
        run = engine.trigger("ranks")
        executors = engine.engine.executor
        assert executors is not None
        engine.until(lambda: "exceeded quota: q" in executors.problems.get("tested", "") and cluster.pods() == [])
        row = engine.task(run)
        assert (row.state, row.lost, row.failures) == ("queued", 0, 0)
        cluster.store.remove(QUOTAS, "default", "q")
        engine.until(lambda: engine.is_running(run))
        goes_on(engine, run)


def test_ranks_of_which_one_finds_no_place_give_theirs_back_for_a_while_at_no_cost(tmp_path: Path) -> None:
    with ranks_with(tmp_path, places_seconds=0.5) as (engine, cluster):
        cluster.kubelet.let_schedule("no node")
        run = engine.trigger("ranks")
        engine.until(lambda: len(cluster.pods()) == 3)
        third = pods_of(cluster)[2]["metadata"]["name"]
        cluster.kubelet.hold(third, "0/3 nodes are available.")
        cluster.kubelet.let_schedule()
        engine.until(lambda: "its places are given back, and asked for again after 0.5 s" in note_of(engine, run))
        assert note_of(engine, run).startswith(f"rank 2 of 3: pod {third} waits: no node takes it (0/3 nodes")
        engine.until(lambda: cluster.pods() == [])
        engine.until(lambda: len(cluster.pods()) == 3)
        cluster.kubelet.hold(third, None)
        engine.until(lambda: engine.is_running(run))
        goes_on(engine, run)
        assert (engine.task(run).lost, engine.task(run).failures, len(engine.attempts(run))) == (0, 0, 1)


@pytest.mark.parametrize("begun", [False, True])
def test_cancelled_attempt_leaves_no_pod_of_any_rank(tmp_path: Path, begun: bool) -> None:
    with ranks_with(tmp_path) as (engine, cluster):
        if not begun:
            cluster.kubelet.let_schedule("no node")
        run = engine.trigger("ranks")
        engine.until(lambda: engine.is_running(run) if begun else len(cluster.pods()) == 3)
        with engine.engine.database.transaction() as connection:
            row, now = run_queries.by_id(connection, run), engine.engine.clock.now()
            run_queries.cancel(connection, row, engine.engine.versions, now, note="not wanted", channels=())
        engine.engine.reactor.wake()
        pods_are_gone(engine, cluster)


@pytest.mark.parametrize("missing", [None, 0, 2])
def test_queued_ranks_of_an_engine_that_ended_go_on_or_are_made_anew(tmp_path: Path, missing: int | None) -> None:
    with pod_cluster(tmp_path / "cluster") as (cluster, config), listening() as listener:
        project = lay_out_project(tmp_path / "project", table(config, redeliver_seconds=1), listener.getsockname()[1])
        project.home.create()
        with contract_api(project, listener):
            cluster.kubelet.let_schedule("no node")
            with contract_engine(project) as first:
                learn(first)
                run = first.trigger("ranks")
                first.until(lambda: len(cluster.pods()) == 3)
                first.engine.stop_requested = 1
            if missing is not None:
                cluster.store.remove(PODS, "default", pods_of(cluster)[missing]["metadata"]["name"])
            cluster.kubelet.let_schedule()
            (project.root / "go").touch()
            with contract_engine(project) as second:
                assert second.finish(run) == "success"
                assert second.outcomes(run) == (["success"] if missing is None else ["undelivered", "success"])
                assert (second.task(run).lost, second.task(run).failures) == (0, 0)
                pods_are_gone(second, cluster)


@pytest.mark.parametrize("nodes", [1, 3])
def test_two_schedulers_make_one_pod_and_one_secret_for_each_rank(tmp_path: Path, nodes: int) -> None:
    workload = ExecuteTask(
        AttemptKey("a"), 1, "d", "r", "t", -1, DagSource("p.py"), "/p", "/p/.trainflow", "/a.log", nodes=nodes
    )
    options, clock = KubernetesOptions(image="any", secret=True, command=["sleep", "60"]), SystemClock()
    made: list[list[tuple[int, PodPlace]]] = [[], []]

    class Events:
        """Notes what one writer says."""

        def __init__(self, number: int) -> None:
            self._number = number

        def on_made(self, workload: ExecuteTask, rank: int, place: PodPlace) -> None:
            made[self._number].append((rank, place))

        on_put_back: Callable[[Any, Any, str], None]
        on_refused = on_put_back = lambda self, workload, reason: pytest.fail(reason)

    with pod_cluster(tmp_path) as (cluster, config):
        asked = replace(options, kubeconfig=str(config))
        writers = [PodWriter(lambda: Cluster(asked, clock, tmp_path), Events(number), clock) for number in (0, 1)]
        for engine, writer in enumerate(writers):
            for rank in range(nodes):
                pod = pod_of(workload, asked, "", rank=rank, templates=[], engine=f"e{engine}", stop_grace_seconds=1)
                writer.make(workload, pod, secret=True, rank=rank)
        for writer in writers:
            writer.end()
        assert made[0] == made[1]
        assert [rank for rank, _ in made[0]] == list(range(nodes))
        assert len(cluster.pods()) == len(cluster.store.listing(SECRETS, "default")[1]) == nodes
