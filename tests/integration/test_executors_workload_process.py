"""Supervisors on this host that speak over HTTP, under a whole engine; what becomes of them, and of the API server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from msgspec.structs import replace

from tests.support.faulty_proxy import FaultyProxy, Partition
from tests.support.ports import free_port
from trainflow.bootstrap import interpreter
from trainflow.clock import SystemClock
from trainflow.executors.attempt_process import AttemptProcess
from trainflow.executors.executor import ExecutorUnavailable
from trainflow.executors.handed_attempt import WorkloadEnd
from trainflow.executors.local import LocalExecutor
from trainflow.executors.remote import _Delivered
from trainflow.executors.worker_thread import WorkerThread
from trainflow.executors.workload_process import WorkloadExecutor
from trainflow.messages.workload import WORKLOAD_VARIABLE, ExecuteTask
from trainflow.metadata.models import InstallationTable
from trainflow.metadata.queries import run_queries
from trainflow.observability import processes
from trainflow.settings.project import Project
from trainflow.testing.contract_engine import (
    LOST_AFTER_SECONDS,
    ContractEngine,
    contract_api,
    contract_engine,
    lay_out_project,
)
from trainflow.testing.executor_engine_contract import ExecutorEngineContract
from trainflow.testing.processes import DEADLINE_SECONDS, wait_for

#: real supervisors and workers, each an interpreter
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("leftover_supervisors_end")]

EXECUTOR = '{type = "workload", slots = 4}'


class TestWorkloadExecutor(ExecutorEngineContract):
    executor: ClassVar[str] = EXECUTOR

    def deliver_again(self, engine: ContractEngine, workload: ExecuteTask) -> None:
        said = supervise(workload)
        assert said.returncode == 0
        assert "not run here: " in said.stderr


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return lay_out_project(tmp_path, EXECUTOR, free_port())


def supervise(workload: ExecuteTask, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `trainflow execute-workload` to its end."""
    return subprocess.run(
        interpreter("trainflow.cli.entry", "execute-workload", *words),
        env=os.environ | {WORKLOAD_VARIABLE: msgspec.json.encode(workload).decode()} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )


def listener_of(project: Project) -> Any:
    import socket

    from trainflow.settings.load import load_settings

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", load_settings(project).api.port))
    listener.listen(128)
    return listener


def keep(engine: ContractEngine, workload: ExecuteTask) -> bool:
    """As if it had been delivered, and no worker had taken it yet."""
    executor = engine.executor
    assert isinstance(executor, WorkloadExecutor)
    executor._delivered[workload.key] = _Delivered(None, 0.0)
    return True


