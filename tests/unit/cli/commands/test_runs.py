from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import inspect

from tests.support.control_plane import ControlPlane, empty_task
from trainflow.messages.execution_api import OutcomeState, Refused, TriggeredRun
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.queries import dag_queries

RUN_KEYS = {
    "dag_id",
    "run_id",
    "number",
    "state",
    "run_type",
    "triggered_by",
    "conf",
    "logical_date",
    "run_after",
    "queued_at",
    "started_at",
    "ended_at",
    "seconds",
    "note",
    "clear_number",
    "mlflow_run_id",
}


def play(
    plane: ControlPlane, outcomes: dict[str, OutcomeState] | None = None, triggers: dict[str, str] | None = None
) -> list[ExecuteTask]:
    """Play every task that is handed out, until none is any more. `triggers`: task → id of the run it triggers."""
    played = []
    plane.scheduler.sweep()
    while workloads := plane.tick():
        for workload in workloads:
            name = (triggers or {}).get(workload.task_id)
            runs = [TriggeredRun("d", name)] if name else []
            plane.play(workload, (outcomes or {}).get(workload.task_id, OutcomeState.SUCCESS), triggered_runs=runs)
        played += workloads
    return played


class TestList:
    def test_newest_first_with_documented_keys(self, plane, cli):
        plane.add_run("d", "first")
        plane.add_run("d", "second")
        rows = cli("runs", "list", "--json").json
        assert [row["run_id"] for row in rows] == ["second", "first"]
        assert set(rows[0]) == RUN_KEYS
        assert rows[0]["seconds"] is None

    def test_list_filters_by_dag_and_state(self, plane, cli):
        plane.add_dag("other", empty_task("x"))
        plane.add_run("d", "mine")
        plane.add_run("other", "theirs")
        assert [row["run_id"] for row in cli("runs", "list", "d", "--json").json] == ["mine"]
        assert cli("runs", "list", "--state", "failed", "--json").json == []

    def test_list_for_people_is_a_table(self, plane, cli):
        plane.add_run("d", "first")
        said = cli("runs", "list")
        assert said.code == 0
        assert "first" in said.out
        assert "queued" in said.out

    def test_list_without_runs_says_so(self, plane, cli):
        assert cli("runs", "list", "d").out == "no run of d yet\n"

    @pytest.mark.parametrize(
        ("arguments", "hint"),
        [
            (("list", "e"), "no DAG is called 'e'"),
            (("list", "--state", "sucess"), "did you mean 'success'"),
            (("show", "d", "forst"), "did you mean 'first'"),
            (("show", "dd", "first"), "did you mean 'd'"),
            (("show", "d", "7"), "no run '7'"),
            (("cancel", "d", "nothing"), "no run 'nothing'"),
        ],
    )
    def test_list_of_unknown_names_is_wrong_input(self, plane, cli, arguments, hint):
        plane.add_run("d", "first")
        said = cli("runs", *arguments)
        assert said.code == 2
        assert hint in said.err


class TestShow:
    def test_run_and_its_relatives(self, plane, cli):
        plane.add_run("d", "parent")
        (workload,) = plane.tick()
        plane.play(workload, triggered_runs=[TriggeredRun("d", "child")])
        parent = cli("runs", "show", "d", "parent", "--json").json
        child = cli("runs", "show", "d", "child", "--json").json
        extra = {"version", "path", "overrides", "parent", "children", "tasks", "store"}
        assert set(parent) == RUN_KEYS | extra
        assert parent["children"] == [{"dag_id": "d", "run_id": "child", "state": "queued"}]
        assert child["parent"] == {"dag_id": "d", "run_id": "parent", "task_id": "a"}
        assert [task["task_id"] for task in parent["tasks"]] == ["a", "b", "c"]

    @pytest.mark.parametrize("name", ["scheduled-long-name", "1", "latest", "scheduled-l"])
    def test_show_accepts_every_name_of_a_run(self, plane, cli, name):
        plane.add_run("d", "scheduled-long-name")
        assert cli("runs", "show", "d", name, "--json").json["run_id"] == "scheduled-long-name"

    def test_beginning_that_two_runs_share(self, plane, cli):
        plane.add_run("d", "day1")
        plane.add_run("d", "day2")
        said = cli("runs", "show", "d", "day")
        assert (said.code, "more than one run" in said.err) == (2, True)

    def test_show_for_people_prints_text(self, plane, cli):
        plane.add_run("d", "first")
        plane.tick()
        said = cli("runs", "show", "d", "first")
        assert "first (#1 of d)" in said.out
        assert "waits for a" in said.out


