"""The commit, killed after each of its steps inside a running attempt, alone and together with the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.live_project import LiveProject
from tests.support.tiny_project import NAME, assert_trained_exactly_once, tiny_project
from trainflow.checkpoints.commit.commit import STEPS
from trainflow.testing.processes import wait_for

pytestmark = pytest.mark.slow

FILE = "pipelines/dying.py"

#: the same chain as the project's YAML, with a commit that dies at one point in each run, the first time it gets there
PIPELINE = '''\
"""Run number n is killed at point n of its commit."""

import os
import signal
from datetime import UTC, datetime, timedelta

from operators.tiny import ROOT, evaluate, note, train
from trainflow import DAG
from trainflow.checkpoints.commit import commit as module
from trainflow.operators import (
    CheckpointOperator, CommitCheckpointOperator, DataCheckerOperator, EvaluateOperator, Samples, SplitLimits,
    TrainOperator, TriggerDagRunOperator,
)

STEPS = [name for name, _ in module.STEPS]
POINTS = [*STEPS, "before", "after", "pruned"]
DAYS = 3 * len(POINTS)


class DyingCommit(CommitCheckpointOperator):
    def execute(self, context):
        self.point = POINTS[self.head().entry % len(POINTS)]
        module.STEPS = [(name, self.dying_after(name, step)) for name, step in module.STEPS]
        self.die("before")
        made = super().execute(context)
        self.die("after")
        return made

    def _prune(self, ledger, ti):
        pruned = super()._prune(ledger, ti)
        self.die("pruned")
        return pruned

    def dying_after(self, name, step):
        def run(work):
            step(work)
            self.die(name)

        return run

    def die(self, point):
        if point != self.point or (ROOT / f"died-{point}").exists():
            return
        (ROOT / f"died-{point}").touch()
        note("dies", point)
        if os.environ.get("TAKE_THE_ENGINE_ALONG") == point:
            os.kill(int((ROOT / ".trainflow/engine.lock").read_text()), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


with DAG("tiny", schedule=None, max_active_runs=1) as dag:
    checkpoint = CheckpointOperator()
    samples = DataCheckerOperator(
        samples=Samples(
            path="samples/{start:%Y-%m-%d}/",
            length_seconds=86_400,
            start=datetime(2024, 1, 1, tzinfo=UTC),
            end=datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=DAYS),
        ),
        limits=SplitLimits(partitions=3),
        checkpoint=checkpoint.output,
    )
    evaluate = EvaluateOperator(function=evaluate, checkpoint=checkpoint.output, split=samples.output)
    train = TrainOperator(function=train, checkpoint=checkpoint.output, split=samples.output)
    commit = DyingCommit(
        checkpoint=checkpoint.output, split=samples.output, trained=train.output, evaluated=evaluate.output
    )
    evaluate >> train >> commit >> TriggerDagRunOperator(task_id="next", trigger_dag_id="tiny")
'''

POINTS = [*(name for name, _ in STEPS), "before", "after", "pruned"]
DAYS = 3 * len(POINTS)


@pytest.fixture
def dying(tmp_path: Path) -> LiveProject:
    project = tiny_project(tmp_path / "dying", days=DAYS)
    (project.root / "pipelines/tiny.yaml").unlink()
    project.write(FILE, PIPELINE)
    return project


@pytest.mark.exhaustive
def test_attempt_killed_after_each_step_of_its_commit(dying: LiveProject) -> None:
    # there are as many splits, so each point is met
    ended = dying.start(FILE)
    assert ended.code == 0, ended.output
    assert [words[1] for words in dying.journal() if words[0] == "dies"] == POINTS
    assert_trained_exactly_once(dying, DAYS)
    # a commit that is repeated does not train again
    assert sum(words[0] == "begins" for words in dying.journal()) == len(POINTS)


@pytest.mark.parametrize("point", ["append", pytest.param("verify_artifacts", marks=pytest.mark.exhaustive)])
def test_commit_killed_after_any_step_together_with_engine_is_made_once(dying: LiveProject, point: str) -> None:
    running = dying.begin_start(FILE, environ={"TAKE_THE_ENGINE_ALONG": point})
    assert running.wait().code == -9
    number = POINTS.index(point)
    wait_for(lambda: not dying.processes(), "everything to end")
    assert dying.committed(NAME) == number + (point != "verify_artifacts")
    assert dying.audit(NAME).ok

    ended = dying.start(FILE)
    assert ended.code == 0, ended.output
    assert_trained_exactly_once(dying, DAYS)
    assert sum(words[0] == "begins" for words in dying.journal()) == len(POINTS)
