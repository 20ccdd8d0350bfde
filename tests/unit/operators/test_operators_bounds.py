"""How far a run may go: a target duration, a lag, and a chain that never catches up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from tests.unit.operators.late_chain import DAY, TASKS, Chain
from trainflow.messages.notice import Event
from trainflow.operators import (
    SplitLimits,
    TrainContext,
)


@pytest.fixture
def chain(lab: Any) -> Chain:
    return Chain(lab)


def test_splits_grow_until_run_takes_as_long_as_it_should(
    lab: Any, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.limits = SplitLimits(target_seconds=3600)
    for day in range(31):
        lab.write_day(day)

    def takes(ctx: TrainContext) -> None:
        lab.clock.advance(timedelta(seconds=300) + len(ctx.split.partitions) * timedelta(seconds=300))
        (ctx.output / "model").write_text("")

    monkeypatch.setattr("tests.unit.operators.late_chain.train", takes)
    sizes: list[int] = []
    seconds: list[float] = []
    step: Callable[[], None] = chain.run
    while sum(sizes) < 31:
        step()
        head = chain.ledger.checkpoint()
        sizes.append(len(head.split.partitions))
        seconds.append(head.seconds or 0.0)
    assert sizes[:2] == [1, 4]
    assert max(seconds) <= 3600
    assert max(sizes) >= 7
    # a retry of the same run gives the same split
    chain.task("checkpoint")
    assert chain.report().partitions == 31


def test_late_data_ready_beyond_split_is_said(lab: Any, chain: Chain) -> None:
    for day in range(6):
        lab.write_day(day)
    chain.runs += 1
    chain.task("checkpoint")
    split = chain.task("samples")
    assert (split["lag_partitions"], split["lag_seconds"]) == (5, 5 * 86_400.0)
    assert lab.ti.notices == []  # the table has ended: it will catch up


@pytest.mark.parametrize(("hours", "told"), [(26, True), (20, False)])
def test_late_data_never_catching_up_is_notified(
    lab: Any, chain: Chain, monkeypatch: pytest.MonkeyPatch, hours: int, told: bool
) -> None:
    lab.clock.advance(lab.samples.start + 40 * DAY - lab.clock.now())
    chain.samples = msgspec.structs.replace(chain.samples, end=None)
    for day in range(40):
        lab.write_day(day)

    def slow(ctx: TrainContext) -> None:
        lab.clock.advance(timedelta(hours=hours))
        (ctx.output / "model").write_text("")

    monkeypatch.setattr("tests.unit.operators.late_chain.train", slow)
    chain.run()
    chain.runs += 1
    chain.task("checkpoint")
    chain.task("samples")
    assert [notice.event for notice in lab.ti.notices] == [Event.NEVER_CATCHES_UP] * told
    if told:
        assert "one takes 26.0 h and another one arrives every 24.0 h" in lab.ti.notices[0].sentence


def test_late_data_bound_depends_on_head_only(lab: Any, chain: Chain) -> None:
    chain.limits = SplitLimits(target_seconds=1e-9)
    for day in range(6):
        lab.write_day(day)
    chain.run(2)
    chain.runs += 1
    chain.task("checkpoint")
    split = chain.task("samples")
    chain.runs += 1
    for task_id in TASKS:
        chain.task(task_id)
    chain.runs -= 1
    assert chain.task("samples")["digest"] == split["digest"]
