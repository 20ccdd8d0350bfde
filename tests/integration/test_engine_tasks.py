"""Tasks through a whole engine: succeed, fail, retry, time out, skip, wait, come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from tests.integration.task_pipelines import PIPELINE, WAITING
from tests.support.embedded import Embedded, embedded, quiet
from trainflow.metadata.queries import dag_queries, pool_queries, run_queries
from trainflow.settings.project import Project
from trainflow.testing.processes import wait_for

WriteProject = Callable[[dict[str, str]], Project]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """One engine for all tests here: they use DAGs of their own."""
    from trainflow.settings.project import project_at

    root = tmp_path_factory.mktemp("engine") / "project"
    for name, text in {
        "configs/trainflow.toml": "",
        "pipelines/p.py": PIPELINE,
        "operators/__init__.py": "",
        "operators/waiting.py": WAITING,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    with embedded(project_at(root), quiet(engine={"lost_attempts": 5})) as engine:
        problem = engine.load()
        assert problem is None, problem
        yield engine


def test_values_go_from_task_to_task(engine: Embedded) -> None:
    run = engine.execute("values")
    assert engine.run(run).state == "success"
    assert engine.xcoms(run) == {"give": {"n": 41, "text": "ü"}, "take": 42}


def test_task_that_fails_then_succeeds_is_retried(engine: Embedded) -> None:
    run = engine.execute("retries")
    assert engine.run(run).state == "success"
    assert engine.xcoms(run) == {"flaky": "at last"}
    attempts = engine.attempts(run, "flaky")
    assert [(attempt.try_number, attempt.outcome) for attempt in attempts] == [
        (1, "failed"),
        (2, "failed"),
        (3, "success"),
    ]
    assert attempts[0].problem == "ValueError: not yet"


def test_task_programming_error_is_not_retried_and_names_line(engine: Embedded) -> None:
    run = engine.execute("mistake")
    assert engine.states(run) == {"misspelt": "failed"}
    assert (engine.project.root / "misspelt").read_text() == "x"
    [problem] = [each.problem for each in engine.attempts(run, "misspelt")]
    assert problem.startswith("NameError: name 'coutn' is not defined; did you mean 'count'? (pipelines/p.py:")


def test_task_that_shows_value_of_secret_param_is_masked_in_log_and_problem(engine: Embedded) -> None:
    """The value stands alone, without its key: only because the task was given it is it known for a secret."""
    run = engine.execute("passwords")
    [attempt] = engine.attempts(run, "show")
    logs = "".join(path.read_text() for path in (engine.project.home.path / "logs" / "passwords").rglob("*.log"))
    assert attempt.problem.endswith("refused: ***")
    assert ("it is ***" in logs, "correct-horse" in logs) == (True, False)


def test_task_that_always_fails_uses_its_retries(engine: Embedded) -> None:
    run = engine.execute("gives_up")
    assert engine.run(run).state == "failed"
    assert engine.states(run) == {"hopeless": "failed", "after": "upstream_failed"}
    assert (engine.project.root / "hopeless").read_text() == "xx"


def test_task_fail_exception_is_final(engine: Embedded) -> None:
    run = engine.execute("final")
    assert engine.states(run) == {"told": "failed", "check": "failed", "gap": "failed"}
    assert (engine.project.root / "final").read_text() == "xxx"
    problems = {name: task.problem for name, task in engine.tasks(run).items()}
    assert problems == {"told": "no use", "check": "no rows", "gap": "no partition"}


def test_task_beyond_execution_timeout_fails(engine: Embedded) -> None:
    run = engine.execute("too_long")
    assert engine.states(run) == {"endless": "failed"}
    assert "execution_timeout" in engine.tasks(run)["endless"].problem


@pytest.mark.parametrize(
    ("dag_id", "problem"),
    [
        ("run_too_long", "dagrun_timeout: the run took longer than 3600 s"),
        ("fails_fast", "fail_fast: another task of the run failed"),
    ],
)
def test_task_running_when_its_run_ends_is_stopped_with_reason(engine: Embedded, dag_id: str, problem: str) -> None:
    run = engine.trigger(dag_id)
    if dag_id == "run_too_long":
        engine.until(lambda: engine.states(run).get("endless") == "running")
        engine.advance(timedelta(hours=1))
    assert engine.finish(run) == "failed"
    assert (engine.tasks(run)["endless"].state, engine.tasks(run)["endless"].problem) == ("failed", problem)
    (attempt,) = engine.attempts(run, "endless")
    assert attempt.outcome == "cancelled"
    assert attempt.ended_at is not None


def test_exit_code_0_is_no_success(engine: Embedded) -> None:
    run = engine.execute("leaves")
    assert engine.states(run) == {"leave": "success"}
    first, _second = engine.attempts(run, "leave")
    assert first.outcome == "failed"
    assert "exit code 0 without reporting an outcome" in first.problem


def test_being_killed_uses_up_no_retry(engine: Embedded) -> None:
    run = engine.execute("killed")
    assert engine.states(run) == {"killed": "success"}
    assert [attempt.outcome for attempt in engine.attempts(run, "killed")] == ["lost", "lost", "success"]
    row = engine.tasks(run)["killed"]
    assert (row.failures, row.lost) == (0, 0)


def test_task_told_to_stop_never_succeeds(engine: Embedded) -> None:
    """Being told raises in the task; a task that swallows it has not done what it was for, and is not blamed."""
    run = engine.execute("swallows")
    assert [attempt.outcome for attempt in engine.attempts(run, "swallow")] == ["preempted", "success"]
    assert engine.xcoms(run) == {"swallow": "done"}
    assert engine.tasks(run)["swallow"].failures == 0


def test_xcom_of_ten_megabytes_arrives(engine: Embedded) -> None:
    run = engine.execute("large")
    assert engine.run(run).state == "success", engine.describe()
    assert engine.xcoms(run)["measure"] == 10_000_000


def test_task_exception_message_is_kept_whatever_it_holds(engine: Embedded) -> None:
    problem = engine.tasks(engine.execute("odd_words"))["told"].problem
    assert problem.startswith("ValueError: no file \\udcff\\x00 in AAA")
    assert problem.endswith("postgresql://me:***@db/x")
    assert len(problem) < 5_000


def test_numbers_arrive_as_they_are_or_not_at_all(engine: Embedded) -> None:
    run = engine.execute("numbers")
    assert engine.states(run) == {"numpy_number": "success", "not_a_number": "failed"}
    assert engine.xcoms(run)["numpy_number"] == {"auc": 0.5, "rows": 3}
    assert "nan has no form in JSON" in engine.tasks(run)["not_a_number"].problem


def test_task_skip_cascades(engine: Embedded) -> None:
    run = engine.execute("skips")
    assert engine.run(run).state == "success"
    assert engine.states(run) == {"skip": "skipped", "after": "skipped", "later": "skipped", "anyway": "success"}
    assert engine.tasks(run)["skip"].note == "not today"


def test_task_out_of_resources_is_told_in_one_sentence(engine: Embedded) -> None:
    run = engine.trigger("runs_out")
    assert engine.finish(run) == "failed"
    problems = {name: task.problem for name, task in engine.tasks(run).items()}
    assert problems["full"] == "RuntimeError: cannot save: the disk is full: make room on it"
    assert problems["no_memory"].startswith("MemoryError: memory ran out: train on smaller splits")
    assert "XCom 'return_value' of task 'nested' is no JSON value" in problems["nested"]
    assert "nested more than 100 times" in problems["nested"]


def test_execution_timeout_counts_wait_and_ends_it(engine: Embedded) -> None:
    run = engine.trigger("waits_too_long")
    engine.until(lambda: engine.states(run).get("waits") == "deferred")
    engine.advance(timedelta(hours=1))
    assert engine.finish(run) == "failed"
    problem = engine.tasks(run)["waits"].problem
    assert problem == "execution_timeout: the task took longer than 3600 s, its waits included"
    assert (engine.project.root / "told").read_text() == "x"


def test_task_deferral_resumes_with_event(engine: Embedded) -> None:
    run = engine.execute("waits")
    assert engine.run(run).state == "success", engine.describe()
    assert engine.xcoms(run) == {"delta": [1, True, 1], "past": [3, True, 3]}
    # however often it waits, it is one attempt
    assert [attempt.outcome for attempt in engine.attempts(run, "past")] == ["success"]
    assert engine.tasks(run)["past"].deferral_number == 3


def test_task_sensors_succeed_and_reschedule(engine: Embedded) -> None:
    run = engine.execute("looks")
    assert engine.run(run).state == "success"
    assert engine.tasks(run)["looks"].reschedules == 2
    assert len(engine.attempts(run, "pokes")) == 1


def test_pool_of_one(engine: Embedded) -> None:
    with engine.engine.database.transaction() as connection:
        pool_queries.put(connection, "one", 1, description="", include_deferred=False)
    run = engine.execute("narrow")
    assert set(engine.states(run).values()) == {"success"}


def test_max_active_tasks(engine: Embedded) -> None:
    run = engine.execute("wide")
    assert set(engine.states(run).values()) == {"success"}


def test_trigger_that_breaks_fails_its_task_which_is_tried_again(engine: Embedded) -> None:
    run = engine.execute("torn")
    assert engine.run(run).state == "success", engine.describe()
    first, second = engine.attempts(run, "breaks")
    assert (first.outcome, second.outcome) == ("failed", "success")
    assert "it broke" in first.problem


def test_wait_has_deadline(engine: Embedded) -> None:
    run = engine.execute("late")
    assert engine.states(run) == {"late": "failed"}
    assert "imeout" in engine.tasks(run)["late"].problem


def test_pausing_and_unpausing(engine: Embedded) -> None:
    database = engine.engine.database
    with database.transaction() as connection:
        dag_queries.pause(connection, "values", True)
    held = engine.trigger("values")
    other = engine.execute("skips")
    assert engine.run(other).state == "success"
    assert engine.run(held).state == "queued"
    with database.transaction() as connection:
        dag_queries.pause(connection, "values", False)
    engine.engine.reactor.wake()
    assert engine.finish(held) == "success"


def test_clearing_runs_it_again(engine: Embedded) -> None:
    run = engine.execute("values")
    with engine.engine.database.transaction() as connection:
        run_queries.clear(connection, run, engine.engine.clock.now(), ["take"])
    engine.engine.reactor.wake()
    assert engine.finish(run) == "success"
    assert [len(engine.attempts(run, task)) for task in ("give", "take")] == [1, 2]
    assert engine.run(run).clear_number == 1


def test_engine_after_end_leaves_no_processes(engine: Embedded) -> None:
    executor = engine.engine.executor
    engine.until(lambda: not executor.running())
    assert list(engine.project.home.outcomes.iterdir()) == []


def test_imports_of_task_after_its_first_run_are_made_ahead(write_project: WriteProject) -> None:
    """A chain that is caught up ends before its trainer: nothing of the model is imported for it."""
    heavy = (
        "import os, pathlib\n"
        "with open(pathlib.Path(__file__).with_name('imports.txt'), 'a') as file:\n"
        "    file.write(f'{os.getpid()}\\n')\n"
        "def run():\n    pass\n"
    )
    text = (
        "from trainflow import DAG, SkipException\n"
        "from trainflow.operators import PythonOperator\n"
        "def look(dag_run):\n"
        "    if not dag_run.conf.get('new'):\n"
        "        raise SkipException('caught up')\n"
        "with DAG('p'):\n"
        "    look = PythonOperator(task_id='look', python_callable=look)\n"
        "    look >> PythonOperator(task_id='train', python_callable='operators.heavy:run')\n"
    )
    project = write_project({"pipelines/p.py": text, "operators/__init__.py": "", "operators/heavy.py": heavy})
    imports = project.root / "operators" / "imports.txt"
    with embedded(project, quiet()) as engine:
        engine.load()
        engine.execute("p")
        engine.execute("p")
        assert not imports.exists()
        assert engine.engine.executor is not None
        assert engine.engine.executor.warm_process is not None
        worker = engine.engine.executor.warm_process.pid
        engine.execute("p", {"new": True})
        # it imports once nothing is asked of it
        wait_for(lambda: str(worker) in imports.read_text().split(), "the worker to import it")
        engine.execute("p", {"new": True})
        # once by the task itself, once for all that come after
        assert imports.read_text().split().count(str(worker)) == 1
        assert len(imports.read_text().split()) == 2
