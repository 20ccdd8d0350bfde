"""A chain that starts from another chain's checkpoint: the next stage, and a branch."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from trainflow.authoring.dag import DAG
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.errors import CheckpointNotFound, FailException
from trainflow.operators import (
    CheckpointOperator,
    CommitCheckpointOperator,
    DataCheckerOperator,
    SplitLimits,
    TrainContext,
    TrainOperator,
)
from trainflow.storage.urls import open_store

TASKS = ("checkpoint", "samples", "train", "commit")


def train(ctx: TrainContext) -> None:
    before = (ctx.parent.path / "model").read_text() if ctx.parent else ""
    (ctx.output / "model").write_text(f"{before}{ctx.params['name']}")


def chain(lab: Any, **checkpoint: Any) -> Any:
    def build() -> DAG:
        with DAG("dag") as dag:
            head = CheckpointOperator(pipeline="model", **checkpoint).output
            split = DataCheckerOperator(samples=lab.samples, limits=SplitLimits(partitions=1), checkpoint=head).output
            name = checkpoint.get("stage", "") + checkpoint.get("branch", "") or "m"
            trained = TrainOperator(function=train, checkpoint=head, split=split, params={"name": name}).output
            CommitCheckpointOperator(checkpoint=head, split=split, trained=trained)
        return dag

    return build


def run_all(lab: Any, build: Any, run_id: str, **facts: Any) -> Any:
    return [lab.run(build, task_id, run_id=run_id, **facts) for task_id in TASKS][-1]


def head(lab: Any, stage: str = "main", branch: str = "main") -> Any:
    return Ledger(open_store("checkpoints", root=lab.root), ChainKey("model", stage, branch)).checkpoint()


def model(lab: Any, checkpoint: Any) -> str:
    return str((lab.root / "checkpoints" / checkpoint.artifacts.path / "model").read_text())


@pytest.fixture(autouse=True)
def _main_chain(lab: Any) -> None:
    for day in range(4):
        lab.write_day(day)
    for number in range(2):
        run_all(lab, chain(lab), f"main-{number}")


def test_next_stage_begins_with_first_samples_and_others_model(lab: Any) -> None:
    build = chain(lab, stage="tuned", init_from="model")
    for number in range(2):
        run_all(lab, build, f"tuned-{number}")
    first, *_ = Ledger(open_store("checkpoints", root=lab.root), ChainKey("model", "tuned")).entries()
    assert first.origin.checkpoint_id == head(lab).id
    assert first.split.start == lab.samples.start
    assert model(lab, head(lab, "tuned")) == "mmtunedtuned"
    assert head(lab, "tuned").watermark == lab.samples.start + timedelta(days=2)


def test_branch_goes_on_at_watermark_of_its_checkpoint(lab: Any) -> None:
    first = Ledger(open_store("checkpoints", root=lab.root), ChainKey("model")).line()[0]
    run_all(lab, chain(lab, branch="b", init_from=f"model/main/main@{first.id}"), "b-0")
    branch = head(lab, branch="b")
    assert branch.split.start == first.watermark
    assert model(lab, branch) == "mb"


def test_conf_may_say_it_with_what_commit_handed_over(lab: Any) -> None:
    committed = run_all(lab, chain(lab), "main-2")
    run_all(lab, chain(lab, stage="tuned"), "tuned-0", conf={"init_from": committed})
    assert model(lab, head(lab, "tuned")) == "mmmtuned"
    lab.run(chain(lab, stage="x"), "checkpoint", conf={"init_from": committed})
    assert lab.ti.notes == ["none yet, starts from checkpoint 3 of model/main/main"]


def test_chain_that_has_head_goes_on_from_it(lab: Any) -> None:
    before = head(lab)
    found = lab.run(chain(lab, init_from="other/main/main"), "checkpoint")
    assert (found["id"], found["candidates"]) == (before.id, [])


@pytest.mark.parametrize(
    ("start", "error", "says"),
    [
        ("nothing", CheckpointNotFound, "nothing/main/main"),
        ("model@unknown", FailException, "names checkpoint unknown of model/main/main, which is not on its line"),
        ("model/tuned", FailException, "names model/tuned/main itself"),
        ("a/b/c/d", FailException, "names no checkpoint: write 'pipeline/stage/branch'"),
        (["model"], FailException, "names no checkpoint"),
    ],
)
def test_init_from_impossible_is_refused(lab: Any, start: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        lab.run(chain(lab, stage="tuned", init_from=start), "checkpoint")
