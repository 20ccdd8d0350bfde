"""Models in stages: each starts from the checkpoints of another, whatever happens to either."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.acceptance.staged_project import DAYS, ONE_A_RUN, Made, assert_audit_is_clean, origins, start, trained
from tests.support.tiny_project import FILE, publish, tiny_project
from trainflow.checkpoints.ledger.entries import Promotion
from trainflow.testing.processes import wait_for

pytestmark = pytest.mark.slow

LATEST = ONE_A_RUN.replace("pipeline: tiny", "pipeline: tiny\nmode: latest").replace("  end: 2024-01-31\n", "")
EVERY_DAY = "  base:\n  fine: {init_from: {stage: base}}\n"


def test_stages_each_day_train_base_then_fine_tune(made: Made) -> None:
    project = made(EVERY_DAY)
    start(project)
    assert trained(project, "base") == [0, 1, 2, 3]
    # each fine-tune is the base of that day, and that day once more
    for number in range(DAYS):
        assert trained(project, "fine", number) == [*range(number + 1), number]
    assert origins(project, "fine") == [f"base {number}" for number in range(1, DAYS + 1)]
    fine = project.checkpoints("tiny", "fine")
    assert [entry.parent_id for entry in fine] == [None, *(entry.id for entry in fine[:-1])]
    # the fine-tune before it has judged each day, and none the first one: the base has seen it
    assert [bool(entry.evaluation) for entry in fine] == [False] + [True] * (DAYS - 1)
    assert_audit_is_clean(project, DAYS, DAYS)
    runs = json.loads(project.ask("runs", "list", FILE, "--json").output)
    assert {run["dag_id"] for run in runs} == {"tiny.base", "tiny.fine"}


IN_PYTHON = """\
from datetime import UTC, datetime

from trainflow import DAG
from trainflow.operators import (
    CheckpointOperator, CommitCheckpointOperator, DataCheckerOperator, EvaluateOperator, Samples, SplitLimits,
    TrainOperator, TriggerDagRunOperator,
)

DAYS = Samples(
    path="samples/{start:%Y-%m-%d}/", length_seconds=86_400,
    start=datetime(2024, 1, 1, tzinfo=UTC), end=datetime(2024, 1, 5, tzinfo=UTC),
)


def chain(stage, init_from=None):
    checkpoint = CheckpointOperator(pipeline="tiny", stage=stage, init_from=init_from)
    split = DataCheckerOperator(samples=DAYS, limits=SplitLimits(partitions=1), checkpoint=checkpoint.output)
    given = {"checkpoint": checkpoint.output, "split": split.output}
    evaluate = EvaluateOperator(function="operators.tiny:evaluate", **given)
    train = TrainOperator(function="operators.tiny:train", **given)
    evaluate >> train
    return checkpoint.output, CommitCheckpointOperator(**given, trained=train.output, evaluated=evaluate.output)


with DAG("base", max_active_runs=1):
    _, commit = chain("base")
    commit >> TriggerDagRunOperator(task_id="next", trigger_dag_id="base")
    TriggerDagRunOperator(
        task_id="next_fine", trigger_dag_id="fine", conf={"init_from": commit.output}, when=commit.output
    )

with DAG("fine", max_active_runs=1):
    checkpoint, commit = chain("fine", {"stage": "base"})
    TriggerDagRunOperator(
        task_id="next", trigger_dag_id="fine", conf={"init_from": checkpoint["pin"]}, when=commit.output["more"]
    )
