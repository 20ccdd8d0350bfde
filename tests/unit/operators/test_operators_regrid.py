"""A DAG written in Python whose samples are changed while its chain lives."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from trainflow.authoring.dag import DAG
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.regrid import regrid
from trainflow.errors import FailException
from trainflow.operators import (
    CheckpointOperator,
    CommitCheckpointOperator,
    DataCheckerOperator,
    SplitLimits,
    TrainContext,
    TrainOperator,
)
from trainflow.samples.grid import grid_of
from trainflow.storage.local import LocalStore

DAY = timedelta(days=1)


def train(ctx: TrainContext) -> None:
    (ctx.output / "model").write_text("trained")


@pytest.fixture
def build(lab: Any) -> Callable[[], DAG]:
    def made() -> DAG:
        with DAG("model", max_active_runs=1) as dag:
            head = CheckpointOperator()
            split = DataCheckerOperator(samples=lab.samples, limits=SplitLimits(partitions=2), checkpoint=head.output)
            trained = TrainOperator(function=train, checkpoint=head.output, split=split.output)
            CommitCheckpointOperator(checkpoint=head.output, split=split.output, trained=trained.output)
        return dag

    return made


def run(lab: Any, build: Callable[[], DAG]) -> Any:
    for task_id in ("checkpoint", "samples", "train"):
        lab.run(build, task_id)
    return lab.run(build, "commit")


def test_head_records_grid_and_another_one_is_refused(lab: Any, build: Callable[[], DAG]) -> None:
    for number in range(4):
        lab.write_day(number)
    run(lab, build)
    ledger = Ledger(LocalStore(lab.root / "checkpoints"), ChainKey("model"))
    assert ledger.state().grid == grid_of(lab.samples)
    for changed, said in (
        ({"length_seconds": 2 * 86_400}, "a partition was 1d long and is 2d.* 'trainflow regrid model'"),
        ({"start": lab.samples.start - DAY}, "never trained.* 'trainflow repair model --earlier'"),
        ({"path": "moved/date={start:%Y-%m-%d}/"}, "their path was data/.* 'trainflow regrid model'"),
    ):
        lab.samples, before = msgspec.structs.replace(lab.samples, **changed), lab.samples
        with pytest.raises(FailException, match=said):
            lab.run(build, "checkpoint")
        lab.samples = before
    run(lab, build)
    assert ledger.state().head_sequence == 2


def test_regrid_run_under_way_cannot_commit_to_new_grid(lab: Any, build: Callable[[], DAG]) -> None:
    for number in range(4):
        lab.write_day(number)
    run(lab, build)
    for task_id in ("checkpoint", "samples", "train"):
        lab.run(build, task_id)
    ledger = Ledger(LocalStore(lab.root / "checkpoints"), ChainKey("model"))
    other = msgspec.structs.replace(lab.samples, length_seconds=2 * 86_400)
    head = ledger.state().head
    assert head is not None
    regrid(ledger, grid_of(other), expected_head=head.id, by=Author(person="ada@host"), now=lab.clock.now())
    with pytest.raises(FailException, match="goes on with another grid"):
        lab.run(build, "commit")
