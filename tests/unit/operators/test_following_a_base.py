"""A stage each of whose runs starts from a checkpoint of its base: task by task, over real ledgers and real samples."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from trainflow.authoring.dag import DAG
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.entries import Author
from trainflow.checkpoints.ledger import Ledger
from trainflow.checkpoints.rewind import rewind
from trainflow.checkpoints.store import open_store
from trainflow.errors import CheckpointNotFound, FailException, SkipException, TaskDeferred
from trainflow.operators import (
    CheckpointOperator,
    CommitCheckpointOperator,
    DataCheckerOperator,
    EvaluateContext,
    EvaluateOperator,
    SplitLimits,
    TrainContext,
    TrainOperator,
)

TASKS = ("checkpoint", "samples", "evaluate", "train", "commit")
BASE = {"stage": "base"}
SEEN: list[str] = []


def train(ctx: TrainContext) -> None:
    before = (ctx.parent.path / "model").read_text() if ctx.parent else ""
    SEEN.append(f"trains from {ctx.parent.chain if ctx.parent else 'nothing'}")
    days = "".join(str(partition.start.day) for partition in ctx.split.partitions)
    (ctx.output / "model").write_text(f"{before}{ctx.params['name']}{days} ")


def evaluate(ctx: EvaluateContext) -> dict[str, float]:
    SEEN.append(f"judged by {ctx.parent.chain}")
    return {"auc": 1.0}


def chain(lab: Any, stage: str, init_from: Any = None, partitions: int = 1, **samples: Any) -> Any:
    def build() -> DAG:
        with DAG("dag") as dag:
            head = CheckpointOperator(pipeline="model", stage=stage, init_from=init_from).output
            limits = SplitLimits(partitions=partitions)
            split = DataCheckerOperator(samples=lab.samples, limits=limits, checkpoint=head, **samples).output
            judged = EvaluateOperator(function=evaluate, checkpoint=head, split=split).output
            trained = TrainOperator(function=train, checkpoint=head, split=split, params={"name": stage[0]}).output
            CommitCheckpointOperator(checkpoint=head, split=split, trained=trained, evaluated=judged)
        return dag

    return build


def run_all(lab: Any, build: Any, run_id: str, **facts: Any) -> Any:
    SEEN.clear()
    return [lab.run(build, task_id, run_id=run_id, **facts) for task_id in TASKS][-1]


def ledger(lab: Any, stage: str) -> Ledger:
    return Ledger(open_store("checkpoints", root=lab.root), ChainKey("model", stage))


def model(lab: Any, stage: str) -> str:
    return str((lab.root / "checkpoints" / ledger(lab, stage).checkpoint().artifacts.path / "model").read_text())


def base(lab: Any, runs: int, first: int = 0) -> list[Any]:
    return [run_all(lab, chain(lab, "base"), f"base-{first + number}") for number in range(runs)]


@pytest.fixture(autouse=True)
def _days(lab: Any) -> None:
    for day in range(6):
        lab.write_day(day)


def test_each_run_starts_from_the_checkpoint_that_has_seen_its_split(lab: Any) -> None:
    base(lab, 2)
    build = chain(lab, "fine", BASE)
    run_all(lab, build, "fine-0")
    # nobody is asked about the first split: the base has seen it
    assert SEEN == ["trains from model/base/main"]
    run_all(lab, build, "fine-1")
    assert SEEN == ["judged by model/fine/main", "trains from model/base/main"]
    assert model(lab, "fine") == "b1 b2 f2 "
    first, second = ledger(lab, "fine").entries()
    bases = [entry.id for entry in ledger(lab, "base").entries()]  # type: ignore[union-attr]
    assert [each.origin.checkpoint_id for each in (first, second)] == bases  # type: ignore[union-attr]
    assert second.parent_id == first.id  # type: ignore[union-attr]


def test_a_split_is_not_limited_by_what_is_told_but_by_where_that_has_come_to(lab: Any) -> None:
    base(lab, 3)
    run_all(lab, chain(lab, "fine", BASE, partitions=9), "fine-0")
    assert model(lab, "fine") == "b1 f1 "
    told = ledger(lab, "base").checkpoint()
    run_all(lab, chain(lab, "fine", BASE, partitions=9), "fine-1", conf={"init_from": f"model/base/main@{told.id}"})
    assert model(lab, "fine") == "b1 b2 f2 "


@pytest.mark.parametrize(("told", "more"), [(0, False), (1, True), (2, True), (None, True)])
def test_it_triggers_itself_up_to_what_it_was_told(lab: Any, told: int | None, more: bool) -> None:
    committed = base(lab, 3)
    conf = {} if told is None else {"init_from": committed[told]}
    run_all(lab, chain(lab, "fine", BASE), "fine-0", conf=conf)
    assert lab.xcoms["fine-0", "commit", "more"] is more
    pin = lab.xcoms["fine-0", "checkpoint", "pin"]
    # who was told hands on what it was told, who was not what it found
    assert pin["id"] == committed[2 if told is None else told]["id"]


def test_what_tells_a_run_where_to_begin_is_no_parameter(lab: Any) -> None:
    [committed] = base(lab, 1)
    run_all(lab, chain(lab, "fine", BASE), "fine-0", conf={"init_from": committed, "name": "x"})
    assert ledger(lab, "fine").checkpoint().params == {"name": "x"}


def test_a_base_that_has_nothing_more_ends_the_run(lab: Any) -> None:
    base(lab, 1)
    build = chain(lab, "fine", BASE)
    run_all(lab, build, "fine-0")
    lab.run(build, "checkpoint", run_id="fine-1")
    with pytest.raises(SkipException, match=r"caught up at 2013-01-02T00:00Z: waits for stage base, which has no"):
        lab.run(build, "samples", run_id="fine-1")
    assert lab.xcoms["fine-1", "samples", "caught_up"] is True
    assert lab.xcoms["fine-1", "samples", "trained"] is None


def test_a_stage_in_mode_latest_waits_for_samples_and_never_for_its_base(lab: Any) -> None:
    base(lab, 6)
    build = chain(lab, "fine", BASE, mode="latest", partitions=9)
    for number in range(6):
        run_all(lab, build, f"fine-{number}")
    lab.run(build, "checkpoint", run_id="fine-6")
    with pytest.raises(SkipException, match="waits for stage base"):
        lab.run(build, "samples", run_id="fine-6")
    # the base has come further than the samples of this stage
    lab.samples = lab.samples.__class__(path="other/{start:%Y-%m-%d}/", length_seconds=86400, start=lab.samples.start)
    (lab.root / "other").mkdir()
    other = chain(lab, "other", BASE, mode="latest")
    lab.run(other, "checkpoint", run_id="other-0")
    with pytest.raises(TaskDeferred):
        lab.run(other, "samples", run_id="other-0")


def test_what_was_told_before_a_rewind_is_refused(lab: Any) -> None:
    committed = base(lab, 3)
    chain_of_base = ledger(lab, "base")
    head = chain_of_base.checkpoint()
    rewind(chain_of_base, committed[0]["id"], expected_head=head.id, by=Author(), now=lab.clock.now())
    with pytest.raises(FailException, match=r"told to start from checkpoint 3 .* was rewound to before it since"):
        lab.run(chain(lab, "fine", BASE), "checkpoint", conf={"init_from": committed[2]})


def test_a_conf_that_names_another_chain_is_refused(lab: Any) -> None:
    [committed] = base(lab, 1)
    with pytest.raises(FailException, match="a checkpoint of model/base/main, and this stage starts from model/x"):
        lab.run(chain(lab, "fine", {"stage": "x"}), "checkpoint", conf={"init_from": committed})


def test_a_chain_of_another_pipeline_has_to_be_there(lab: Any) -> None:
    with pytest.raises(CheckpointNotFound, match="other/base/main in checkpoints has no checkpoint yet: train it"):
        lab.run(chain(lab, "fine", {"pipeline": "other", "stage": "base"}), "checkpoint")


def test_a_stage_that_starts_once_begins_once(lab: Any) -> None:
    committed = base(lab, 2)
    build = chain(lab, "fine", {"stage": "base", "once": True})
    run_all(lab, build, "fine-0", conf={"init_from": committed[0]})
    assert model(lab, "fine") == "b1 f1 "
    # what begins it a second time finds it begun; what it triggers itself goes on from its own
    lab.run(build, "checkpoint", run_id="fine-1", conf={"init_from": committed[1]})
    with pytest.raises(SkipException, match="it has begun, and triggers itself"):
        lab.run(build, "samples", run_id="fine-1")
    run_all(lab, build, "fine-2")
    assert SEEN == ["judged by model/fine/main", "trains from model/fine/main"]
    assert model(lab, "fine") == "b1 f1 f2 "


def test_a_base_that_has_not_seen_the_split_judges_it(lab: Any) -> None:
    base(lab, 2)
    later = lab.samples.__class__(
        path=lab.samples.path, length_seconds=86400, start=lab.samples.start + timedelta(days=2)
    )
    lab.samples = later
    run_all(lab, chain(lab, "fine", {"stage": "base", "once": True}), "fine-0")
    assert SEEN == ["judged by model/base/main", "trains from model/base/main"]


def test_in_a_circle_a_day_starts_from_the_day_before_of_the_other_stage(lab: Any) -> None:
    day = chain(lab, "day", {"stage": "fine", "feedback": True})
    fine = chain(lab, "fine", {"stage": "day"})
    run_all(lab, day, "day-0")
    assert lab.xcoms["day-0", "commit", "more"] is False
    for number in (1, 2):
        committed = run_all(lab, fine, f"fine-{number}")
        run_all(lab, day, f"day-{number}", conf={"init_from": committed})
        assert lab.xcoms[f"day-{number}", "commit", "more"] is False
    assert model(lab, "day") == "d1 f1 d2 f2 d3 "


def test_the_newest_takes_over_from_what_was_told_before(lab: Any) -> None:
    committed = base(lab, 2)
    build = chain(lab, "fine", {"stage": "base", "at": "latest"}, partitions=2)
    lab.run(build, "checkpoint", run_id="fine-0", conf={"init_from": committed[0]})
    with pytest.raises(SkipException, match="checkpoint 2 of stage base is newer: the run it triggers takes over"):
        lab.run(build, "samples", run_id="fine-0")
    run_all(lab, build, "fine-1", conf={"init_from": committed[1]})
    assert model(lab, "fine") == "b1 b2 f12 "
    assert lab.xcoms["fine-1", "commit", "more"] is True
