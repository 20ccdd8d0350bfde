"""A chain whose tasks run without the engine: the same model as on one machine, whatever is killed on the way."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.support.faulty_proxy import Partition
from tests.support.live_project import COMMAND, WITHOUT_MLFLOW, LiveProject
from tests.support.local_brokers import local_broker
from tests.support.local_databases import LocalServer, local_mariadb, local_postgres
from tests.support.pod_clusters import pod_cluster
from tests.support.ports import free_port
from tests.support.tiny_project import FILE, NAME, assert_trained_exactly_once, digest, tiny_project
from trainflow.checkpoints.ledger.entries import SupersededAttempt
from trainflow.testing.processes import DEADLINE_SECONDS, MARK, Found, wait_for

pytestmark = pytest.mark.slow

#: two runs: something is killed in each
DAYS = 6
WORKLOADS = '{type = "workload", slots = 4}'


@contextmanager
def fleet(
    folder: Path,
    executor: str,
    samples_of: LiveProject,
    *,
    database_url: str | None = None,
    port: int | None = None,
    reached_by: int | None = None,
) -> Iterator[LiveProject]:
    """A project all of whose tasks go to one executor; `executor`: its table. What is left of it ends with it. `port`:
    of its API server, `reached_by`: the port at which workers ask it."""
    database = f'[database]\nurl = "{database_url}"\n' if database_url is not None else ""
    address = f'url = "http://127.0.0.1:{reached_by}"\n' if reached_by is not None else ""
    settings = (
        f"{database}"
        f'{WITHOUT_MLFLOW}[executor]\ndefault = "away"\n[executors]\naway = {executor}\n'
        f"[api]\nport = {port or free_port()}\n{address}"
        "[workers]\nheartbeat_seconds = 0.5\nlost_after_seconds = 4\n[engine]\nheartbeat_seconds = 0.5\n"
    )
    project = tiny_project(folder, days=DAYS, settings=settings, samples_of=samples_of)
    project.environ["TRAINFLOW__API__ENABLED"] = "true"  # the port is its own
    try:
        yield project
    finally:
        project.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> LiveProject:
    """A project that one machine has trained."""
    project = tiny_project(tmp_path_factory.mktemp("one") / "tiny", days=DAYS)
    assert project.start(FILE).code == 0
    project.close()
    return project


def supervisors(project: LiveProject) -> list[Found]:
    """Supervisors of a project's attempts."""
    return [found for found in project.processes() if "execute-workload" in found.command]


def trains_while(project: LiveProject, kill: Callable[[], bool], times: int) -> None:
    """Train, and kill something after each of the first commits."""
    running = project.begin_start(FILE)

    def has_committed(number: int) -> bool:
        assert not running.ended, running.output
        return project.committed(NAME) >= number

    for commits in range(times):
        wait_for(partial(has_committed, commits), lambda: running.output)
        wait_for(kill, lambda: running.output)
    ended = running.wait()
    assert ended.code == 0, f"{ended.output}\n{project.engine_log()}"


def test_chain_of_supervisors_that_are_killed_is_that_of_one_machine(tmp_path: Path, undisturbed: LiveProject) -> None:
    with fleet(tmp_path / "fleet", WORKLOADS, undisturbed) as project:

        def kill() -> bool:
            return any(found.kill() for found in supervisors(project)[:1])

        trains_while(project, kill, times=2)
        assert_trained_exactly_once(project, DAYS)
        assert digest(project) == digest(undisturbed)


def test_chain_over_celery_whose_worker_is_killed_is_that_of_one_machine(
    tmp_path: Path, undisturbed: LiveProject
) -> None:
    with local_broker(tmp_path / "broker") as broker:
        # a worker that is killed between taking a message and claiming its attempt: it is sent again
        executor = f'{{type = "celery", slots = 4, broker = "{broker.url}", redeliver_seconds = 3}}'
        with fleet(tmp_path / "fleet", executor, undisturbed) as project, celery_worker(project) as worker:
            trains_while(project, worker.kill, times=2)
            assert_trained_exactly_once(project, DAYS)
            assert digest(project) == digest(undisturbed)


def test_chain_over_kubernetes_whose_pods_are_killed_is_that_of_one_machine(
    tmp_path: Path, undisturbed: LiveProject
) -> None:
    with pod_cluster(tmp_path / "cluster") as (cluster, config):
        executor = f'{{type = "kubernetes", slots = 4, image = "any", kubeconfig = "{config}", secret = true}}'
        with fleet(tmp_path / "fleet", executor, undisturbed) as project:

            def kill() -> bool:
                """Kill a pod that runs, and have the watches know nothing of it."""
                running = [pod for pod in cluster.pods() if pod["status"]["phase"] == "Running"]
                if running:
                    cluster.kubelet.run_of(running[0]).kill()
                    cluster.store.forget_changes()
                return bool(running)

            trains_while(project, kill, times=2)
            assert_trained_exactly_once(project, DAYS)
            assert digest(project) == digest(undisturbed)


