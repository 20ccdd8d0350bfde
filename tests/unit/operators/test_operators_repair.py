"""Holes that fill, operator by operator over real files."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operators.late_chain import DAY, Chain
from trainflow.checkpoints.ledger.entries import Author, HoleFilled
from trainflow.checkpoints.ledger_changes.rewind import skip
from trainflow.errors import SampleUnreadable, SkipException
from trainflow.operators import (
    SplitLimits,
)
from trainflow.samples.table.inventory import Inventory


@pytest.fixture
def chain(lab: Any) -> Chain:
    return Chain(lab)


def test_hole_that_arrived_is_trained_on_top_of_head(lab: Any, chain: Chain) -> None:
    for day in (0, 3, 4):
        lab.write_day(day)
    chain.run(3)
    assert [hole.start.day for hole in chain.report().holes] == [2]
    lab.write_day(2)
    lab.write_day(1)
    chain.task("checkpoint")
    assert "2 partitions of its holes have arrived" in lab.ti.notes[-1]
    chain.run(2, repair=True)
    assert chain.kinds() == ["Checkpoint"] * 3 + ["HoleFilled"] * 2
    assert chain.days() == [0, 3, 4, 1, 2]
    report = chain.report()
    assert (report.partitions, report.holes, report.watermark) == (5, [], lab.samples.start + 5 * DAY)
    assert lab.ti.triggered[0][0].conf == {"repair": True}
    with pytest.raises(SkipException, match="nothing is left to repair"):
        chain.run(repair=True)
    # and says to a person who would begin now that this is not being caught up
    assert lab.xcoms[lab.ti.run_id, "samples", "trained"] is None
    lab.write_day(5)
    chain.run()
    assert chain.days()[-1] == 5


def test_repair_that_is_killed_and_tried_again_fills_hole_once(lab: Any, chain: Chain) -> None:
    for day in (0, 2):
        lab.write_day(day)
    chain.run(2)
    lab.write_day(1)
    chain.runs += 1
    for task_id in ("checkpoint", "samples", "train", "train", "commit", "commit", "next"):
        chain.task(task_id, conf={"repair": True})
    assert [type(entry) for entry in chain.ledger.entries()][2:] == [HoleFilled]
    assert chain.report().partitions == 3


def test_late_data_skip_by_hand_is_repaired_only_when_asked(lab: Any, chain: Chain) -> None:
    lab.write_day(0)
    chain.run()
    state = chain.ledger.state()
    start = state.watermark
    assert start is not None
    assert state.head is not None
    skip(
        chain.ledger, start, start + DAY,
        expected_head=state.head.id, by=Author(person="ada"), now=lab.clock.now(), reason="gate: loss",
    )  # fmt: skip
    for day in (1, 3):
        lab.write_day(day)
    # the split that follows records the skip as a hole
    lab.root.joinpath("data/date=2013-01-02").rename(lab.root / "data/away")
    chain.run()
    lab.root.joinpath("data/away").rename(lab.root / "data/date=2013-01-02")
    assert chain.left_out() == ([2], [])
    lab.write_day(2)
    chain.task("checkpoint")
    assert "1 partition of its holes has arrived" in lab.ti.notes[-1]
    assert chain.left_out() == ([2], [3])
    chain.run(repair=True)
    with pytest.raises(SkipException, match="nothing is left to repair"):
        chain.run(repair=True)
    assert chain.days() == [0, 3, 2]
    chain.task("checkpoint")
    assert "arrived" not in lab.ti.notes[-1]
    assert chain.left_out() == ([2], [])
    chain.run(repair=True, skipped=True)
    assert chain.days() == [0, 3, 2, 1]
    assert chain.report().holes == []


@pytest.mark.parametrize("conf", [True, "first"])
def test_repair_that_reaches_no_samples_never_says_that_there_are_none(
    lab: Any, chain: Chain, conf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in (0, 2):
        lab.write_day(day)
    chain.run(2)
    lab.write_day(1)

    def unreachable(*_: Any) -> Any:
        raise SampleUnreadable("the storage does not answer")

    monkeypatch.setattr(Inventory, "content", unreachable)
    chain.runs += 1
    chain.task("checkpoint", conf={"repair": conf})
    with pytest.raises(SampleUnreadable if conf is True else SkipException, match="does not answer"):
        chain.task("samples", conf={"repair": conf})
    # who only was to repair first goes on with its own work
    assert [run.conf for run, *_ in lab.ti.triggered] == ([] if conf is True else [{}])


def test_repair_is_bounded_like_any_run(lab: Any, chain: Chain) -> None:
    chain.limits = SplitLimits(partitions=2)
    for day in (0, 4):
        lab.write_day(day)
    chain.run()
    for day in (1, 2, 3):
        lab.write_day(day)
    chain.run(2, repair=True)
    splits = [len(entry.split.partitions) for entry in chain.ledger.entries() if isinstance(entry, HoleFilled)]
    assert splits == [2, 1]


def test_replay_of_what_was_repaired_opens_hole_again(lab: Any, chain: Chain) -> None:
    chain.policy("replay")
    for day in (0, 2):
        lab.write_day(day)
    chain.run(2)
    lab.write_day(1)
    chain.run(repair=True)
    lab.write_day(1, rows=12)
    chain.task("checkpoint")
    assert [hole.start.day for hole in chain.report().holes] == [2]
    chain.run(repair=True)
    assert chain.report().holes == []
    assert len(chain.model()) == 32