class TestTrigger:
    def test_queues_and_tells_engine(self, plane, cli, nudged):
        said = cli("runs", "trigger", "d", "--run-id", "mine", "--conf", '{"rows": 5}', "--note", "try")
        assert said.code == 0
        assert "no engine is alive" in said.out
        (row,) = cli("runs", "list", "--json").json
        assert (row["run_id"], row["state"], row["conf"], row["note"]) == ("mine", "queued", {"rows": 5}, "try")
        assert nudged == [plane.project.home.socket_path]

    def test_trigger_with_json_prints_run(self, plane, cli):
        facts = cli("runs", "trigger", "d", "--logical-date", "2024-01-31", "--json").json
        assert set(facts) == RUN_KEYS
        assert facts["run_id"].startswith("manual__")
        assert facts["logical_date"] == "2024-01-31T00:00:00Z"

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (("--conf", '{"rows": "many"}'), "DAG 'd': param 'rows': 'many' is not of type integer"),
            (("--conf", "{rows"), "--conf is not JSON"),
            (("--conf", "[1]"), "must be a JSON object"),
            (("--run-id", "a b"), "cannot name a run"),
            (("--logical-date", "monday"), "--logical-date monday: 'monday' is not a date; write a date (2013-01-01)"),
        ],
    )
    def test_trigger_with_wrong_input_makes_no_run(self, plane, cli, nudged, arguments, problem):
        said = cli("runs", "trigger", "d", *arguments)
        assert said.code == 2
        assert problem in said.err
        assert cli("runs", "list", "--json").json == []
        assert nudged == []

    def test_id_that_is_taken(self, plane, cli):
        plane.add_run("d", "mine")
        said = cli("runs", "trigger", "d", "--run-id", "mine")
        assert (said.code, "has a run 'mine' already" in said.err) == (1, True)

    def test_trigger_of_paused_dag_says_so(self, plane, cli):
        with plane.database.transaction() as connection:
            dag_queries.pause(connection, "d", True)
        assert "trainflow dags unpause d" in cli("runs", "trigger", "d").out


class TestCancel:
    def test_running_run(self, plane, cli, nudged):
        run = plane.add_run("d", "first")
        (workload,) = plane.tick()
        plane.claim(workload)
        facts = cli("runs", "cancel", "d", "first", "--note", "wrong data", "--json").json
        assert set(facts) == RUN_KEYS
        assert (facts["state"], facts["note"]) == ("failed", "wrong data")
        assert plane.states(run) == {"a": "failed", "b": "skipped", "c": "skipped"}
        assert plane.task(run, "a").problem == "wrong data"
        assert nudged == [plane.project.home.socket_path]

    def test_report_of_what_ran_is_stale(self, plane, cli):
        run = plane.add_run("d", "first")
        (workload,) = plane.tick()
        plane.claim(workload)
        cli("runs", "cancel", "d", "first")
        reply = plane.report(workload, triggered_runs=[TriggeredRun("d", "next")])
        assert isinstance(reply, Refused)
        assert plane.states(run)["a"] == "failed"
        assert [row["run_id"] for row in cli("runs", "list", "--json").json] == ["first"]

    def test_queued_run(self, plane, cli):
        plane.add_run("d", "first")
        assert cli("runs", "cancel", "d", "first").code == 0
        assert plane.tick() == []
        assert cli("runs", "show", "d", "first", "--json").json["state"] == "failed"

    def test_next_run_of_dag_starts(self, plane, cli):
        plane.add_run("d", "first")
        second = plane.add_run("d", "second")
        plane.tick()
        assert plane.run(second).state == "queued"
        cli("runs", "cancel", "d", "first")
        plane.scheduler.sweep()
        plane.tick()
        assert plane.run(second).state == "running"

    def test_cancel_of_ended_run_is_refused(self, plane, cli):
        run = plane.add_run("d", "first")
        play(plane)
        said = cli("runs", "cancel", "d", "first")
        assert said.code == 1
        assert "has ended (success): nothing was changed" in said.err
        assert plane.run(run).state == "success"

    def test_history_says_so(self, plane, cli):
        plane.add_run("d", "first")
        (workload,) = plane.tick()
        plane.claim(workload)
        cli("runs", "cancel", "d", "first")
        (attempt,) = cli("tasks", "show", "d", "first", "a", "--json").json["attempts"]
        assert attempt["outcome"] == "cancelled"
        assert attempt["ended_at"] is not None


