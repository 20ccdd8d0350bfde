"""Runs of a chain whose gates refuse: what each task says, and what the next run makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trainflow.authoring.dag import DAG
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit import commit
from trainflow.checkpoints.ledger.entries import Promotion
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.manual_decisions import accept
from trainflow.errors import FailException, InputError, SkipException
from trainflow.operators import (
    CheckpointOperator,
    CommitCheckpointOperator,
    DataCheckerOperator,
    Gate,
    Promote,
    SplitLimits,
    TrainContext,
    TrainOperator,
)
from trainflow.operators.training.training_context import seed_of
from trainflow.storage.urls import open_store

Build = Callable[[], DAG]
SEEDS: list[int] = []


def train(ctx: TrainContext) -> dict[str, float]:
    """A day with the number n of rows is as good as n / 10."""
    SEEDS.append(ctx.seed)
    (ctx.output / "model").write_text(str(ctx.seed))
    return {"auc": (ctx.split.rows or 0) / 10}


@pytest.fixture
def chain(lab: Any) -> Callable[..., Build]:
    """A chain of one day a split: `qualities` are the days' metrics times ten."""
    SEEDS.clear()

    def of(qualities: list[int], **commit: Any) -> Build:
        for number, rows in enumerate(qualities):
            lab.write_day(number, rows=rows)

        def build() -> DAG:
            with DAG("model") as made:
                head = CheckpointOperator().output
                split = DataCheckerOperator(
                    samples=lab.samples, limits=SplitLimits(partitions=1), checkpoint=head
                ).output
                trained = TrainOperator(function=train, checkpoint=head, split=split).output
                CommitCheckpointOperator(checkpoint=head, split=split, trained=trained, **commit)
            return made

        return build

    return of


def run(lab: Any, build: Build, run_id: str) -> Any:
    """One run; what its commit returned."""
    return [lab.run(build, task, run_id=run_id) for task in ("checkpoint", "samples", "train", "commit")][-1]


def ledger(lab: Any) -> Ledger:
    return Ledger(open_store("checkpoints", root=lab.root), ChainKey("model"))


def pushed(lab: Any, key: str) -> Any:
    return lab.ti.xcom_pull(lab.ti.task_id, key=key)


def test_stop_fails_for_good_and_leaves_word(lab: Any, chain: Any) -> None:
    build = chain([8, 5, 9], gates=["auc >= 0.6"])
    run(lab, build, "r1")
    with pytest.raises(FailException, match=r"auc >= 0\.6: it is 0\.5.*'trainflow resume model'"):
        run(lab, build, "r2")

    told = pushed(lab, "stopped")
    assert (told["cause"], told["key"]) == ("gate", "stop 2")
    assert told["sentence"] == (
        "a gate refused what was trained on 2013-01-02T00:00Z to 2013-01-03T00:00Z: auc >= 0.6: it is 0.5; "
        "'trainflow resume model' decides"
    )
    assert told["facts"]["reasons"] == ["auc >= 0.6: it is 0.5"]
    assert told["facts"]["metrics"] == {"auc": 0.5}


def test_run_of_stopped_chain_fails_at_once_and_says_same(lab: Any, chain: Any) -> None:
    build = chain([5], gates=["auc >= 0.6"])
    with pytest.raises(FailException):
        run(lab, build, "r1")
    told = pushed(lab, "stopped")
    trained = len(SEEDS)

    with pytest.raises(FailException, match="is stopped"):
        run(lab, build, "r2")

    assert lab.ti.task_id == "checkpoint"
    assert pushed(lab, "stopped") == told
    assert len(SEEDS) == trained


def test_gate_accepted_split_is_found_by_repeated_commit(lab: Any, chain: Any) -> None:
    build = chain([5, 9], gates=["auc >= 0.6"])
    with pytest.raises(FailException):
        run(lab, build, "r1")
    stop = ledger(lab).state().stopped
    made = accept(ledger(lab), stop.id, person="ada", now=lab.clock.now())

    again = lab.run(build, "commit", run_id="r1")

    assert (again["id"], again["number"]) == (made.id, 1)
    assert run(lab, build, "r2")["number"] == 2


