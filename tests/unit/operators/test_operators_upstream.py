"""A stage each of whose runs starts from a checkpoint of its base: task by task, over real ledgers and real samples."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from trainflow.authoring.dag import DAG
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, Rewind
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.checkpoints.stages.dependents import declared_dependents
from trainflow.checkpoints.stages.init_from import Dependent
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import CheckpointNotFound, FailException, SkipException
from trainflow.insight.chains.next_run import next_run_of
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
from trainflow.serialization.from_dag import to_document
from trainflow.storage.urls import open_store
from trainflow.task_signals import TaskDeferred

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


def test_upstream_run_starts_from_checkpoint_that_saw_its_split(lab: Any) -> None:
    base(lab, 2)
    build = chain(lab, "fine", BASE)
    run_all(lab, build, "fine-0")
    # none is asked about the first split: the base has seen it
    assert SEEN == ["trains from model/base/main"]
    run_all(lab, build, "fine-1")
    assert SEEN == ["judged by model/fine/main", "trains from model/base/main"]
    assert model(lab, "fine") == "b1 b2 f2 "
    first, second = ledger(lab, "fine").entries()
    bases = [entry.id for entry in ledger(lab, "base").entries()]  # type: ignore[union-attr]
    assert [each.origin.checkpoint_id for each in (first, second)] == bases  # type: ignore[union-attr]
    assert second.parent_id == first.id  # type: ignore[union-attr]


def test_upstream_split_is_limited_by_its_watermark_not_by_conf(lab: Any) -> None:
    base(lab, 3)
    run_all(lab, chain(lab, "fine", BASE, partitions=9), "fine-0")
    assert model(lab, "fine") == "b1 f1 "
    told = ledger(lab, "base").checkpoint()
    run_all(lab, chain(lab, "fine", BASE, partitions=9), "fine-1", conf={"init_from": f"model/base/main@{told.id}"})
    assert model(lab, "fine") == "b1 b2 f2 "


@pytest.mark.parametrize(("told", "more"), [(0, False), (1, True), (2, True), (None, True)])
def test_upstream_stage_triggers_itself_up_to_its_target(lab: Any, told: int | None, more: bool) -> None:
    committed = base(lab, 3)
    conf = {} if told is None else {"init_from": committed[told]}
    run_all(lab, chain(lab, "fine", BASE), "fine-0", conf=conf)
    assert lab.xcoms["fine-0", "commit", "more"] is more
    pin = lab.xcoms["fine-0", "checkpoint", "pin"]
    # who was told hands on what it was told, who was not what it found
    assert pin["id"] == committed[2 if told is None else told]["id"]


def test_upstream_conf_is_no_parameter(lab: Any) -> None:
    [committed] = base(lab, 1)
    run_all(lab, chain(lab, "fine", BASE), "fine-0", conf={"init_from": committed, "name": "x"})
    assert ledger(lab, "fine").checkpoint().params == {"name": "x"}


def test_base_that_has_nothing_more_ends_run(lab: Any) -> None:
    base(lab, 1)
    build = chain(lab, "fine", BASE)
    run_all(lab, build, "fine-0")
    lab.run(build, "checkpoint", run_id="fine-1")
    with pytest.raises(SkipException, match=r"caught up at 2013-01-02T00:00Z: waits for stage base, which has no"):
        lab.run(build, "samples", run_id="fine-1")
    assert lab.xcoms["fine-1", "samples", "caught_up"] is True
    assert lab.xcoms["fine-1", "samples", "trained"] is None


def test_upstream_stage_in_mode_latest_waits_for_samples_only(lab: Any) -> None:
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


def test_upstream_conf_from_before_rewind_falls_back_before_it(lab: Any) -> None:
    committed = base(lab, 3)
    chain_of_base = ledger(lab, "base")
    head = chain_of_base.checkpoint()
    rewind(chain_of_base, committed[0]["id"], expected_head=head.id, by=Author(), now=lab.clock.now())
    head = lab.run(chain(lab, "fine", BASE), "checkpoint", conf={"init_from": committed[2]})
    assert [each["id"] for each in head["candidates"]] == [committed[0]["id"]]


def test_conf_that_names_another_chain_is_refused(lab: Any) -> None:
    [committed] = base(lab, 1)
    with pytest.raises(FailException, match="a checkpoint of model/base/main, and this stage starts from model/x"):
        lab.run(chain(lab, "fine", {"stage": "x"}), "checkpoint", conf={"init_from": committed})


def test_chain_of_another_pipeline_has_to_be_there(lab: Any) -> None:
    with pytest.raises(CheckpointNotFound, match="other/base/main in checkpoints has no checkpoint yet: train it"):
        lab.run(chain(lab, "fine", {"pipeline": "other", "stage": "base"}), "checkpoint")
    # and it knows from now on who follows
    store, there = ledger(lab, "base").store, ChainKey("other", "base")
    assert declared_dependents(store, there) == [Dependent(ChainKey("model", "fine"), "same_watermark")]


def test_upstream_of_same_pipeline_or_pinned_is_not_waited_for(lab: Any) -> None:
    [committed] = base(lab, 1)
    lab.run(chain(lab, "fine", BASE), "checkpoint")
    lab.run(chain(lab, "other", f"model/base/main@{committed['id']}"), "checkpoint")
    assert declared_dependents(ledger(lab, "base").store, ChainKey("model", "base")) == []


def test_stage_that_starts_once_begins_once(lab: Any) -> None:
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


def test_base_that_has_not_seen_split_judges_it(lab: Any) -> None:
    base(lab, 2)
    later = lab.samples.__class__(
        path=lab.samples.path, length_seconds=86400, start=lab.samples.start + timedelta(days=2)
    )
    lab.samples = later
    run_all(lab, chain(lab, "fine", {"stage": "base", "once": True}), "fine-0")
    assert SEEN == ["judged by model/base/main", "trains from model/base/main"]


def test_upstream_in_circle_day_starts_from_others_day_before(lab: Any) -> None:
    day = chain(lab, "day", {"stage": "fine", "feedback": True})
    fine = chain(lab, "fine", {"stage": "day"})
    run_all(lab, day, "day-0")
    assert lab.xcoms["day-0", "commit", "more"] is False
    for number in (1, 2):
        committed = run_all(lab, fine, f"fine-{number}")
        run_all(lab, day, f"day-{number}", conf={"init_from": committed})
        assert lab.xcoms[f"day-{number}", "commit", "more"] is False
    assert model(lab, "day") == "d1 f1 d2 f2 d3 "


def test_newest_takes_over_from_what_was_told_before(lab: Any) -> None:
    committed = base(lab, 2)
    build = chain(lab, "fine", {"stage": "base", "at": "latest"}, partitions=2)
    lab.run(build, "checkpoint", run_id="fine-0", conf={"init_from": committed[0]})
    with pytest.raises(SkipException, match="checkpoint 2 of stage base is newer: the run it triggers takes over"):
        lab.run(build, "samples", run_id="fine-0")
    run_all(lab, build, "fine-1", conf={"init_from": committed[1]})
    assert model(lab, "fine") == "b1 b2 f12 "
    assert lab.xcoms["fine-1", "commit", "more"] is True


# -- the base goes back ------------------------------------------------------------------------------------------------


def undo(lab: Any, stage: str, keep: int) -> None:
    """Rewind a stage to its first `keep` checkpoints."""
    chain_of = ledger(lab, stage)
    line = chain_of.line()
    to = line[keep - 1].id if keep else None
    rewind(chain_of, to, expected_head=line[-1].id, by=Author(), now=lab.clock.now(), cause="replay")


def rewinds(lab: Any, stage: str) -> list[tuple[str, str | None]]:
    entries = ledger(lab, stage).entries()
    return [(entry.cause, entry.to_checkpoint_id) for entry in entries if isinstance(entry, Rewind)]


def test_upstream_rewind_takes_stage_back_before_undone(lab: Any) -> None:
    base(lab, 3)
    build = chain(lab, "fine", BASE)
    for number in range(3):
        run_all(lab, build, f"fine-{number}")
    first = ledger(lab, "fine").line()[0].id
    undo(lab, "base", 1)
    base(lab, 1, first=3)
    for _ in range(2):  # killed after its entry, and tried again
        lab.run(build, "checkpoint", run_id="fine-3")
    assert rewinds(lab, "fine") == [("upstream", first)]
    for task_id in TASKS[1:]:
        lab.run(build, task_id, run_id="fine-3")
    assert SEEN[-2:] == ["judged by model/fine/main", "trains from model/base/main"]
    again = ledger(lab, "base").line()[-1].id
    head = ledger(lab, "fine").checkpoint()
    assert (head.origin.checkpoint_id, head.upstream.rewinds, len(ledger(lab, "fine").line())) == (again, 1, 2)  # type: ignore[union-attr]
    base(lab, 1, first=4)
    run_all(lab, build, "fine-4")
    assert len(rewinds(lab, "fine")) == 1


def test_upstream_rewind_beyond_stage_leaves_it(lab: Any) -> None:
    committed = base(lab, 3)
    build = chain(lab, "fine", BASE)
    run_all(lab, build, "fine-0", conf={"init_from": committed[2]})
    undo(lab, "base", 1)
    head = lab.run(build, "checkpoint", run_id="fine-1")
    assert rewinds(lab, "fine") == []
    assert head["waits"].startswith("waits for stage base, which has no checkpoint beyond")
    assert head["seen"]["rewinds"] == 1


def test_upstream_rewind_during_training_is_undone_by_next_run(lab: Any) -> None:
    base(lab, 2)
    build = chain(lab, "fine", BASE, partitions=9)
    run_all(lab, build, "fine-0")
    for task_id in TASKS[:-1]:
        lab.run(build, task_id, run_id="fine-1")
    undo(lab, "base", 1)
    lab.run(build, "commit", run_id="fine-1")
    base(lab, 1, first=2)
    run_all(lab, build, "fine-2")
    assert [cause for cause, _ in rewinds(lab, "fine")] == ["upstream"]
    assert model(lab, "fine") == "b1 b2 f2 "


def test_upstream_rewind_pending_blocks_its_stages(lab: Any) -> None:
    base(lab, 3)
    middle, last = chain(lab, "middle", BASE), chain(lab, "last", {"stage": "middle"})
    for number in range(3):
        run_all(lab, middle, f"middle-{number}")
    run_all(lab, last, "last-0")
    run_all(lab, last, "last-1")
    undo(lab, "base", 1)
    head = lab.run(last, "checkpoint", run_id="last-2")
    # the middle one has not looked yet
    assert rewinds(lab, "middle") == []
    assert rewinds(lab, "last") == [("upstream", ledger(lab, "last").line()[0].id)]
    assert head["waits"].startswith("waits for stage middle, which has no checkpoint beyond")


def test_upstream_once_begins_again_after_base_caught_up(lab: Any) -> None:
    committed = base(lab, 2)
    build = chain(lab, "fine", {"stage": "base", "once": True})
    run_all(lab, build, "fine-0", conf={"init_from": committed[1]})
    run_all(lab, build, "fine-1")
    undo(lab, "base", 1)
    base(lab, 1, first=2)
    assert lab.run(build, "checkpoint", run_id="fine-2")["waits"].endswith(
        "which was rewound and has not caught up yet"
    )
    assert rewinds(lab, "fine") == [("upstream", None)]
    [again] = base(lab, 1, first=3)
    run_all(lab, build, "fine-3", conf={"init_from": again})
    assert model(lab, "fine") == "b1 b2 b3 f1 "
    # and a replay of its own begins with the same
    undo(lab, "fine", 0)
    run_all(lab, build, "fine-4")
    assert model(lab, "fine") == "b1 b2 b3 f1 "


def test_upstream_pinned_checkpoint_is_independent_of_rewinds(lab: Any) -> None:
    committed = base(lab, 2)
    build = chain(lab, "fine", f"model/base@{committed[1]['id']}")
    run_all(lab, build, "fine-0")
    undo(lab, "base", 1)
    run_all(lab, build, "fine-1")
    assert rewinds(lab, "fine") == []


def test_upstream_rewind_to_pruned_checkpoint_stays_and_says_so(lab: Any) -> None:
    base(lab, 3)
    build = chain(lab, "fine", BASE)
    for number in range(3):
        run_all(lab, build, f"fine-{number}")
    prune(ledger(lab, "fine"), [KeepLatest(1)], by=Author(), now=lab.clock.now())
    undo(lab, "base", 1)
    lab.run(build, "checkpoint", run_id="fine-3")
    assert rewinds(lab, "fine") == []
    assert (
        "was pruned: it stays. To train it again, rewind further back" in lab.xcoms["fine-3", "checkpoint", "late_data"]
    )


def test_upstream_rewound_stage_keeps_what_it_needs(lab: Any) -> None:
    base(lab, 3)
    build = chain(lab, "fine", BASE)
    for number in range(3):
        run_all(lab, build, f"fine-{number}")
    undo(lab, "base", 1)
    base(lab, 2, first=3)
    dependent = Dependent(ChainKey("model", "fine"), "same_watermark")

    def prunes() -> int:
        return len(
            prune(
                ledger(lab, "base"), [KeepLatest(1)],
                by=Author(), now=lab.clock.now(), dependents=[dependent], dry_run=True,
            )
        )  # fmt: skip

    # what was undone may be trained from right now, and the second day comes next
    assert prunes() == 0
    run_all(lab, build, "fine-3")
    assert prunes() == 2


def test_upstream_start_takes_stage_back_without_start(lab: Any) -> None:
    base(lab, 2)
    build = chain(lab, "fine", BASE)
    for number in range(2):
        run_all(lab, build, f"fine-{number}")
    facts: Any = to_document(build()).chain
    assert next_run_of(facts, ledger(lab, "fine")).goes_back is False
    undo(lab, "base", 1)
    ahead = next_run_of(facts, ledger(lab, "fine"))
    assert (ahead.goes_back, ahead.watermark) == (True, ledger(lab, "fine").line()[0].watermark)
    assert ahead.waits is not None
    lab.run(build, "checkpoint", run_id="fine-2")
    assert next_run_of(facts, ledger(lab, "fine")).goes_back is False