class TestClear:
    def test_task_and_what_waits_for_it(self, plane, cli, nudged):
        run = plane.add_run("d", "first")
        play(plane)
        (facts,) = cli("runs", "clear", "d", "first", "--task", "b", "--json").json
        assert facts == {"dag_id": "d", "run_id": "first", "number": 1, "state": "queued", "cleared": ["b", "c"]}
        assert plane.states(run) == {"a": "success", "b": None, "c": None}
        assert plane.run(run).started_at is None
        assert nudged == [plane.project.home.socket_path]

    def test_clear_with_task_clears_that_task_only(self, plane, cli):
        run = plane.add_run("d", "first")
        play(plane)
        cli("runs", "clear", "d", "first", "--task", "b", "--only")
        assert plane.states(run) == {"a": "success", "b": None, "c": "success"}

    def test_clear_failed_includes_what_waits_for_it(self, plane, cli):
        run = plane.add_run("d", "first")
        play(plane, {"b": OutcomeState.FAILED})
        assert plane.states(run) == {"a": "success", "b": "failed", "c": "upstream_failed"}
        (facts,) = cli("runs", "clear", "d", "first", "--failed", "--json").json
        assert facts["cleared"] == ["b", "c"]
        plane.scheduler.sweep()
        assert [workload.task_id for workload in plane.tick()] == ["b"]

    def test_clear_failed_without_failures_does_nothing(self, plane, cli, nudged):
        run = plane.add_run("d", "first")
        play(plane)
        said = cli("runs", "clear", "d", "first", "--failed")
        assert (said.code, "no task has failed" in said.err) == (2, True)
        assert plane.run(run).state == "success"

    def test_unknown_task_clears_nothing_of_any_run(self, plane, cli):
        runs = [plane.add_run("d", "first"), plane.add_run("d", "second")]
        play(plane)
        said = cli("runs", "clear", "d", "first", "second", "--task", "bb")
        assert (said.code, "did you mean 'b'" in said.err) == (2, True)
        assert [plane.run(run).state for run in runs] == ["success", "success"]

    def test_cleared_runs_start_in_order_of_chain(self, plane, cli):
        for name in ("first", "second", "third"):
            plane.add_run("d", name)
        play(plane)
        plane.add_run("d", "fourth")
        facts = cli("runs", "clear", "d", "third", "1", "second", "--json").json
        assert [one["number"] for one in facts] == [1, 2, 3]
        started = [workload.run_id for workload in play(plane) if workload.task_id == "a"]
        assert started == ["first", "second", "third", "fourth"]

    def test_task_that_triggers_finds_run_it_has_triggered(self, plane, cli):
        first = plane.add_run("d", "first")
        (a,) = plane.tick()
        plane.play(a, triggered_runs=[TriggeredRun("d", "successor")])
        play(plane)
        cli("runs", "clear", "d", "first", "--task", "a", "--only")
        played = play(plane, triggers={"a": "successor"})
        assert [(workload.run_id, workload.task_id) for workload in played] == [("first", "a")]
        assert plane.states(first)["a"] == "success"
        assert [row["run_id"] for row in cli("runs", "list", "--json").json] == ["successor", "first"]

    def test_clear_of_running_task_makes_its_report_stale(self, plane, cli):
        run = plane.add_run("d", "first")
        (workload,) = plane.tick()
        plane.claim(workload)
        assert cli("runs", "clear", "d", "first").code == 0
        assert isinstance(plane.report(workload), Refused)
        assert plane.states(run)["a"] is None
        plane.scheduler.sweep()
        (again,) = plane.tick()
        assert again.key != workload.key
        outcomes = [each["outcome"] for each in cli("tasks", "show", "d", "first", "a", "--json").json["attempts"]]
        assert sorted(outcomes, key=str) == [None, "cleared"]


def test_runs_outside_project_is_wrong_input(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    said = cli("runs", "list")
    assert (said.code, "trainflow init DIR" in said.err) == (2, True)


class TestDryRun:
    def test_cancel_says_what_would_end_and_changes_nothing(self, plane, cli, nudged):
        run = plane.add_run("d", "first")
        (workload,) = plane.tick()
        plane.claim(workload)
        before = rows_of_database(plane)
        said = cli("runs", "cancel", "d", "first", "--dry-run")
        assert said.out == "run first (#1) of d would be cancelled: a would fail; b, c would be skipped\n"
        assert (rows_of_database(plane), nudged) == (before, [])
        cli("runs", "cancel", "d", "first")
        assert plane.states(run) == {"a": "failed", "b": "skipped", "c": "skipped"}

    def test_cancel_of_ended_run_is_refused(self, plane, cli):
        plane.add_run("d", "first")
        play(plane)
        said = cli("runs", "cancel", "d", "first", "--dry-run")
        assert (said.code, "has ended (success): nothing was changed" in said.err) == (1, True)

    @pytest.mark.parametrize(
        "words", [("runs", "clear", "d", "first", "--task", "b"), ("tasks", "clear", "d", "first", "b")]
    )
    def test_clear_says_what_would_run_again_and_changes_nothing(self, plane, cli, nudged, words):
        run = plane.add_run("d", "first")
        play(plane)
        before = rows_of_database(plane)
        assert cli(*words, "--dry-run").out == "would clear run first (#1) of d: b, c\n"
        assert (rows_of_database(plane), nudged) == (before, [])
        assert cli(*words).out == "cleared run first (#1) of d: b, c\n"
        assert plane.states(run) == {"a": "success", "b": None, "c": None}

    def test_deleted_pool_is_said_and_stays(self, plane, cli):
        cli("pools", "set", "gpu", "2")
        before = rows_of_database(plane)
        assert cli("pools", "delete", "gpu", "--dry-run").out == "would delete pool gpu\n"
        assert rows_of_database(plane) == before
        assert cli("pools", "delete", "cpu", "--dry-run").code == 2


def rows_of_database(plane):
    """Every row of every table."""
    with plane.database.reading() as connection:
        tables = inspect(connection).get_table_names()
        return {name: sorted(map(repr, connection.exec_driver_sql(f"SELECT * FROM {name}"))) for name in tables}
