"""Several of each part over one database: work is shared, and whatever dies or stands still, the others go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.integration.engine_project import WAITING
from tests.support.live_project import Running
from tests.support.local_databases import LocalPostgres
from tests.support.several_schedulers import SharedDatabase, shared_database
from trainflow.metadata.models import TriggerTable
from trainflow.metadata.queries import run_queries
from trainflow.testing.processes import MARK, ProcessKind, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

WORK = """
import os

from operators.waiting import FileTrigger
from trainflow import DAG
from trainflow.authoring.operator import BaseOperator
from trainflow.operators import BashOperator, EmptyOperator

with DAG("chain", max_active_runs=1):
    EmptyOperator(task_id="a")

with DAG("waits"):
    BashOperator(
        task_id="sleeps", bash_command="echo began; until [ -e $TRAINFLOW_TEST_GO ]; do sleep 0.02; done", retries=0
    ) >> EmptyOperator(task_id="after")


class Defers(BaseOperator):
    def execute(self, context):
        self.defer(trigger=FileTrigger(os.environ["TRAINFLOW_TEST_GO"]), method_name="came")

    def came(self, context, event=None):
        return "came"


with DAG("defers"):
    Defers(task_id="waits")
"""
LATER = """
from trainflow import DAG
from trainflow.operators import EmptyOperator

with DAG("later"):
    EmptyOperator(task_id="a")
