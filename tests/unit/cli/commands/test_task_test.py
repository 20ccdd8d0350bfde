"""`trainflow tasks test`: one task alone, and no database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainflow.cli.commands import task_test

PIPELINE = """
from datetime import UTC, datetime

from trainflow import DAG
from trainflow.authoring.param import Param
from trainflow.authoring.sensor import BaseSensorOperator
from trainflow.errors import SkipException
from trainflow.operators import PythonOperator, TriggerDagRunOperator

def rows(ti, params, test_mode):
    ti.report_progress(5, 10)
    ti.set_note("looked")
    ti.xcom_push("extra", test_mode)
    return params["rows"] * 2

def add(ti):
    return (ti.xcom_pull("rows") or 0) + 1

def skip():
    raise SkipException("nothing to do")

def fail():
    raise ValueError("no disk")

def leave():
    raise SystemExit(3)

def interrupted():
    raise KeyboardInterrupt

class Never(BaseSensorOperator):
    def poke(self, context):
        return False

with DAG("alone", params={"rows": Param(1, type="integer")}):
    PythonOperator(task_id="rows", python_callable=rows) >> PythonOperator(task_id="add", python_callable=add)
    for function in (skip, fail, leave, interrupted):
        PythonOperator(task_id=function.__name__, python_callable=function)
    TriggerDagRunOperator(task_id="next", trigger_dag_id="alone", conf={"day": "{{ ds }}"})
    Never(task_id="wait", mode="reschedule", poke_interval=60)
"""


@pytest.fixture
def project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "alone.py").write_text(PIPELINE)
    # the logging of this process is pytest's
    monkeypatch.setattr(task_test, "_log_to_stderr", lambda: None)
    monkeypatch.setattr("sys.path", ["/nowhere", *__import__("sys").path])
    return folder


@pytest.mark.parametrize("dag", ["alone", "pipelines/alone.py"])
def test_runs_task_and_shows_what_came_of_it(project, cli, dag):
    said = cli("tasks", "test", dag, "rows", "--conf", '{"rows": 4}')
    assert said.code == 0
    assert said.out.splitlines() == ["XCom extra: true", "XCom return_value: 8", "note: looked", "success"]
    assert "progress: 5 of 10 rows" in said.err
    assert not (project / ".trainflow").exists()


def test_xcoms_are_empty_unless_given(project, cli):
    assert "XCom return_value: 1\n" in cli("tasks", "test", "alone", "add").out
    assert "XCom return_value: 42\n" in cli("tasks", "test", "alone", "add", "--xcom", "rows=41").out


@pytest.mark.parametrize(
    ("task", "code", "where", "message"),
    [
        ("skip", 0, "out", "skipped: nothing to do"),
        ("fail", 1, "err", "failed: ValueError: no disk"),
        ("leave", 1, "err", "failed: SystemExit: 3"),
        ("interrupted", 130, "err", "alone"),
        ("wait", 0, "out", "would look again in"),
    ],
)
def test_task_test_exit_code_follows_outcome(project, cli, task, code, where, message):
    said = cli("tasks", "test", "alone", task)
    assert said.code == code
    assert message in getattr(said, where)


def test_traceback_of_failure_leads_to_task(project, cli):
    err = cli("tasks", "test", "alone", "fail").err
    assert "pipelines/alone.py" in err
    assert "in fail" in err


def test_runs_that_it_would_trigger_are_only_printed(project, cli):
    said = cli("tasks", "test", "alone", "next", "--logical-date", "2024-01-31")
    assert said.code == 0
    assert "would trigger: run operator_triggered__" in said.out
    assert "{'day': '2024-01-31'}" in said.out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("alon", "rows"), "did you mean 'alone'"),
        (("alone", "row"), "did you mean 'rows'"),
        (("pipelines/none.py", "rows"), "no pipeline file"),
        (("alone", "rows", "--conf", '{"rows": "x"}'), "is not of type integer"),
        (("alone", "add", "--xcom", "rows"), "write --xcom TASK=JSON"),
        (("alone", "add", "--xcom", "rowz=1"), "did you mean 'rows'"),
        (("alone", "rows", "--set", "rows=1"), "only its params can be set"),
    ],
)
def test_task_test_wrong_input_is_refused(project, cli, arguments, problem):
    said = cli("tasks", "test", *arguments)
    assert said.code == 2
    assert problem in said.err


def test_task_test_overrides_are_applied(project, cli):
    said = cli("tasks", "test", "pipelines/alone.py", "rows", "--set", "params.rows=30")
    assert "XCom return_value: 60\n" in said.out


def test_broken_file_hides_no_other(project, cli):
    (project / "pipelines" / "aaa.py").write_text("import nothing_of_that_name\n")
    assert cli("tasks", "test", "alone", "skip").code == 0
    said = cli("tasks", "test", "missing", "skip")
    assert said.code == 2
    assert "nothing_of_that_name" in said.err


def test_values_are_json(project, cli):
    given = {"rows": [1, {"x": "ü"}]}
    assert task_test.parse_xcoms([f"a={json.dumps(given)}"]) == {"a": given}
