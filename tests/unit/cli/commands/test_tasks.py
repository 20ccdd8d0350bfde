from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from tests.support.control_plane import empty_task
from trainflow.messages.execution_api import AttemptFailure, Deferral, OutcomeState, XComItem
from trainflow.metadata.queries import attempt_queries

TASK_KEYS = {
    "dag_id",
    "run_id",
    "task_id",
    "map_index",
    "operator",
    "role",
    "state",
    "try_number",
    "max_tries",
    "attempt_id",
    "started_at",
    "ended_at",
    "seconds",
    "waiting",
    "note",
    "problem",
    "progress",
}
ATTEMPT_KEYS = {
    "attempt_id",
    "try_number",
    "outcome",
    "queued_at",
    "started_at",
    "ended_at",
    "seconds",
    "problem",
    "hostname",
    "service_id",
    "refused_at",
    "rendered_fields",
    "curves",
    "log_path",
}


@pytest.fixture
def retrying(plane):
    """DAG `r`: one task with a retry; its first attempt has failed, the second waits for its time."""
    from trainflow.serialization.document import RetryDocument

    plane.add_dag("r", empty_task("x", retry=RetryDocument(retries=1, delay_seconds=60)))
    run = plane.add_run("r")
    (workload,) = plane.tick()
    plane.play(workload, OutcomeState.FAILED, problem=AttemptFailure("no disk"))
    return run


class TestList:
    def test_list_is_in_dag_order_with_documented_keys(self, plane, cli):
        plane.add_run("d", "first")
        plane.tick()
        rows = cli("tasks", "list", "d", "first", "--json").json
        assert [(row["task_id"], row["state"]) for row in rows] == [("a", "queued"), ("b", None), ("c", None)]
        assert all(set(row) == TASK_KEYS for row in rows)
        assert rows[1]["waiting"] == "waits for a (queued)"

    def test_list_before_start_of_run_is_empty(self, plane, cli):
        plane.add_run("d", "first")
        assert cli("tasks", "list", "d", "first", "--json").json == []
        assert "the run has not started" in cli("tasks", "list", "d", "first").out

    def test_list_for_people_is_a_table(self, plane, cli):
        plane.add_run("d", "first")
        plane.tick()
        said = cli("tasks", "list", "d", "latest")
        assert said.code == 0
        assert "waits for a (queued)" in said.out

    def test_progress_of_what_runs(self, plane, cli):
        from trainflow.messages.execution_api import Progress

        plane.add_run("d", "first")
        (workload,) = plane.tick()
        plane.claim(workload)
        plane.service.handle(Progress(workload.key, 500, 2000))
        assert "500 of 2,000 rows" in cli("tasks", "list", "d", "first").out


class TestShow:
    def test_attempts_and_why_it_waits(self, retrying, cli):
        facts = cli("tasks", "show", "r", "r1", "x", "--json").json
        extra = {"upstream", "trigger_rule", "pool", "pool_slots", "priority_weight", "queue", "retry_at", "hostname"}
        assert set(facts) == TASK_KEYS | extra | {"pid", "xcoms", "attempts"}
        (attempt,) = facts["attempts"]
        assert set(attempt) == ATTEMPT_KEYS
        assert (attempt["outcome"], attempt["problem"]) == ("failed", "no disk")
        assert facts["state"] == "up_for_retry"
        assert facts["try_number"] == 2
        assert facts["waiting"].endswith("(try 2 of 2) after: no disk")

    def test_show_attempts_oldest_first(self, plane, retrying, cli):
        plane.clock.advance(timedelta(seconds=120))
        (workload,) = plane.tick()
        value = XComItem("return_value", msgspec.Raw(b'{"rows": 5}'))
        plane.play(workload, xcoms=[value])
        facts = cli("tasks", "show", "r", "r1", "x", "--json").json
        assert [each["outcome"] for each in facts["attempts"]] == ["failed", "success"]
        assert facts["xcoms"] == {"return_value": {"rows": 5}}
        assert facts["waiting"] is None

    def test_show_for_people_prints_text(self, plane, retrying, cli):
        said = cli("tasks", "show", "r", "r1", "x")
        assert "x (EmptyOperator) of run r1 of r" in said.out
        assert "no disk" in said.out

    def test_deferred_one_says_for_what(self, plane, cli):
        plane.add_run("d", "first")
        (workload,) = plane.tick()
        deferral = Deferral("operators.triggers.Partition", {}, "go_on")
        plane.play(workload, OutcomeState.DEFERRED, deferral=deferral)
        (row, *_) = cli("tasks", "list", "d", "first", "--json").json
        assert row["waiting"].startswith("waits in the triggerer for Partition")

    @pytest.mark.parametrize(
        ("task", "hint"), [("aa", "did you mean 'a'"), ("zzz", "there is: a, b, c"), ("b", "'trainflow why d' says")]
    )
    def test_show_of_unknown_names_is_refused(self, plane, cli, task, hint):
        plane.add_run("d", "first")
        said = cli("tasks", "show", "d", "first", task)
        assert said.code == 2
        assert hint in said.err


