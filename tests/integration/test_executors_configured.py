"""Several executors in one engine: each task goes to its own, and what is wrong with one stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

import pytest

from tests.support.embedded import Embedded, embedded, quiet
from trainflow.errors import EngineError, TrainflowError
from trainflow.executors import plugins
from trainflow.executors.executor import ExecutorHost, ExecutorUnavailable
from trainflow.executors.local import LocalExecutor
from trainflow.insight.refusals import refusals
from trainflow.messages.workload import ExecuteTask
from trainflow.settings.project import Project

WriteProject = Callable[[dict[str, str]], Project]

TOML = '[executors]\nother = {type = "moody"}\nbroken = {type = "broken"}\n'
PIPELINE = """
from trainflow import DAG
from trainflow.operators import PythonOperator

def says():
    return "said"

with DAG("mixed"):
    for name in ("local", "other"):
        PythonOperator(task_id=name, python_callable=says, executor=name)
    PythonOperator(task_id="any", python_callable=says)

with DAG("breaks", default_args={"executor": "broken"}):
    PythonOperator(task_id="t", python_callable=says)

with DAG("says"):
    PythonOperator(task_id="t", python_callable=says)
"""


class Moody(LocalExecutor):
    """Runs attempts on this host, unless it says that it cannot now."""

    away: ClassVar[str | None] = None
    taken: ClassVar[list[ExecuteTask]] = []

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any]) -> Self:
        return cls()

    def queue_workload(self, workload: ExecuteTask) -> None:
        if self.away is not None:
            raise ExecutorUnavailable(self.away)
        self.taken.append(workload)
        super().queue_workload(workload)


class Broken(Moody):
    def start(self, host: ExecutorHost) -> None:
        raise EngineError("no such cluster")


@pytest.fixture
def engine(write_project: WriteProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[Embedded]:
    kinds = {"moody": f"{__name__}:Moody", "broken": f"{__name__}:Broken"}
    monkeypatch.setattr(plugins, "_registered", lambda: kinds)
    monkeypatch.setattr(Moody, "away", None)
    monkeypatch.setattr(Moody, "taken", [])
    project = write_project({"configs/trainflow.toml": TOML, "pipelines/p.py": PIPELINE})
    settings = quiet(executors={"other": {"type": "moody"}, "broken": {"type": "broken"}})
    with embedded(project, settings) as engine:
        assert engine.load() is None
        yield engine


def test_tasks_go_to_executors_they_name(engine: Embedded) -> None:
    run = engine.execute("mixed")
    assert set(engine.states(run).values()) == {"success"}
    assert {task: row.executor for task, row in engine.tasks(run).items()} == {
        "local": "local",
        "other": "other",
        "any": "local",
    }
    assert [(each.task_id, each.executor) for each in Moody.taken] == [("other", "other")]


def test_executor_that_cannot_start_keeps_its_tasks_waiting_and_no_others(engine: Embedded) -> None:
    stuck = engine.trigger("breaks")
    assert engine.run(engine.execute("says")).state == "success"
    row = engine.tasks(stuck)["t"]
    assert row.state == "scheduled"
    assert _refusals(engine)[row.id] == "executor 'broken' takes nothing: no such cluster"


def test_executor_that_is_away_keeps_its_tasks_queued_until_it_is_back(engine: Embedded) -> None:
    Moody.away = "connection refused"
    run = engine.trigger("mixed")
    engine.until(lambda: sorted(map(str, engine.states(run).values())) == ["queued", "success", "success"])
    row = engine.tasks(run)["other"]
    engine.until(lambda: _refusals(engine).get(row.id) == "executor 'other' takes nothing: connection refused")
    Moody.away = None
    assert engine.finish(run) == "success"
    assert [(each.attempt_id, each.outcome) for each in engine.attempts(run, "other")] == [(row.attempt_id, "success")]


def test_attempt_that_was_never_delivered_is_queued_anew_at_no_cost(engine: Embedded) -> None:
    Moody.away = "connection refused"
    run = engine.trigger("mixed")
    engine.until(lambda: engine.states(run).get("other") == "queued")
    first = engine.tasks(run)["other"].attempt_id
    # the engine that has it in hand dies: the next one knows only that it was queued
    executor = engine.engine.executor
    assert executor is not None
    executor._parts["other"].undelivered.clear()
    Moody.away = None
    engine.engine._scheduling.heartbeat()  # type: ignore[union-attr]
    assert engine.finish(run) == "success"
    row = engine.tasks(run)["other"]
    assert (row.lost, row.failures, row.attempt_id == first) == (0, 0, False)
    assert [each.outcome for each in engine.attempts(run, "other")] == ["undelivered", "success"]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("moodie", "executors.moodie.type: no kind of executor is called 'moodie'; did you mean 'moody'?"),
        ("gone", "the executor 'gone' (nowhere.at_all:X) cannot be imported: ModuleNotFoundError"),
        ("list", "the executor 'list' (builtins:list) is no class that inherits Executor"),
    ],
)
def test_kind_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, kind: str, told: str) -> None:
    kinds = {"moody": "x:Moody", "gone": "nowhere.at_all:X", "list": "builtins:list"}
    monkeypatch.setattr(plugins, "_registered", lambda: kinds)
    with pytest.raises(TrainflowError) as caught:
        plugins.executor_class(kind)
    assert str(caught.value).startswith(told)


def test_executor_that_is_misspelt_is_a_problem_of_the_file(engine: Embedded) -> None:
    (engine.project.root / "pipelines" / "q.py").write_text(PIPELINE.replace('"broken"', '"brokn"'))
    problem = engine.load("pipelines/q.py")
    assert problem is not None
    assert "no executor is called 'brokn'; did you mean 'broken'?" in problem.message


def _refusals(engine: Embedded) -> dict[int, str]:
    inner = engine.engine
    with inner.database.reading() as connection:
        return refusals(connection, inner.settings, inner.clock.now())
