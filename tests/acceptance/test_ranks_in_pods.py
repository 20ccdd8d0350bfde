"""Three ranks in three pods train one split: programs and pods are killed at any step, a node is drained, a rank fails:
the model has seen each row once, in order, and no pod is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.ranked_project import (
    FILE,
    PIPELINE,
    ROWS,
    assert_trained,
    attempts,
    begun,
    disturb,
    lay_out_ranked,
    outcomes,
)
from tests.support.live_project import WITHOUT_MLFLOW, LiveProject, Running
from tests.support.pod_clusters import pod_cluster
from tests.support.ports import free_port
from trainflow.testing.kubernetes_api.kubelet import PodRun
from trainflow.testing.kubernetes_api.resources import SECRETS
from trainflow.testing.kubernetes_api.server import PodApiServer
from trainflow.testing.processes import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

#: the ranks are in pods, all other tasks on the engine's host
IN_PODS = PIPELINE.replace("nodes: 3,", "nodes: 3, executor: cluster,")
#: rank 0 waits to be told to stop, at whichever step an attempt begins
HOLDS = ("hold-0-0", "hold-0-1", "hold-0-2")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[PodApiServer, Path]]:
    with pod_cluster(tmp_path / "cluster") as found:
        yield found


@pytest.fixture
def ranked(projects: Callable[..., LiveProject], cluster: tuple[PodApiServer, Path]) -> LiveProject:
    table = f'{{type = "kubernetes", slots = 4, image = "any", kubeconfig = "{cluster[1]}", secret = true}}'
    project = projects(
        "ranked",
        settings=f"{WITHOUT_MLFLOW}[executors]\nlocal = {{}}\ncluster = {table}\n[api]\nport = {free_port()}\n"
        "[workers]\nheartbeat_seconds = 0.5\nlost_after_seconds = 4\n[engine]\nheartbeat_seconds = 0.5\n",
    )
    project.environ["TRAINFLOW__API__ENABLED"] = "true"  # the port is its own
    return lay_out_ranked(project, IN_PODS)


def rank_pod(cluster: PodApiServer, rank: int) -> PodRun:
    """What runs the pod of a rank; those of attempts before may be about to go."""
    there = [pod for pod in cluster.pods() if "deletionTimestamp" not in pod["metadata"]]
    running = [pod for pod in there if pod["status"]["phase"] == "Running"]
    (pod,) = (each for each in running if each["metadata"]["labels"]["trainflow/rank"] == str(rank))
    return cluster.kubelet.run_of(pod)


def agent_pid(run: PodRun) -> int:
    process = run.containers[0].process
    assert process is not None
    return process.pid


def wait_until_held(project: LiveProject, running: Running, *, attempt: int, last: bool) -> None:
    """Wait until all ranks of this attempt, counted from 1, have begun, and rank 0 waits to be told to stop. The next
    attempt is held as well unless this is the `last` one."""
    disturbances = project.root / "disturbances"

    def held() -> bool:
        assert not running.ended, running.output
        return len(project.journal()) == 3 * attempt and len(list(disturbances.glob("hold*"))) < len(HOLDS)

    wait_for(held, lambda: f"a rank that holds:\n{running.output}")
    if last:
        for left in disturbances.glob("hold*"):
            left.unlink()
    else:
        disturb(project, *HOLDS)


def nothing_is_left(cluster: PodApiServer) -> None:
    wait_for(lambda: cluster.pods() == [], "the pods are gone")
    assert cluster.store.listing(SECRETS, "default")[1] == []


def test_ranks_in_pods_killed_at_each_step_train_each_row_once(
    ranked: LiveProject, cluster: tuple[PodApiServer, Path]
) -> None:
    made: set[str] = set()
    server = cluster[0]
    disturb(ranked, "kill-1-0", "kill-0-1", "kill-2-2")
    running = ranked.begin_start(FILE)

    def ended() -> bool:
        made.update(pod["metadata"]["name"].rpartition("-")[2] for pod in server.pods())
        return running.ended

    wait_for(ended, "the chain is trained")
    assert running.wait().code == 0, running.output
    assert_trained(ranked)
    assert set(outcomes(ranked)[:-1]) == {"part_lost"}
    assert outcomes(ranked)[-1] == "success"
    assert made == {"0", "1", "2"}


def test_pod_of_any_rank_that_is_killed_ends_attempt_and_next_goes_on(
    ranked: LiveProject, cluster: tuple[PodApiServer, Path]
) -> None:
    disturb(ranked, *HOLDS)
    running = ranked.begin_start(FILE)
    for rank in range(3):
        wait_until_held(ranked, running, attempt=rank + 1, last=rank == 2)
        rank_pod(cluster[0], rank).kill("OOMKilled" if rank == 2 else None)
    ended = running.wait()
    assert ended.code == 0, ended.output
    assert outcomes(ranked) == ["lost", "part_lost", "part_lost", "success"]
    cause = "; rank 2 of 3: its container was killed because memory ran out (OOMKilled: pod trainflow-"
    assert cause in (attempts(ranked)[2][1] or "")
    assert_trained(ranked)
    # each goes on from the newest save that was kept: of the step before, of none where it was killed with the save in
    # its hands, or of this one where the first rank got to it while the others ended it
    rows = [begun(ranked)[3 * attempt] for attempt in range(4)]
    assert begun(ranked) == [each for each in rows for _ in range(3)]
    assert rows[0] == (0, 3)
    assert all(after in {before, (before[0] + 15, 3), (ROWS, 3)} for before, after in pairwise(rows))


def test_pod_of_any_rank_whose_node_is_drained_has_first_rank_save(
    ranked: LiveProject, cluster: tuple[PodApiServer, Path]
) -> None:
    disturb(ranked, *HOLDS)
    running = ranked.begin_start(FILE)
    for attempt, rank in enumerate((0, 2), 1):
        wait_until_held(ranked, running, attempt=attempt, last=attempt == 2)
        assert_no_secret_of_ranks_is_where_code_of_users_runs(ranked, cluster[0])
        os.kill(agent_pid(rank_pod(cluster[0], rank)), signal.SIGTERM)
    ended = running.wait()
    assert ended.code == 0, ended.output
    assert outcomes(ranked) == ["preempted", "preempted", "success"]
    assert_trained(ranked)
    # what was gathered at the step in which it was told is in the save
    assert begun(ranked) == [(0, 3)] * 3 + [(15, 3)] * 3 + [(30, 3)] * 3


def assert_no_secret_of_ranks_is_where_code_of_users_runs(ranked: LiveProject, cluster: PodApiServer) -> None:
    """While the ranks run."""
    pods: list[dict[str, Any]] = cluster.pods()
    assert "tfclaim_" not in str(pods)
    pids = [int(words[4]) for words in ranked.journal()[-3:]] + [
        agent_pid(rank_pod(cluster, rank)) for rank in range(3)
    ]
    for pid in pids:
        for name in ("environ", "cmdline"):
            assert b"tfclaim_" not in Path(f"/proc/{pid}/{name}").read_bytes()


def test_rank_in_pod_that_fails_is_named(ranked: LiveProject, cluster: tuple[PodApiServer, Path]) -> None:
    disturb(ranked, "fail-1-0")
    ended = ranked.start(FILE, "--set", "train.retries=0")
    assert ended.code == 1
    assert "ValueError: on purpose (rank 1 of 3, exit code 1)" in ended.output
    assert outcomes(ranked) == ["failed"]
    ended = ranked.start(FILE, "--set", "train.nodes=2")
    assert ended.code == 0, ended.output
    assert_trained(ranked)
    assert begun(ranked) == [(0, 3)] * 3 + [(0, 2)] * 2
    nothing_is_left(cluster[0])