def test_mark_in_run_that_has_not_started_says_how_to_find_out_why(plane, cli):
    plane.add_run("d", "first")
    said = cli("tasks", "mark", "d", "first", "b", "--failed")
    assert said.code == 1
    assert "has not started" in said.err
    assert "'trainflow why d' says what it waits for" in said.err


class TestLogs:
    @pytest.fixture
    def two_attempts(self, plane, retrying) -> list[str]:
        plane.clock.advance(timedelta(seconds=120))
        (workload,) = plane.tick()
        plane.play(workload)
        with plane.database.reading() as connection:
            attempts = attempt_queries.of_task(connection, plane.task(retrying, "x").id)
        for number, attempt in enumerate(attempts, 1):
            log = plane.project.home.logs / attempt.log_name
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"attempt {number}: größer\n", encoding="utf-8")
        return [attempt.attempt_id for attempt in attempts]

    @pytest.mark.parametrize(
        ("options", "number"), [((), 2), (("--attempt", "1"), 1), (("--attempt", "-2"), 1), (("--follow",), 2)]
    )
    def test_logs_choose_attempt_by_number(self, two_attempts, cli, options, number):
        said = cli("tasks", "logs", "r", "r1", "x", *options)
        assert (said.code, said.out) == (0, f"attempt {number}: größer\n")

    def test_logs_choose_attempt_by_id(self, two_attempts, cli):
        assert cli("tasks", "logs", "r", "r1", "x", "--attempt", two_attempts[0]).out.startswith("attempt 1")

    @pytest.mark.parametrize("attempt", ["3", "0", "zz"])
    def test_logs_of_unknown_attempt_is_refused(self, two_attempts, cli, attempt):
        assert cli("tasks", "logs", "r", "r1", "x", "--attempt", attempt).code == 2

    def test_logs_before_first_attempt_say_so(self, plane, cli):
        plane.add_run("d", "first")
        plane.tick()
        said = cli("tasks", "logs", "d", "first", "b")
        assert (said.code, "has had no attempt yet" in said.err) == (2, True)

    def test_attempt_that_wrote_nothing(self, retrying, cli):
        said = cli("tasks", "logs", "r", "r1", "x")
        assert (said.code, said.out) == (0, "")
        assert "nothing was printed or logged" in said.err

    def test_follows_until_attempt_has_ended(self, plane, cli, monkeypatch):
        from trainflow.cli.render import runs

        plane.add_run("d", "first")
        (workload,) = plane.tick()
        plane.claim(workload)
        log = Path(workload.log_path)
        log.parent.mkdir(parents=True)
        log.write_text("one\n")

        def meanwhile() -> None:
            log.write_text(log.read_text() + "two\n")
            plane.report(workload)

        monkeypatch.setattr(runs, "pause", meanwhile)
        assert cli("tasks", "logs", "d", "first", "a", "-f").out == "one\ntwo\n"


class TestClear:
    def test_task_and_what_waits_for_it(self, plane, cli, nudged):
        run = plane.add_run("d", "first")
        (workload,) = plane.tick()
        plane.play(workload)
        facts = cli("tasks", "clear", "d", "first", "a", "--json").json
        assert facts["cleared"] == ["a", "b", "c"]
        assert plane.states(run) == {"a": None, "b": None, "c": None}
        assert len(nudged) == 1

    def test_clear_of_unknown_task_is_refused(self, plane, cli, nudged):
        plane.add_run("d", "first")
        assert cli("tasks", "clear", "d", "first", "x").code == 2
        assert nudged == []
