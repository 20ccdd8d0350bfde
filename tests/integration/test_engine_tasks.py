"""Tasks through a whole engine: succeed, fail, retry, time out, skip, wait, come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from trainflow.metadata import dag_queries, pool_queries, run_queries
from trainflow.settings.project import Project
from trainflow.testing.embedded import Embedded, embedded, quiet

WriteProject = Callable[[dict[str, str]], Project]

PIPELINE = '''
import os
import signal
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from trainflow import DAG
from trainflow.authoring.sensor import BaseSensorOperator
from trainflow.authoring.operator import BaseOperator
from trainflow.operators import EmptyOperator, PythonOperator
from trainflow.operators.triggers.time import DateTimeTrigger, TimeDeltaTrigger
from trainflow.errors import FailException, SampleCheckFailed, SampleGap, SkipException

HERE = Path(__file__).parent.parent
SOON = timedelta(milliseconds=20)

def count(name):
    """How often this was called, over processes."""
    with (HERE / name).open("a") as file:
        file.write("x")
    return len((HERE / name).read_text())

with DAG("values"):
    def give():
        return {"n": 41, "text": "ü"}
    def take(given):
        return given["n"] + 1
    a = PythonOperator(task_id="give", python_callable=give)
    b = PythonOperator(task_id="take", python_callable=take, op_kwargs={"given": a.output})
    a >> b

with DAG("retries"):
    def flaky():
        if count("flaky") < 3:
            raise ValueError("not yet")
        return "at last"
    PythonOperator(task_id="flaky", python_callable=flaky, retries=2, retry_delay=SOON)

with DAG("mistake"):
    def misspelt():
        count("misspelt")
        return coutn("x")
    PythonOperator(task_id="misspelt", python_callable=misspelt, retries=5, retry_delay=SOON)

with DAG("gives_up"):
    def hopeless():
        count("hopeless")
        raise ValueError("never")
    a = PythonOperator(task_id="hopeless", python_callable=hopeless, retries=1, retry_delay=SOON)
    a >> EmptyOperator(task_id="after")

with DAG("final"):
    def final(error):
        count("final")
        raise error
    BAD = {"partition": datetime(2024, 1, 1, tzinfo=timezone.utc)}
    for name, error in {
        "told": FailException("no use"),
        "check": SampleCheckFailed("no rows", problems=("no rows",), **BAD),
        "gap": SampleGap("no partition", **BAD),
    }.items():
        PythonOperator(task_id=name, python_callable=final, op_args=[error], retries=5, retry_delay=SOON)

with DAG("too_long"):
    def endless():
        while True:
            time.sleep(60)
    PythonOperator(task_id="endless", python_callable=endless, execution_timeout=timedelta(milliseconds=50))

with DAG("runs_out"):
    def full():
        raise RuntimeError("cannot save") from OSError(28, "No space left on device", "/data")
    def nested():
        value = []
        for _ in range(300):
            value = [value]
        return value
    def no_memory():
        raise MemoryError
    for function in (full, nested, no_memory):
        PythonOperator(task_id=function.__name__, python_callable=function)

class WaitsTooLong(BaseOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(hours=1)), method_name="came", timeout=3600)

    def came(self, context, event=None):
        raise AssertionError("nothing came")

    def on_kill(self):
        count("told")

with DAG("waits_too_long"):
    WaitsTooLong(task_id="waits", execution_timeout=timedelta(milliseconds=300))

with DAG("run_too_long", dagrun_timeout=0.3):
    PythonOperator(task_id="endless", python_callable=endless)

with DAG("fails_fast", fail_fast=True):
    PythonOperator(task_id="endless", python_callable=endless)
    PythonOperator(task_id="fails", python_callable=lambda: 1 / 0)

with DAG("leaves"):
    def leave():
        if count("leave") == 1:
            os._exit(0)
    PythonOperator(task_id="leave", python_callable=leave, retries=1, retry_delay=SOON)

with DAG("killed"):
    def killed():
        if count("killed") < 3:
            os.kill(os.getpid(), signal.SIGKILL)
    PythonOperator(task_id="killed", python_callable=killed)

with DAG("swallows"):
    def swallow():
        if count("swallow") > 1:
            return "done"
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except BaseException:
            return "pretends to be done"
    PythonOperator(task_id="swallow", python_callable=swallow)

with DAG("large"):
    def much():
        return "x" * 10_000_000
    def measure(given):
        return len(given)
    a = PythonOperator(task_id="much", python_callable=much)
    b = PythonOperator(task_id="measure", python_callable=measure, op_kwargs={"given": a.output})
    a >> b

with DAG("odd_words"):
    def told():
        raise ValueError("no file \\udcff\\x00 in " + "A" * 1_000_000 + " of postgresql://me:geheim@db/x")
    PythonOperator(task_id="told", python_callable=told)

with DAG("numbers"):
    def numpy_number():
        import numpy
        return {"auc": numpy.float32(0.5), "rows": numpy.int64(3)}
    def not_a_number():
        return {"loss": [float("nan")]}
    PythonOperator(task_id="numpy_number", python_callable=numpy_number)
    PythonOperator(task_id="not_a_number", python_callable=not_a_number)

with DAG("skips"):
    def skip():
        raise SkipException("not today")
    a = PythonOperator(task_id="skip", python_callable=skip)
    b = EmptyOperator(task_id="after")
    c = EmptyOperator(task_id="later")
    d = EmptyOperator(task_id="anyway", trigger_rule="all_done")
    a >> b >> c >> d

class Waits(BaseOperator):
    def __init__(self, trigger, times=1, timeout=None, **kwargs):
        super().__init__(**kwargs)
        self.trigger, self.times, self.timeout = trigger, times, timeout
    def execute(self, context):
        self.again(context, 1)
    def again(self, context, number):
        context["ti"].xcom_push("number", number)
        self.defer(trigger=self.trigger(), method_name="came", kwargs={"number": number}, timeout=self.timeout)
    def came(self, context, event, number):
        if number < self.times:
            self.again(context, number + 1)
        return [number, bool(event), context["ti"].xcom_pull(self.task_id, key="number")]

with DAG("waits"):
    Waits(lambda: TimeDeltaTrigger(SOON), task_id="delta")
    Waits(lambda: DateTimeTrigger(datetime.now(timezone.utc) - timedelta(days=1)), task_id="past", times=3)

class Looks(BaseSensorOperator):
    def poke(self, context):
        return count("looks_" + self.task_id) >= 3

with DAG("looks"):
    Looks(task_id="looks", mode="reschedule", poke_interval=0.02)
    Looks(task_id="pokes", mode="poke", poke_interval=0.02)

with DAG("narrow", max_active_tasks=16):
    def alone():
        lock = HERE / "alone"
        lock.mkdir()
        time.sleep(0.01)
        lock.rmdir()
    for number in range(4):
        PythonOperator(task_id=f"t{number}", python_callable=alone, pool="one")

with DAG("wide", max_active_tasks=1):
    for number in range(3):
        PythonOperator(task_id=f"t{number}", python_callable=alone)

with DAG("torn"):
    from operators.waiting import Breaks
    Waits(Breaks, task_id="breaks", retries=1, retry_delay=SOON)

with DAG("late"):
    Waits(lambda: DateTimeTrigger(datetime.now(timezone.utc) + timedelta(days=1)), task_id="late", timeout=0.05)
'''
WAITING = '''
from pathlib import Path
from trainflow.authoring.trigger import BaseTrigger, TriggerEvent

class Breaks(BaseTrigger):
    """Breaks the first time."""
    def serialize(self):
        return "operators.waiting.Breaks", {}
    async def run(self):
        marker = Path(__file__).parent / "broke"
        if not marker.exists():
            marker.touch()
            raise RuntimeError("it broke")
        yield TriggerEvent("fine")
'''


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
        ("run_too_long", "dagrun_timeout: the run took longer than 0.3 s"),
        ("fails_fast", "fail_fast: another task of the run failed"),
    ],
)
def test_task_running_when_its_run_ends_is_stopped_with_reason(engine: Embedded, dag_id: str, problem: str) -> None:
    run = engine.execute(dag_id)
    assert engine.run(run).state == "failed"
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
    assert engine.finish(run) == "failed"
    problem = engine.tasks(run)["waits"].problem
    assert problem == "execution_timeout: the task took longer than 0.3 s, its waits included"
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