"""
PLAIN = LATER.replace("later", "plain")
RUNS = 200


@pytest.fixture
def shared(tmp_path: Path, postgres: LocalPostgres) -> Iterator[SharedDatabase]:
    with shared_database(tmp_path, postgres.new_database(), WORK) as shared:
        for project in shared.projects:
            project.environ["TRAINFLOW_TEST_GO"] = str(tmp_path / "go")
            project.write("operators/__init__.py", "")
            project.write("operators/waiting.py", WAITING)
        yield shared


def begin(shared: SharedDatabase, *parts: str) -> list[Running]:
    """Start these parts, each of them twice: once in each home."""
    started = [project.begin(*part.split()) for part in parts for project in shared.projects]
    for each in started:
        each.wait_for_output("is alive|listens")
    return started


def test_two_hundred_runs_of_one_chain_start_in_order_over_two_schedulers(shared: SharedDatabase) -> None:
    begin(shared, "scheduler")
    shared.projects[0].begin("dag-processor")
    shared.wait_for_dag("chain")
    shared.record_changes_of_state()
    ids = shared.add_runs("chain", RUNS)
    runs = shared.wait_for_end(ids)
    assert Counter(run.state for run in runs) == {"success": RUNS}
    # one after the other: each begins only when the one before has ended
    assert shared.changes_of_state() == [(run, state) for run in ids for state in ("running", "success")]
    attempts = shared.attempts(ids)
    assert len(attempts) == RUNS
    assert [attempt.dag_run_id for attempt in attempts] == [run.id for run in runs]
    assert {attempt.service_id for attempt in attempts} <= {row.id for row in shared.services("scheduler")}
    # what one home's log is called says nothing of that home
    assert not any(Path(attempt.log_name).is_absolute() for attempt in attempts)


def test_scheduler_that_is_killed_is_replaced_within_its_lease(shared: SharedDatabase, tmp_path: Path) -> None:
    one, other = begin(shared, "scheduler")
    shared.projects[0].begin("dag-processor")
    shared.wait_for_dag("waits")
    ids = shared.add_runs("waits", 6)
    wait_for(lambda: len([each for each in shared.attempts(ids) if each.started_at]) == 6, "six attempts to begin")
    assert len(Counter(attempt.service_id for attempt in shared.attempts(ids))) == 2
    one.kill()
    (tmp_path / "go").touch()
    assert Counter(run.state for run in shared.wait_for_end(ids)) == {"success": 6}
    assert not other.ended
    wait_for(lambda: [row.pid for row in shared.services("scheduler")] == [other.pid], "the lease of the first to end")


def _stopping_scheduler(shared: SharedDatabase) -> subprocess.Popen[bytes]:
    """A scheduler that stops itself when it has queued something and is about to hand it over."""
    project = shared.projects[0]
    code = (
        "import os, signal, sys\n"
        "from trainflow.scheduler.task_queue import TaskQueue\n"
        "real = TaskQueue.hand_over\n"
        "def hand_over(self, now):\n"
        "    if self._handover and not os.path.exists('stopped'):\n"
        "        open('stopped', 'w').close()\n"
        "        os.kill(os.getpid(), signal.SIGSTOP)\n"
        "    real(self, now)\n"
        "TaskQueue.hand_over = hand_over\n"
        "from trainflow.cli.entry import main\n"
        "sys.argv = ['trainflow', 'scheduler']\n"
        "sys.exit(main())\n"
    )
    with (project.root / "stopping.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=project.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, MARK: project.mark, **project.environ},
        )


def test_scheduler_that_stood_still_hands_over_nothing_that_is_no_longer_its_own(
    shared: SharedDatabase, tmp_path: Path
) -> None:
    """It has queued a task when it is stopped; the other takes that over and has it run; then it goes on."""
    stopped = _stopping_scheduler(shared)
    wait_for(lambda: shared.services("scheduler"), "the first scheduler")
    shared.projects[0].begin("dag-processor")
    shared.wait_for_dag("chain")
    ids = shared.add_runs("chain")
    wait_for((shared.projects[0].root / "stopped").exists, "the scheduler to stop itself")
    (own,) = shared.services("scheduler")
    (before,) = shared.attempts(ids)

    shared.projects[1].begin("scheduler").wait_for_output("is alive")
    (run,) = shared.wait_for_end(ids)
    assert run.state == "success"
    assert own.id not in {row.id for row in shared.services("scheduler")}
    settled = [tuple(attempt) for attempt in shared.attempts(ids)]
    assert len(settled) == 2
    taken = [attempt for attempt in shared.attempts(ids) if attempt.attempt_id != before.attempt_id]
    assert [attempt.service_id != own.id for attempt in taken] == [True]

    stopped.send_signal(signal.SIGCONT)
    wait_for(lambda: own.id in {row.id for row in shared.services("scheduler")}, "the first scheduler to go on")
    # and it goes on with what is its own from then on
    again = shared.add_runs("chain", 8)
    assert Counter(each.state for each in shared.wait_for_end(again)) == {"success": 8}
    assert [tuple(attempt) for attempt in shared.attempts(ids)] == settled
    stopped.terminate()
    stopped.wait()


def test_scheduler_stopped_while_its_attempt_runs_changes_nothing_afterwards(
    shared: SharedDatabase, tmp_path: Path
) -> None:
    one = shared.projects[0].begin("scheduler")
    one.wait_for_output("is alive")
    shared.projects[0].begin("dag-processor")
    shared.wait_for_dag("waits")
    ids = shared.add_runs("waits")
    wait_for(lambda: [each for each in shared.attempts(ids) if each.started_at], "the attempt to begin")
    (own,) = shared.services("scheduler")
    one.signal(signal.SIGSTOP)
    shared.projects[1].begin("scheduler").wait_for_output("is alive")
    wait_for(lambda: own.id not in {row.id for row in shared.services("scheduler")}, "the lease of the first to end")
    # its attempt dies meanwhile: the other one, which watches it now, has it run again
    for found in shared.projects[0].processes(ProcessKind.CHILD):
        found.kill()
    (tmp_path / "go").touch()
    (run,) = shared.wait_for_end(ids)
    settled = [tuple(attempt) for attempt in shared.attempts(ids)]
    one.signal(signal.SIGCONT)
    wait_for(lambda: own.id in {row.id for row in shared.services("scheduler")}, "the first scheduler to go on")
    again = shared.add_runs("chain", 4)
    assert Counter(each.state for each in shared.wait_for_end(again)) == {"success": 4}
    assert [tuple(attempt) for attempt in shared.attempts(ids)] == settled
    assert tuple(shared.runs(ids)[0]) == tuple(run)


def test_run_that_another_home_queues_starts_at_once(tmp_path: Path, postgres: LocalPostgres) -> None:
    """The engine hears of it from the database: by itself it would look an hour later."""
    with shared_database(tmp_path, postgres.new_database(), PLAIN) as shared:
        here, there = shared.projects
        here.environ["TRAINFLOW__ENGINE__POLL_SECONDS"] = "3600"
        here.begin("standalone").wait_for_output("is alive")
        shared.wait_for_dag("plain")
        assert there.ask("runs", "trigger", "plain", "--run-id", "r").code == 0
        with_run = run_queries.get
        row = shared.rows(lambda connection: with_run(connection, "plain", "r"))
        assert [run.state for run in shared.wait_for_end([row.id])] == ["success"]


def test_triggerer_and_dag_processor_that_are_killed_are_replaced(shared: SharedDatabase, tmp_path: Path) -> None:
    parts = begin(shared, "scheduler", "dag-processor", "triggerer")
    shared.wait_for_dag("chain")
    ids = shared.add_runs("defers", 4)
    wait_for(lambda: len(_watched(shared)) == 4 and all(_watched(shared)), "the waits to be watched")
    wait_for(lambda: len(shared.services("triggerer")) == 2, "both triggerers")
    watcher = {row.pid: row.id for row in shared.services("triggerer")}
    # the one that watches most of them, and the processor of its home
    victim = max(parts[4:], key=lambda part: _watched(shared).count(watcher[part.pid]))
    home = parts.index(victim) - 4
    for each in (victim, parts[2 + home]):
        each.kill()
    (tmp_path / "go").touch()
    assert Counter(run.state for run in shared.wait_for_end(ids)) == {"success": 4}
    wait_for(lambda: len(shared.services("triggerer")) == len(shared.services("dag_processor")) == 1, "their leases")
    for project in shared.projects:
        project.write("pipelines/later.py", LATER)
    shared.wait_for_dag("later")
    assert Counter(run.state for run in shared.wait_for_end(shared.add_runs("later", 2))) == {"success": 2}


def _watched(shared: SharedDatabase) -> list[int | None]:
    """Which triggerer watches each wait."""
    asked = select(TriggerTable.table.c.service_id)
    return list(shared.rows(lambda connection: connection.execute(asked).scalars().all()))
