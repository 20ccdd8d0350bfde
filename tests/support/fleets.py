"""Projects whose tasks run on other hosts, as far as their engine can tell: through each kind of executor."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.support.live_project import COMMAND, WITHOUT_MLFLOW, LiveProject
from tests.support.local_brokers import local_broker
from tests.support.local_databases import LocalServer
from tests.support.pod_clusters import pod_cluster
from tests.support.ports import free_port
from tests.support.tiny_project import FILE, NAME, tiny_project
from tests.support.warm_commands import WITHOUT_PANDAS
from trainflow.testing.processes import DEADLINE_SECONDS, MARK, wait_for
from trainflow.testing.ray_jobs_api import RayJobsServer

#: two runs: something is killed in each
DAYS = 6
WORKLOADS = '{type = "workload", slots = 4}'
#: longer than an API server waits for its database, and than an attempt of such a project may be silent
AWAY_SECONDS = 5.0


@contextmanager
def fleet(
    folder: Path,
    executor: str,
    samples_of: LiveProject,
    *,
    database_url: str | None = None,
    port: int | None = None,
    reached_by: int | None = None,
    days: int = DAYS,
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
    project = tiny_project(folder, days=days, settings=settings, samples_of=samples_of)
    project.environ["TRAINFLOW__API__ENABLED"] = "true"  # the port is its own
    try:
        yield project
    finally:
        project.close()


#: kills something; whether it was there to be killed
Kill = Callable[[], bool]


def trains_while(project: LiveProject, *kills: Kill, times: int) -> None:
    """Train, and after each of the first commits kill one thing after another."""
    running = project.begin_start(FILE)

    def has_committed(number: int) -> bool:
        assert not running.ended, running.output
        return project.committed(NAME) >= number

    for commits in range(times):
        wait_for(partial(has_committed, commits), lambda: running.output)
        for kill in kills:
            wait_for(kill, lambda: running.output)
    ended = running.wait()
    assert ended.code == 0, f"{ended.output}\n{project.engine_log()}"


class CeleryWorker:
    """A worker in a process of its own."""

    def __init__(self, project: LiveProject) -> None:
        self._project = project
        self.process = self._begin()

    def _begin(self) -> subprocess.Popen[bytes]:
        with (self._project.root / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [COMMAND, "celery", "worker", "--slots", "2"],
                cwd=self._project.root,
                env={**os.environ, **WITHOUT_PANDAS, MARK: self._project.mark},  # ends with the project, whatever fails
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
def celery_worker(project: LiveProject) -> Iterator[CeleryWorker]:
    """A worker of the project."""
    worker = CeleryWorker(project)
    try:
        yield worker
    finally:
        worker.process.terminate()
        worker.process.wait(DEADLINE_SECONDS)


class Elsewhere(NamedTuple):
    """Where attempts run: the table of the executor, and what runs beside the project for that, which hands out how to
    kill what attempts depend on."""

    table: str
    workers: Callable[[LiveProject], AbstractContextManager[Sequence[Kill]]]


@contextmanager
def _workloads(_folder: Path) -> Iterator[Elsewhere]:
    @contextmanager
    def workers(project: LiveProject) -> Iterator[Sequence[Kill]]:
        def kill_supervisor() -> bool:
            return any(found.kill() for found in project.processes() if "execute-workload" in found.command)

        yield [kill_supervisor]

    yield Elsewhere(WORKLOADS, workers)


@contextmanager
def _celery(folder: Path) -> Iterator[Elsewhere]:
    with local_broker(folder / "broker") as broker:

        def restart_broker() -> bool:
            """What was in it is gone: messages that no worker had taken are sent again."""
            broker.stop()
            broker.start()
            return True

        @contextmanager
        def workers(project: LiveProject) -> Iterator[Sequence[Kill]]:
            with celery_worker(project) as worker:
                yield [worker.kill, restart_broker]

        # a worker that is killed between taking a message and claiming its attempt: it is sent again
        yield Elsewhere(f'{{type = "celery", slots = 4, broker = "{broker.url}", redeliver_seconds = 3}}', workers)


@contextmanager
def _kubernetes(folder: Path) -> Iterator[Elsewhere]:
    with pod_cluster(folder / "cluster") as (cluster, config):

        def kill_pod() -> bool:
            """Kill a pod that runs, and have the watches know nothing of it."""
            running = [pod for pod in cluster.pods() if pod["status"]["phase"] == "Running"]
            if running:
                cluster.kubelet.run_of(running[0]).kill()
                cluster.store.forget_changes()
            return bool(running)

        table = f'{{type = "kubernetes", slots = 4, image = "any", kubeconfig = "{config}", secret = true}}'
        yield Elsewhere(table, lambda _project: nullcontext([kill_pod]))


@contextmanager
def _ray(folder: Path) -> Iterator[Elsewhere]:
    command = f"{sys.executable} -P -m trainflow.cli.entry execute-workload"
    with RayJobsServer(folder / "ray") as ray:
        table = f'{{type = "ray", slots = 4, address = "{ray.url}", command = "{command}", poll_seconds = 0.2}}'
        yield Elsewhere(table, lambda _project: nullcontext(()))


#: kinds of executors whose attempts speak over HTTP
EXECUTORS: Mapping[str, Callable[[Path], AbstractContextManager[Elsewhere]]] = {
    "workload": _workloads,
    "celery": _celery,
    "kubernetes": _kubernetes,
    "ray": _ray,
}


class DatabaseKills:
    """Kills the database server under a training, and starts it again later."""

    def __init__(self, database: LocalServer, project: LiveProject) -> None:
        self._database, self._project = database, project
        self._noted = 0

    def __call__(self) -> bool:
        """Do it, once something was trained on since the last time; False: not yet."""
        noted = len(self._project.journal())
        if noted <= self._noted:
            return False
        self._database.kill()
        time.sleep(AWAY_SECONDS)
        self._database.restart()
        self._noted = noted
        return True