def test_chain_over_celery_whose_broker_is_killed_is_that_of_one_machine(
    tmp_path: Path, undisturbed: LiveProject
) -> None:
    """What was in it is gone: messages that no worker had taken are sent again."""
    with local_broker(tmp_path / "broker") as broker:
        executor = f'{{type = "celery", slots = 4, broker = "{broker.url}", redeliver_seconds = 3}}'
        with fleet(tmp_path / "fleet", executor, undisturbed) as project, celery_worker(project):

            def kill() -> bool:
                broker.stop()
                broker.start()
                return True

            trains_while(project, kill, times=2)
            assert_trained_exactly_once(project, DAYS)
            assert digest(project) == digest(undisturbed)


@pytest.mark.parametrize("server", [local_postgres, local_mariadb])
def test_chain_of_supervisors_whose_database_server_is_killed_is_that_of_one_machine(
    tmp_path: Path, undisturbed: LiveProject, server: Callable[..., AbstractContextManager[LocalServer]]
) -> None:
    with (
        server(durable=True) as database,
        fleet(tmp_path / "fleet", WORKLOADS, undisturbed, database_url=database.new_database()) as project,
    ):

        def kill() -> bool:
            if not supervisors(project):
                return False
            database.kill()
            # longer than the API server waits for it, and than an attempt may be silent
            time.sleep(5)
            database.restart()
            return True

        trains_while(project, kill, times=2)
        assert_trained_exactly_once(project, DAYS)
        assert digest(project) == digest(undisturbed)


def test_attempt_that_is_cut_off_while_another_commits_changes_nothing_and_both_are_told(
    tmp_path: Path, undisturbed: LiveProject
) -> None:
    """On another host, as far as the engine can tell: nothing but the API server connects them."""
    port = free_port()
    with (
        closing(Partition(port)) as network,
        local_broker(tmp_path / "broker") as broker,
        fleet(
            tmp_path / "fleet",
            f'{{type = "celery", slots = 4, broker = "{broker.url}"}}',
            undisturbed,
            port=port,
            reached_by=network.port,
        ) as project,
        celery_worker(project),
    ):
        project.write("hold", "")
        project.begin("standalone")
        wait_for(lambda: ready(port), project.engine_log)
        running = project.begin_start(FILE)
        wait_for(lambda: held(project) == 1, lambda: running.output + project.engine_log())
        first = training(project)["attempts"][0]["attempt_id"]
        network.cut(first)
        wait_for(lambda: held(project) == 2, lambda: running.output + project.engine_log())
        said = project.run("why", FILE).output
        assert "is training" in said
        assert "after an attempt that ended early: its worker was not heard for 4 s" in said
        # it trains on to its end, as far from the other one as from the API server
        (project.root / "hold").unlink()
        assert running.wait().code == 0, project.engine_log()
        before = (digest(project), project.committed(NAME))
        network.heal()
        wait_for(lambda: training(project)["attempts"][0]["refused_at"], "the first attempt to be refused")

        assert (digest(project), project.committed(NAME)) == before
        assert_trained_exactly_once(project, DAYS)
        assert digest(project) == digest(undisturbed)
        # the run's history
        lost, counts = training(project)["attempts"]
        assert [(each["attempt_id"] == first, each["outcome"]) for each in (lost, counts)] == [
            (True, "lost"),
            (False, "success"),
        ]
        # and that of the ledger
        checkpoint = project.checkpoints(NAME)[0]
        assert checkpoint.id == counts["attempt_id"]
        assert checkpoint.superseded == [SupersededAttempt(first, "train", "lost", lost["hostname"])]
        assert f"after train {first} (lost) on {lost['hostname']}" in project.run("checkpoints", "ledger", FILE).output


def ready(port: int) -> bool:
    """Whether an API server answers that there is a scheduler."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/ready") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def held(project: LiveProject) -> int:
    """How many attempts have come to where they wait for `hold` to go."""
    return sum(words[0] == "holding" for words in project.journal())


def training(project: LiveProject) -> dict[str, Any]:
    """What `trainflow tasks show` says of the training of the first run."""
    facts: dict[str, Any] = json.loads(project.run("tasks", "show", NAME, "1", "train", "--json").output)
    return facts


class _Worker:
    def __init__(self, project: LiveProject) -> None:
        self._project = project
        self.process = self._begin()

    def _begin(self) -> subprocess.Popen[bytes]:
        with (self._project.root / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [COMMAND, "celery", "worker", "--slots", "2"],
                cwd=self._project.root,
                env={**os.environ, MARK: self._project.mark},  # ends with the project, whatever fails
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> bool:
        """Kill it, and start another one."""
        self.process.kill()
        self.process.wait()
        self.process = self._begin()
        return True


@contextmanager
def celery_worker(project: LiveProject) -> Iterator[_Worker]:
    """A worker of the project."""
    worker = _Worker(project)
    try:
        yield worker
    finally:
        worker.process.terminate()
        worker.process.wait(DEADLINE_SECONDS)