"""


@pytest.mark.exhaustive
def test_stages_written_in_python_train_same_models(tmp_path: Path, made: Made) -> None:
    in_yaml = made(EVERY_DAY)
    start(in_yaml)
    project = tiny_project(tmp_path / "python", days=DAYS, samples_of=in_yaml)
    project.write("pipelines/stages.py", IN_PYTHON)
    ended = project.start("pipelines/stages.py")
    assert ended.code == 0, ended.output
    for stage in ("base", "fine"):
        files = [[each.artifacts.files for each in one.checkpoints("tiny", stage)] for one in (project, in_yaml)]
        assert files[0] == files[1]
        assert len(files[0]) == DAYS


@pytest.mark.exhaustive
def test_stages_pre_train_then_fine_tune_once(made: Made) -> None:
    project = made(
        "  base: {samples: {end: 2024-01-03}}\n"
        "  fine: {samples: {start: 2024-01-03}, init_from: {stage: base, once: true}}\n"
    )
    start(project)
    assert [trained(project, "fine", number) for number in (0, 1)] == [[0, 1, 2], [0, 1, 2, 3]]
    assert origins(project, "fine") == ["base 2", None]
    # the base has not seen the recent data, so it may judge the first of it
    assert all(entry.evaluation for entry in project.checkpoints("tiny", "fine"))
    assert_audit_is_clean(project, 2, 2)
    output = start(project)
    assert "it has begun, and triggers itself" in output
    assert len(project.checkpoints("tiny", "fine")) == 2


@pytest.mark.exhaustive
def test_stages_one_base_feeds_three_fine_tunes(made: Made) -> None:
    project = made(
        "  base: {split: {partitions: 2}}\n"
        "  one: {init_from: {stage: base}}\n"
        "  two: {init_from: {stage: base}, split: {partitions: 2}}\n"
        "  all: {init_from: {stage: base}, split: {partitions: null}}\n"
    )
    start(project)
    assert trained(project, "one") == [0, 1, 2, 3, 3]
    assert origins(project, "one") == ["base 1", "base 1", "base 2", "base 2"]
    assert trained(project, "two") == [0, 1, 2, 2, 3, 3]
    # without a limit of its own it goes as far as each base has come
    assert origins(project, "two") == origins(project, "all") == ["base 1", "base 2"]
    assert_audit_is_clean(project, DAYS, DAYS, DAYS, DAYS)


@pytest.mark.exhaustive
def test_stage_lags_two_days_behind_for_labels_that_come_late(made: Made) -> None:
    project = made("  base:\n  labelled: {init_from: {stage: base}, samples: {lag: 2}}\n")
    start(project)
    assert trained(project, "base") == [0, 1, 2, 3]
    assert [trained(project, "labelled", number) for number in (0, 1)] == [[0, 0], [0, 1, 1]]
    assert_audit_is_clean(project, DAYS, DAYS - 2)


@pytest.mark.exhaustive
def test_ledgers_alone_know_what_is_left(made: Made) -> None:
    project = made(EVERY_DAY + "  last: {init_from: {stage: base, once: true}}\n")
    running = project.begin_start(FILE)
    wait_for(lambda: running.ended or project.committed("tiny") >= 5, lambda: running.output)
    project.kill_everything()
    shutil.rmtree(project.home.path)
    start(project)
    for number in range(DAYS):
        assert trained(project, "fine", number) == [*range(number + 1), number]
    assert trained(project, "last") == [0, 0, 1, 1, 2, 2, 3, 3]
    assert_audit_is_clean(project, DAYS, DAYS, DAYS)
    # and there is nothing left, also for a database that knows of nothing
    shutil.rmtree(project.home.path)
    start(project)
    assert_audit_is_clean(project, DAYS, DAYS, DAYS)


@pytest.mark.exhaustive
def test_stages_in_latest_mode_train_new_days_as_they_come(made: Made) -> None:
    project = made(EVERY_DAY + "  newest: {init_from: {stage: base, at: latest}}\n", LATEST, days=2)
    running = project.begin_start(FILE)
    for day in (2, 3):
        wait_for(lambda: project.committed("tiny") == 3 * day, lambda: running.output)  # noqa: B023
        publish(project, day)
    wait_for(lambda: project.committed("tiny") == 12, lambda: running.output)
    running.control_c()
    assert running.wait().code == 130
    assert [trained(project, "fine", number) for number in (2, 3)] == [[0, 1, 2, 2], [0, 1, 2, 3, 3]]
    assert trained(project, "newest")[-1] == 3
    # and so they do when it is started again, with a day that came meanwhile
    publish(project, 4)
    running = project.begin_start(FILE)
    wait_for(lambda: project.committed("tiny") == 15, lambda: running.output)
    running.control_c()
    assert running.wait().code == 130
    assert trained(project, "fine") == [0, 1, 2, 3, 4, 4]
    assert_audit_is_clean(project, 5, 5, 5)


@pytest.mark.exhaustive
def test_promotion_by_hand_starts_waiting_stage(made: Made) -> None:
    project = made("  base:\n  tune: {init_from: {stage: base, at: promoted}}\n", days=3)
    assert "waits for stage base, which has promoted no checkpoint yet" in start(project)
    assert project.checkpoints("tiny", "tune") == []
    promote = ("checkpoints", "promote", FILE, "2", "--alias", "champion", "--stage", "base")
    assert project.ask(*promote).code == 0
    # not the newest one, and nothing comes that could trigger it
    start(project)
    assert origins(project, "tune") == ["base 2"] * 3
    assert [trained(project, "tune", number) for number in range(3)] == [[0, 0, 1], [0, 1, 1], [0, 1, 2]]
    rewind = ("checkpoints", "rewind", FILE, "--to", "1", "--stage", "base", "--cascade")
    assert project.ask(*rewind).code == 0
    assert "waits for stage base, which has promoted no checkpoint yet" in start(project)
    assert_audit_is_clean(project, 3, 0)


@pytest.mark.exhaustive
def test_promotion_by_hand_while_engine_runs_starts_waiting_stage(made: Made) -> None:
    project = made("  base:\n  tune: {init_from: {stage: base, at: promoted, alias: champion}}\n", LATEST, days=3)
    running = project.begin_start(FILE)
    wait_for(lambda: project.committed("tiny") == 3, lambda: running.output)
    other = json.loads(
        project.ask("checkpoints", "promote", FILE, "1", "--alias", "other", "--stage", "base", "--json").output
    )
    assert other["dependents"] == []
    promote = ("checkpoints", "promote", FILE, "2", "--alias", "champion", "--stage", "base")
    said = json.loads(project.ask(*promote, "--json").output)
    assert [(each["dag_id"], each["what"]) for each in said["dependents"]] == [("tiny.tune", "begun")]
    wait_for(lambda: project.committed("tiny") == 8, lambda: running.output)
    # now it waits for samples, and needs no other
    again = json.loads(project.ask(*promote, "--json").output)
    assert (again["promoted"], [each["what"] for each in again["dependents"]]) == (False, ["at work"])
    running.control_c()
    assert running.wait().code == 130
    assert origins(project, "tune") == ["base 2"] * 3
    later = project.ask("checkpoints", "promote", FILE, "3", "--alias", "champion", "--stage", "base")
    assert "tiny.tune starts from it when an engine runs next" in later.output


@pytest.mark.exhaustive
def test_gate_that_promotes_some_and_stage_that_starts_from_those(made: Made) -> None:
    open_end = ONE_A_RUN.replace("  end: 2024-01-31\n", "")
    project = made(
        "  base: {promote: {alias: champion, when: [even > 0]}}\n"
        "  tune: {init_from: {stage: base, at: promoted, alias: champion}}\n",
        open_end,
    )
    source = (project.root / "operators/tiny.py").read_text()
    even = '"even": float(ctx.split.partitions[0].start.day % 2 == 0)'
    project.write("operators/tiny.py", source.replace('{"loss": abs(weight)}', f'{{"loss": abs(weight), {even}}}'))
    start(project)
    publish(project, DAYS)
    start(project)

    numbers = {entry.id: number for number, entry in enumerate(project.checkpoints("tiny", "base"), start=1)}
    promotions = [entry for entry in project.ledger("tiny", stage="base").entries() if isinstance(entry, Promotion)]
    assert [numbers[each.checkpoint_id] for each in promotions] == [2, 4]
    tune = project.checkpoints("tiny", "tune")
    bases = [numbers[entry.origin.checkpoint_id] for entry in tune if entry.origin]
    assert len(bases) == DAYS + 1
    for entry, base in zip(tune, bases, strict=True):
        # one that was promoted when it was committed
        assert base in [numbers[each.checkpoint_id] for each in promotions if each.at <= entry.at]
    # and none goes back to one that was promoted before
    assert bases == sorted(bases)
    # the fifth day of the base is not promoted
    assert (bases[-1], trained(project, "tune")) == (4, [0, 1, 2, 3, 4])
    assert_audit_is_clean(project, DAYS + 1, DAYS + 1)