def test_skip_is_success_and_becomes_hole(lab: Any, chain: Any) -> None:
    build = chain([8, 5, 4, 9], gates=[Gate("auc >= 0.6", "skip")])
    run(lab, build, "r1")
    for run_id in ("r2", "r3"):
        assert run(lab, build, run_id) is None
    assert lab.ti.notes[-1] == "skipped 2013-01-03T00:00Z to 2013-01-04T00:00Z: auc >= 0.6: it is 0.4"
    assert pushed(lab, "gate")["action"] == "skip"
    assert pushed(lab, "stopped") is None

    made = run(lab, build, "r4")

    assert made["watermark"] == "2013-01-05T00:00:00+00:00"
    state = ledger(lab).state()
    assert [(hole.hole.start.day, hole.hole.reason) for hole in state.holes] == [
        (2, "auc >= 0.6: it is 0.5"),
        (3, "auc >= 0.6: it is 0.4"),
    ]
    with pytest.raises(SkipException, match="caught up at 2013-01-05"):
        run(lab, build, "r5")


def test_caught_up_after_skip_is_where_skip_ends(lab: Any, chain: Any) -> None:
    build = chain([8, 5], gates=[Gate("auc >= 0.6", "skip")])
    for run_id in ("r1", "r2"):
        run(lab, build, run_id)

    with pytest.raises(SkipException, match="caught up at 2013-01-03"):
        run(lab, build, "r3")


def test_very_first_split_may_be_skipped(lab: Any, chain: Any) -> None:
    build = chain([5, 9], gates=[Gate("auc >= 0.6", "skip")])
    run(lab, build, "r1")

    assert run(lab, build, "r2")["number"] == 1

    (hole,) = ledger(lab).state().holes
    assert hole.hole.start.day == 1


def test_rewind_trains_forward_again_with_other_seeds(lab: Any, chain: Any) -> None:
    build = chain([8, 8, 5], gates=[Gate("auc >= 0.6", "rewind 2")])
    for run_id in ("r1", "r2", "r3"):
        last = run(lab, build, run_id)
    assert last is None
    assert lab.ti.notes[-1] == "rewound to before the first checkpoint: auc >= 0.6: it is 0.5"
    for run_id in ("r4", "r5"):
        run(lab, build, run_id)
    with pytest.raises(FailException, match="a rewind was tried at this split already"):
        run(lab, build, "r6")

    assert len(SEEDS) == len(set(SEEDS)) == 6
    assert [ledger(lab).state().generation, ledger(lab).state().head.watermark.day] == [1, 3]


def test_seed_of_first_generation_is_what_it_always_was() -> None:
    assert seed_of("model/main/main", "sha256:1") == seed_of("model/main/main", "sha256:1", 0) == 733494045
    assert len({seed_of("model/main/main", "sha256:1", generation) for generation in range(5)}) == 5


def test_promotion_is_told_and_handed_over(lab: Any, chain: Any) -> None:
    build = chain([6, 9, 8], promote=Promote("champion", ("auc >= 0.7", "auc > previous")))
    assert run(lab, build, "r1")["promoted"] == []
    assert lab.ti.notices == []

    made = run(lab, build, "r2")

    assert made["promoted"] == ["champion"]
    assert lab.ti.notes[-1] == "checkpoint 2, trained up to 2013-01-03T00:00Z; promoted to champion"
    (notice,) = lab.ti.notices
    assert (notice.event, notice.key) == ("promoted", f"champion {made['id']}")
    assert notice.facts["uri"] == made["uri"]
    assert run(lab, build, "r3")["promoted"] == []
    assert ledger(lab).state().promoted == {"champion": made["id"]}


def test_gate_promotion_missed_by_killed_commit_is_made_by_next_run(
    lab: Any, chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is deleted between the entry and the promotion: the run never commits again."""
    build = chain([8, 8], promote=Promote("champion", ("auc >= 0.7",)))
    with monkeypatch.context() as killed:
        killed.setattr(commit, "promote_head", lambda *_, **__: None)
        made = run(lab, build, "r1")
    assert made["promoted"] == []

    run(lab, build, "r2")

    first, _ = [entry for entry in ledger(lab).entries() if isinstance(entry, Promotion)]
    assert (first.sequence, first.checkpoint_id) == (2, made["id"])


def test_gates_are_list(lab: Any, chain: Any) -> None:
    with pytest.raises(InputError, match=r"gates: .* is not a list"):
        chain([8], gates="auc >= 0.6")()
