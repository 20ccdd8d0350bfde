"""A stage whose base is a branch."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.unit.operators.test_operators_upstream import base, chain, ledger, model, run_all
from trainflow.authoring.dag import DAG
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, CheckpointRef
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.fork import fork
from trainflow.errors import SkipException
from trainflow.operators import CheckpointOperator, DataCheckerOperator
from trainflow.testing.chains import day


def test_branch_that_has_nothing_more_to_train_begins_the_stage_that_starts_once(lab: Any) -> None:
    """What it was forked from is what that stage begins with, as if it had trained it."""
    for number in range(2):
        lab.write_day(number)
    base(lab, 2)
    origin, lab.samples = ledger(lab, "base").checkpoint(), msgspec.structs.replace(lab.samples, end=day(2))
    branch = ChainKey("model", "base", "hot")
    at = CheckpointRef(ledger(lab, "base").chain, origin.id)
    fork(Ledger(ledger(lab, "base").store, branch), at, day(2), number=2, by=Author(), now=lab.clock.now())

    def build() -> DAG:
        with DAG("hot") as dag:
            head = CheckpointOperator(pipeline="model", stage="base", branch="hot").output
            DataCheckerOperator(samples=lab.samples, checkpoint=head)
        return dag

    lab.run(build, "checkpoint", run_id="r")
    with pytest.raises(SkipException, match="caught up"):
        lab.run(build, "samples", run_id="r")
    told = lab.xcoms["r", "samples", "trained"]
    assert told == {"pipeline": "model", "stage": "base", "branch": "hot", "id": origin.id, "number": 2}
    fine = {"stage": "base", "branch": "hot", "once": True}
    run_all(lab, chain(lab, "fine", fine), "fine-0", conf={"init_from": told})
    assert model(lab, "fine") == "b1 b2 f1 "
