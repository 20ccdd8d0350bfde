"""Runs that trigger their successor: one after the other, none twice, none stuck."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from tests.support.embedded import Embedded, embedded
from trainflow.settings.project import Project

WriteProject = Callable[[dict[str, str]], Project]

CHAIN = """
from trainflow import DAG
from trainflow.operators import PythonOperator, TriggerDagRunOperator
from trainflow.errors import SkipException

def more(conf, last):
    if conf["n"] >= last:
        raise SkipException("caught up")

with DAG("chain", max_active_runs=1):
    a = PythonOperator(task_id="more", python_callable=lambda dag_run, **_: more(dag_run.conf, 20))
    a >> TriggerDagRunOperator(task_id="next", trigger_dag_id="chain", conf={"n": "{{ dag_run.conf.n | int + 1 }}"})
"""
CHAIN = CHAIN.replace('conf["n"]', 'int(conf["n"])')


def test_twenty_runs_never_overlap(write_project: WriteProject) -> None:
    with embedded(write_project({"pipelines/p.py": CHAIN})) as engine:
        assert engine.load() is None
        first = engine.trigger("chain", {"n": 1})
        engine.until(lambda: engine.reached("chain", 20))
        runs = engine.runs("chain")
    assert [run.number for run in runs] == list(range(1, 21))
    assert {run.state for run in runs} == {"success"}
    assert {run.root_id for run in runs} == {first}
    assert [run.parent_id for run in runs] == [None, *(run.id for run in runs[:-1])]
    for before, after in pairwise(runs):
        assert before.ended_at <= after.started_at


SOAK = """
from datetime import timedelta
from trainflow import DAG
from trainflow.authoring.operator import BaseOperator
from trainflow.errors import SkipException
from trainflow.operators import EmptyOperator, PythonOperator, TriggerDagRunOperator
from trainflow.operators.triggers.time import TimeDeltaTrigger

class Waits(BaseOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(milliseconds=1)), method_name="came")
    def came(self, context, event):
        return event

def more(conf, last):
    if int(conf["n"]) >= last:
        raise SkipException("caught up")

with DAG("soak", max_active_runs=1):
    wait = Waits(task_id="wait")
    stage = TriggerDagRunOperator(
        task_id="stage", trigger_dag_id="stage", wait_for_completion=True, deferrable=True, poke_interval=0.01
    )
    a = PythonOperator(task_id="more", python_callable=lambda dag_run, **_: more(dag_run.conf, 100))
    wait >> stage >> a
    a >> TriggerDagRunOperator(task_id="next", trigger_dag_id="soak", conf={"n": "{{ dag_run.conf.n | int + 1 }}"})

with DAG("stage"):
    EmptyOperator(task_id="only")
"""


@pytest.mark.slow
@pytest.mark.exhaustive
def test_hundred_cycles_of_waiting_and_triggering_leave_none_stuck(write_project: WriteProject) -> None:
    with embedded(write_project({"pipelines/p.py": SOAK})) as engine:
        assert engine.load() is None
        engine.trigger("soak", {"n": 1})
        engine.until(lambda: engine.reached("soak", 100))
        assert {run.state for run in engine.runs("soak")} == {"success"}
        assert [run.state for run in engine.runs("stage")] == ["success"] * 100
        # each waited twice and resumed twice, in one attempt
        for run in engine.runs("soak"):
            assert all(len(engine.attempts(run.id, task)) == 1 for task in ("wait", "stage"))


WAITING = """
from datetime import timedelta
from pathlib import Path
from trainflow import DAG
from trainflow.operators import PythonOperator, TriggerDagRunOperator

def flaky():
    marker = Path(__file__).parent.parent / "marker"
    if not marker.exists():
        marker.touch()
        raise ValueError("the first time")

with DAG("parent"):
    for deferrable in (True, False):
        TriggerDagRunOperator(
            task_id=f"trigger_{deferrable}", trigger_dag_id="child", wait_for_completion=True, deferrable=deferrable,
            poke_interval=0.02, retries=1, retry_delay=timedelta(milliseconds=10),
        )
with DAG("child", max_active_runs=1):
    PythonOperator(task_id="flaky", python_callable=flaky)

with DAG("taken"):
    TriggerDagRunOperator(task_id="t", trigger_dag_id="child", trigger_run_id="mine", retries=0)
with DAG("nowhere"):
    TriggerDagRunOperator(task_id="t", trigger_dag_id="nothing", retries=0)
"""


@pytest.fixture
def engine(write_project: WriteProject) -> Iterator[Embedded]:
    with embedded(write_project({"pipelines/p.py": WAITING})) as engine:
        assert engine.load() is None
        yield engine


def test_failure_of_awaited_run_is_ordinary_failure(engine: Embedded) -> None:
    """The retry clears the run and waits for it again; there is one child for each task, whatever was retried."""
    parent = engine.execute("parent")
    assert engine.run(parent).state == "success", engine.describe()
    children = engine.runs("child")
    assert [child.state for child in children] == ["success", "success"]
    assert sorted(child.clear_number for child in children) == [0, 1]
    assert sorted(child.parent_task_id for child in children) == ["trigger_False", "trigger_True"]


def test_run_id_that_is_taken_fails_task(engine: Embedded) -> None:
    first = engine.execute("taken")
    assert engine.run(first).state == "success"
    second = engine.execute("taken")
    assert engine.run(second).state == "failed"
    assert "not triggered by this task" in engine.tasks(second)["t"].problem


def test_dag_that_is_not_there_fails_task(engine: Embedded) -> None:
    run = engine.execute("nowhere")
    assert "no DAG is called 'nothing'" in engine.tasks(run)["t"].problem