def supervisor_of(engine: ContractEngine, run: int) -> int:
    """The pid of the supervisor of an attempt that runs: the parent of its process."""
    return int(Path(f"/proc/{engine.task(run).pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_supervisor_that_is_killed_takes_its_attempt_along_and_it_runs_again(project: Project) -> None:
    project.home.create()
    with contract_api(project, listener_of(project)), contract_engine(project) as engine:
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        held = engine.task(run)
        os.kill(supervisor_of(engine, run), signal.SIGKILL)
        engine.until(lambda: not processes.is_alive(held.pid, held.process_started))
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["lost", "success"]
        assert engine.attempts(run)[0].problem == "its supervisor was killed (signal 9)"


def test_supervisor_that_is_told_to_stop_has_its_attempt_preempted(project: Project) -> None:
    project.home.create()
    with contract_api(project, listener_of(project)), contract_engine(project) as engine:
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        os.kill(supervisor_of(engine, run), signal.SIGTERM)
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["preempted", "success"]
        assert (engine.task(run).lost, engine.task(run).failures) == (0, 0)


def test_attempt_goes_on_while_api_is_away_and_reports_late(project: Project) -> None:
    project.home.create()
    with contract_engine(project) as engine:
        with contract_api(project, listener_of(project)):
            run = engine.trigger("contract_waits")
            engine.until(lambda: engine.is_running(run))
        (engine.root / "go").touch()
        # longer than it takes to be lost: silence that no server could hear says nothing
        engine.pass_time(LOST_AFTER_SECONDS + 1)
        assert engine.task(run).state == "running"
        with contract_api(project, listener_of(project)):
            assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["success"]


def through(engine: ContractEngine, port: int) -> None:
    """Have the first attempt reach the API server by way of a proxy."""

    def detour(workload: ExecuteTask) -> bool:
        engine.intercept = lambda _workload: False
        executor = engine.executor
        type(executor).queue_workload(executor, replace(workload, api_url=f"http://127.0.0.1:{port}"))
        return True

    engine.intercept = detour


def test_attempt_that_was_cut_off_while_another_committed_changes_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.home.create()
    with contract_api(project, listener_of(project)), contract_engine(project) as engine:
        proxy = Partition(engine.engine.settings.api.port)
        through(engine, proxy.port)
        # nor does what its executor says reach it: an attempt that is not waited for any more is told to stop
        monkeypatch.setattr(engine.executor, "withdraw", lambda _key: None)
        run = engine.trigger("contract_waits")
        # what is claimed has not heard so yet: cut off then, it is refused before it runs, which history does not tell
        engine.until((engine.root / "waiting").exists)
        held = engine.task(run)
        proxy.cut()
        engine.pass_time_until(lambda: engine.outcomes(run)[0] is not None)
        engine.until(lambda: len(engine.delivered) == 2 and engine.is_running(run))
        assert processes.is_alive(held.pid, held.process_started), "unreachable is not dead"
        assert engine.outcomes(run) == ["lost", None]
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"
        after = engine.task(run)
        proxy.heal()
        engine.until(lambda: not processes.is_alive(held.pid, held.process_started))
        proxy.close()
        assert engine.task(run) == after
        assert engine.outcomes(run) == ["lost", "success"]
        engine.until(lambda: engine.attempts(run)[0].refused_at is not None)
        assert engine.attempts(run)[1].refused_at is None
        assert "it is refused when it comes back" in engine.attempts(run)[0].problem


def test_supervisor_that_stood_still_while_another_attempt_ran_changes_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.home.create()
    with contract_api(project, listener_of(project)), contract_engine(project) as engine:
        # its host is paused: nothing reaches it
        monkeypatch.setattr(engine.executor, "withdraw", lambda _key: None)
        run = engine.trigger("contract_waits")
        engine.until((engine.root / "waiting").exists)
        held, still = engine.task(run), supervisor_of(engine, run)
        os.kill(still, signal.SIGSTOP)
        try:
            engine.pass_time_until(lambda: engine.outcomes(run)[0] is not None)
            engine.until(lambda: len(engine.delivered) == 2 and engine.is_running(run))
            # its child ends meanwhile, with an outcome that it is to hand on
            (engine.root / "go").touch()
            assert engine.finish(run) == "success"
            after = engine.task(run)
        finally:
            os.kill(still, signal.SIGCONT)
        engine.until(lambda: not processes.is_alive(held.pid, held.process_started))
        engine.until(lambda: engine.attempts(run)[0].refused_at is not None)
        assert engine.task(run) == after
        assert engine.outcomes(run) == ["lost", "success"]


@pytest.mark.parametrize("seed", range(3))
def test_messages_that_are_lost_doubled_cut_and_late_change_no_result(project: Project, seed: int) -> None:
    project.home.create()
    with contract_api(project, listener_of(project)), contract_engine(project) as engine:
        # every message: there are few
        proxy = FaultyProxy(engine.engine.settings.api.port, seed, share=1.0)
        through(engine, proxy.port)
        run = engine.trigger("contract_says")
        assert engine.finish(run) == "success"
        proxy.close()
        assert proxy.done
        assert engine.outcomes(run) == ["success"]
        assert engine.xcom(run) == "first"


def test_worker_with_other_code_names_both_versions(project: Project, tmp_path: Path) -> None:
    project.home.create()
    with contract_api(project, listener_of(project)), contract_engine(project) as engine:
        engine.intercept = lambda workload: keep(engine, workload)
        run = engine.trigger("contract_says")
        engine.until(lambda: engine.delivered)
        other = lay_out_project(tmp_path / "other", EXECUTOR, 1)
        pipeline = other.root / "pipelines" / "contract.py"
        pipeline.write_text(pipeline.read_text().replace("PythonOperator(", "PythonOperator(retries=1, "))
        workload = engine.delivered[-1]
        said = supervise(workload, "--project", str(other.root))
        assert said.returncode == 0, said.stderr
        problem = engine.attempts(run)[-1].problem
        assert "gives version sha256:" in problem
        assert f"its run is pinned to {workload.version}" in problem


def test_same_code_at_another_path_is_same_version(project: Project, tmp_path: Path) -> None:
    project.home.create()
    with contract_api(project, listener_of(project)), contract_engine(project) as engine:
        engine.intercept = lambda workload: keep(engine, workload)
        run = engine.trigger("contract_says")
        engine.until(lambda: engine.delivered)
        other = lay_out_project(tmp_path / "other", EXECUTOR, 1)
        said = supervise(engine.delivered[-1], "--project", str(other.root))
        assert said.returncode == 0, said.stderr
        assert engine.finish(run) == "success"


def test_claim_that_is_refused_is_told_and_one_that_is_superseded_is_well(project: Project) -> None:
    project.home.create()
    with contract_api(project, listener_of(project)), contract_engine(project) as engine:
        engine.intercept = lambda workload: keep(engine, workload)
        run = engine.trigger("contract_says")
        engine.until(lambda: engine.delivered)
        workload = engine.delivered[-1]
        forged = supervise(replace(workload, claim_secret=f"tfclaim_{'x' * 43}"))
        assert (forged.returncode, "this claim secret is not that of the attempt" in forged.stderr) == (1, True)
        assert engine.task(run).state == "queued"
        with engine.engine.database.transaction() as connection:
            run_queries.clear(connection, run, engine.engine.clock.now())
        superseded = supervise(workload)
        assert (superseded.returncode, "not run here: " in superseded.stderr) == (0, True), superseded.stderr


def test_attempt_of_database_that_was_made_anew_saves_and_stops_at_first_answer(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainflow.execution.http_api_client.LAST_WORDS_SECONDS", 0.0)
    told, tell = [], AttemptProcess.tell
    monkeypatch.setattr(AttemptProcess, "tell", lambda self, number: (told.append(number), tell(self, number)))
    project.home.create()
    with contract_api(project, listener_of(project)), contract_engine(project) as engine:
        engine.intercept = lambda workload: keep(engine, workload)
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.delivered)
        workload, ends = engine.delivered[-1], list[WorkloadEnd]()
        worker = WorkerThread(tmp_path / "worker", SystemClock(), grace=timedelta(seconds=DEADLINE_SECONDS))
        thread = threading.Thread(target=lambda: ends.append(worker.execute(workload, engine.root)))
        thread.start()
        engine.until(lambda: engine.is_running(run))
        with engine.engine.database.transaction() as connection:
            connection.execute(InstallationTable.table.update().values(id="another"))
        engine.until(lambda: ends)
        worker.request_stop()
        worker.join()
    assert not ends[0].done
    assert "is that of another installation" in ends[0].message
    assert told == [signal.SIGTERM]


def test_worker_whose_host_gives_no_process_runs_the_attempt_when_it_comes_again(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gives_nothing(_executor: LocalExecutor, _workload: ExecuteTask) -> None:
        raise ExecutorUnavailable("no process can be started: Resource temporarily unavailable")

    project.home.create()
    with contract_api(project, listener_of(project)), contract_engine(project) as engine:
        engine.intercept = lambda workload: keep(engine, workload)
        run = engine.trigger("contract_says")
        engine.until(lambda: engine.delivered)
        workload, ends = engine.delivered[-1], list[WorkloadEnd]()
        worker = WorkerThread(tmp_path / "worker", SystemClock(), grace=timedelta(seconds=DEADLINE_SECONDS))
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(LocalExecutor, "queue_workload", gives_nothing)
            ends.append(worker.execute(workload, engine.root))
        threading.Thread(target=lambda: ends.append(worker.execute(workload, engine.root))).start()
        assert engine.finish(run) == "success"
        engine.until(lambda: len(ends) == 2)
        worker.request_stop()
        worker.join()
    assert [end.done for end in ends] == [False, True]
    assert "it cannot be run here: no process can be started" in ends[0].message


def test_worker_that_is_told_to_stop_during_its_claim_ends_and_claims_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainflow.executors.worker._LAST_SECONDS", 0.2)
    project.home.create()
    with contract_api(project, listener_of(project)), contract_engine(project) as engine:
        engine.intercept = lambda workload: keep(engine, workload)
        run, ends = engine.trigger("contract_waits"), list[WorkloadEnd]()
        engine.until(lambda: engine.delivered)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(DEADLINE_SECONDS)
            workload = replace(engine.delivered[-1], api_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
            worker = WorkerThread(tmp_path / "worker", SystemClock(), grace=timedelta(seconds=0.2))
            thread = threading.Thread(target=lambda: ends.append(worker.execute(workload, engine.root)))
            thread.start()
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(1)
                worker.request_stop()
                worker.join()
                thread.join(DEADLINE_SECONDS)
                assert not ends[0].done
                # a thread that waits for the answer would keep the process
                wait_for(lambda: not _attempt_threads(), "the threads of the attempt are gone")
        assert engine.task(run).state == "queued"


def _attempt_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("attempt_")]


def test_secrets_of_control_plane_and_of_attempt_are_not_where_code_of_users_runs(project: Project) -> None:
    pipeline = project.root / "pipelines" / "contract.py"
    pipeline.write_text(pipeline.read_text().replace('return "first"', "return dict(os.environ)"))
    project.home.create()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINFLOW__API__TOKEN", "hush" * 6)
        patch.setenv("TRAINFLOW__DATABASE__URL", f"sqlite:///{project.home.database}")
        with contract_api(project, listener_of(project)), contract_engine(project) as engine:
            run = engine.trigger("contract_says")
            assert engine.finish(run) == "success"
            seen = repr(engine.xcom(run))
            assert engine.delivered[0].claim_secret.startswith("tfclaim_")
    assert "TRAINFLOW_ATTEMPT" in seen
    for secret in ("hush", "TRAINFLOW__DATABASE__URL", "tfclaim_", "tftoken_"):
        assert secret not in seen


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        ([], {WORKLOAD_VARIABLE: ""}, "no workload: give it as the argument, with --file, or in TRAINFLOW_WORKLOAD"),
        (["{"], {}, "the workload is no JSON of a task to execute"),
        (['{"type": "execute_task"}'], {}, "none that this version of trainflow understands (Object missing required"),
        (["--file", "/nowhere"], {}, "/nowhere cannot be read"),
    ],
)
def test_workload_that_cannot_be_read(words: list[str], environment: dict[str, str], told: str) -> None:
    said = subprocess.run(
        interpreter("trainflow.cli.entry", "execute-workload", *words),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, told in said.stderr) == (2, True), said.stderr
