"""Attempts over Celery and Redis, with a real worker, under a whole engine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from redis import Redis

import trainflow
from tests.support.local_brokers import LocalBroker, local_broker
from trainflow.bootstrap import interpreter, version
from trainflow.executors.celery import CeleryExecutor
from trainflow.messages.workload import ExecuteTask
from trainflow.settings.project import Project
from trainflow.testing.contract_engine import ContractEngine
from trainflow.testing.executor_engine_contract import ExecutorEngineContract
from trainflow.testing.processes import DEADLINE_SECONDS

#: real supervisors and workers, each an interpreter
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("leftover_supervisors_end")]


class CeleryWorker:
    """`trainflow celery worker` as a process."""

    def __init__(self, project: Project, log: Path) -> None:
        self._project = project
        self.log = self._log = log
        #: what it has in its environment besides
        self.environ: dict[str, str] = {}
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as output:
            return subprocess.Popen(
                interpreter("trainflow.cli.entry", "celery", "worker", "--slots", "4"),
                cwd=self._project.root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **self.environ},
            )

    def kill(self) -> None:
        """Kill it, and start another one."""
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def stop(self) -> int:
        """Tell it to stop; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(self._log.read_text()) from None


def package_of_links(site: Path) -> Path:
    """A package that is this one, but for its top module, which is returned."""
    package = Path(trainflow.__file__).parent
    (site / "trainflow").mkdir(parents=True)
    for each in package.iterdir():
        if each.name not in ("__init__.py", "__pycache__"):
            (site / "trainflow" / each.name).symlink_to(each)
    top = site / "trainflow" / "__init__.py"
    top.write_text((package / "__init__.py").read_text())
    return top


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    with local_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


class TestCeleryExecutor(ExecutorEngineContract):
    @pytest.fixture(autouse=True)
    def _broker(self, broker: LocalBroker) -> None:
        type(self).executor = f'{{type = "celery", slots = 4, broker = "{broker.url}", redeliver_seconds = 5}}'

    @contextmanager
    def workers(self, project: Project) -> Iterator[CeleryWorker]:
        self.worker = CeleryWorker(project, project.home.path / "worker.log")
        try:
            yield self.worker
        finally:
            self.worker.stop()

    def deliver_again(self, engine: ContractEngine, workload: ExecuteTask) -> None:
        """The same message once more, as a broker does whose visibility time-out has passed."""
        executor = engine.executor
        assert isinstance(executor, CeleryExecutor)
        executor.deliver(workload)

    def test_message_is_gone_from_redis_when_it_is_taken(self, engine: ContractEngine, broker: LocalBroker) -> None:
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        with closing(Redis(port=broker.port)) as client:
            assert not [key for key in client.keys("*") if b"unacked" in key or key == b"default"]
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"

    def test_worker_that_is_killed_loses_its_attempt_which_runs_again(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        self.worker.kill()
        engine.pass_time_until(lambda: engine.outcomes(run)[0] is not None)
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["lost", "success"]

    def test_worker_that_is_told_to_stop_has_its_attempt_preempted(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        os.kill(self.worker.process.pid, signal.SIGTERM)
        assert self.worker.process.wait(DEADLINE_SECONDS) == 0
        engine.until(lambda: engine.outcomes(run)[0] is not None)
        assert engine.outcomes(run)[0] == "preempted"
        self.worker.process = self.worker._start()
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"
        assert (engine.task(run).lost, engine.task(run).failures) == (0, 0)

    @pytest.mark.exhaustive
    def test_worker_whose_package_is_installed_anew_goes_on_as_the_new_build(
        self, engine: ContractEngine, tmp_path: Path
    ) -> None:
        self.worker.stop()
        top = package_of_links(tmp_path / "site")
        self.worker.environ["PYTHONPATH"] = str(tmp_path / "site")
        self.worker.process = self.worker._start()
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        top.write_text(top.read_text().replace(f'"{version()}"', '"99.0"'))
        # what it has trained goes on as the other build, in the same process
        engine.until(lambda: engine.outcomes(run)[0] is not None)
        assert engine.outcomes(run)[0] == "preempted"
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"
        assert (engine.task(run).lost, engine.task(run).failures) == (0, 0)
        assert self.worker.process.poll() is None
        said = self.worker.log.read_text()
        assert f"trainflow {version()} was replaced where it is installed: this worker stops in good order" in said
        assert said.partition("was replaced")[2].count(" ready.") == 1

    def test_broker_that_is_away_keeps_tasks_queued_and_loses_nothing(
        self, engine: ContractEngine, broker: LocalBroker
    ) -> None:
        broker.stop()
        run = engine.trigger("contract_says")
        executors = engine.engine.executor
        assert executors is not None
        engine.until(lambda: "tested" in executors.problems)
        assert "the broker redis://127.0.0.1" in executors.problems["tested"]
        row = engine.task(run)
        assert (row.state, row.lost, row.failures) == ("queued", 0, 0)
        broker.start()
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["success"]
