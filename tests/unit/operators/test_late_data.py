"""Samples that change behind the chain's back, and holes that fill, operator by operator over real files."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from trainflow.authoring.dag import DAG
from trainflow.checkpoints.actions.fork import fork
from trainflow.checkpoints.actions.skip import skip
from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, CheckpointRef, HoleFilled, Rewind
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import SkipException
from trainflow.insight.chains.audit import audit_chain
from trainflow.insight.chains.chain_status import standing
from trainflow.messages.notice import Event
from trainflow.operators import (
    CheckpointOperator,
    CommitCheckpointOperator,
    DataCheckerOperator,
    GapPolicy,
    SplitLimits,
    TrainContext,
    TrainOperator,
    TriggerDagRunOperator,
)
from trainflow.samples.spec import Republished
from trainflow.storage.urls import open_store

TASKS = ("checkpoint", "samples", "train", "commit", "next")
DAY = timedelta(days=1)


def train(ctx: TrainContext) -> None:
    """The "model" is the list of ids it was trained on."""
    seen = json.loads((ctx.parent.path / "model.json").read_text()) if ctx.parent else []
    seen += [row for batch in ctx.split.batches() for row in batch["id"].to_pylist()]
    (ctx.output / "model.json").write_text(json.dumps(seen))


class Chain:
    """A pipeline over the lab's days, one partition a run."""

    def __init__(self, lab: Any) -> None:
        self.lab = lab
        lab.clock.advance(timedelta(days=36_500))  # long after the files are written, so that no gap is waited for
        self.samples = msgspec.structs.replace(lab.samples, gaps=GapPolicy(0, "skip"))
        self.limits = SplitLimits(partitions=1)
        self.retention: Any = None
        self.runs = 0

    def policy(self, policy: Any, window_days: float | None = None) -> None:
        window = None if window_days is None else window_days * 86_400
        self.samples = msgspec.structs.replace(self.samples, republished=Republished(policy, window))

    def build(self) -> DAG:
        with DAG("model", max_active_runs=1) as dag:
            head = CheckpointOperator().output
            split = DataCheckerOperator(samples=self.samples, limits=self.limits, checkpoint=head).output
            trained = TrainOperator(function=train, checkpoint=head, split=split).output
            commit = CommitCheckpointOperator(checkpoint=head, split=split, trained=trained, retention=self.retention)
            commit >> TriggerDagRunOperator(task_id="next", trigger_dag_id="model", carry_conf=("repair", "skipped"))
        return dag

    def task(self, task_id: str, **facts: Any) -> Any:
        return self.lab.run(self.build, task_id, run_id=f"run-{self.runs}", **facts)

    def run(self, count: int = 1, **conf: Any) -> None:
        for _ in range(count):
            self.runs += 1
            for task_id in TASKS:
                self.task(task_id, conf=conf)

    @property
    def ledger(self) -> Ledger:
        return Ledger(open_store("checkpoints", root=self.lab.root), ChainKey("model"))

    def kinds(self) -> list[str]:
        return [type(entry).__name__ for entry in self.ledger.entries()]

    def model(self) -> list[int]:
        head = self.ledger.checkpoint()
        ids: list[int] = json.loads((self.lab.root / "checkpoints" / head.artifacts.path / "model.json").read_text())
        return ids

    def days(self) -> list[int]:
        """The days the model was trained on, in order."""
        return list(dict.fromkeys(row // 1000 for row in self.model()))

    def left_out(self) -> tuple[list[int], list[int]]:
        """What an audit calls left out on purpose, and what it says has arrived: the days of January."""
        root, now = self.lab.root, self.lab.clock.now()
        report = audit_chain(self.ledger, self.samples, root, now, verify_files=False, look_at_samples=True)
        told = [notice for notice in report.notices if "arrived" in notice]
        assert len(told) == bool(report.arrived)
        assert standing(self.ledger, self.samples, root, now).holes_arrived == len(report.arrived)
        return [each.start.day for each in report.left_out], [each.day for each in report.arrived]

    def report(self) -> Any:
        report = audit(self.ledger, self.samples, self.lab.clock.now())
        assert report.problems == []
        return report


@pytest.fixture
def chain(lab: Any) -> Chain:
    return Chain(lab)


def rewinds(chain: Chain) -> list[Rewind]:
    return [entry for entry in chain.ledger.entries() if isinstance(entry, Rewind)]


# -- published again ---------------------------------------------------------------------------------------------------


def test_late_data_unchanged_is_silent(lab: Any, chain: Chain) -> None:
    for day in range(3):
        lab.write_day(day)
    chain.run(3)
    chain.task("checkpoint")
    assert "published again" not in lab.ti.notes[-1]
    assert lab.ti.notices == []


def test_alert_names_partition_and_changes_nothing(lab: Any, chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    for day in range(4):
        lab.write_day(day)
    chain.run(3)
    lab.write_day(1, rows=12)
    with caplog.at_level(logging.WARNING):
        chain.run()
    assert chain.kinds() == ["Checkpoint"] * 4
    assert chain.days() == [0, 1, 2, 3]
    assert "partition 2013-01-02T00:00Z was published again after checkpoint 2 was trained on it" in caplog.text
    chain.task("checkpoint")
    assert "2013-01-02T00:00Z was published again" in lab.ti.notes[-1]
    (notice,) = lab.ti.notices
    assert (notice.event, notice.pipeline, notice.facts["partitions"][0]["checkpoint"]) == (
        Event.REPUBLISHED,
        "model",
        2,
    )
    first = notice.key
    chain.task("checkpoint")
    assert lab.ti.notices[0].key == first  # the same fact is told once


def test_ignored_is_not_looked_at(lab: Any, chain: Chain) -> None:
    chain.policy("ignore")
    for day in range(3):
        lab.write_day(day)
    chain.run(2)
    lab.write_day(0, rows=12)
    chain.task("checkpoint")
    assert "published" not in lab.ti.notes[-1]


@pytest.mark.parametrize(("window", "noticed"), [(None, True), (4, True), (3, False)])
def test_late_data_outside_window_is_not_compared(lab: Any, chain: Chain, window: float | None, noticed: bool) -> None:
    chain.policy("alert", window)
    for day in range(5):
        lab.write_day(day)
    chain.run(5)
    lab.write_day(1, rows=12)
    chain.task("checkpoint")
    assert ("2013-01-02T00:00Z was published again" in lab.ti.notes[-1]) is noticed


@pytest.mark.parametrize("late", [True, False])
def test_replay_rewinds_to_before_partition_and_trains_forward_again(lab: Any, chain: Chain, late: bool) -> None:
    chain.policy("replay")
    for day in range(4):
        lab.write_day(day)
    chain.run(4)
    if late:  # a file that came late: the partition has grown
        (lab.root / "data/date=2013-01-02/part-1.parquet").write_bytes(
            (lab.root / "data/date=2013-01-02/part-0.parquet").read_bytes()
        )
    else:
        lab.write_day(1, rows=12)
    chain.run(3)
    assert chain.kinds() == ["Checkpoint"] * 4 + ["Rewind"] + ["Checkpoint"] * 3
    (entry,) = rewinds(chain)
    assert (entry.cause, entry.to_checkpoint_id) == ("replay", chain.ledger.line()[0].id)
    (replayed,) = entry.replayed
    assert (replayed.start.day, replayed.trained == replayed.found) == (2, False)
    assert "2013-01-02T00:00Z" in entry.reason
    assert chain.days() == [0, 1, 2, 3]
    assert len(chain.model()) == (50 if late else 42)
    assert chain.report().partitions == 4
    chain.task("checkpoint")  # and nothing is left to replay
    assert chain.kinds().count("Rewind") == 1


def test_late_data_first_partition_is_replayed_from_nothing(lab: Any, chain: Chain) -> None:
    chain.policy("replay")
    for day in range(2):
        lab.write_day(day)
    chain.run(2)
    lab.write_day(0, rows=12)
    chain.run(2)
    assert rewinds(chain)[0].to_checkpoint_id is None
    assert len(chain.model()) == 22


def test_kill_after_rewind_leaves_nothing_to_do_twice(lab: Any, chain: Chain) -> None:
    chain.policy("replay")
    for day in range(3):
        lab.write_day(day)
    chain.run(3)
    lab.write_day(1, rows=12)
    chain.runs += 1
    chain.task("checkpoint")  # killed here: its outcome is lost
    for task_id in TASKS:
        chain.task(task_id)
    chain.run()
    assert chain.kinds() == ["Checkpoint"] * 3 + ["Rewind"] + ["Checkpoint"] * 2
    assert chain.days() == [0, 1, 2]


def test_run_that_trained_on_old_line_is_fenced_off(lab: Any, chain: Chain) -> None:
    chain.policy("replay")
    for day in range(3):
        lab.write_day(day)
    chain.run(2)
    chain.runs += 1
    for task_id in ("checkpoint", "samples", "train"):
        chain.task(task_id)
    lab.write_day(1, rows=12)
    chain.runs += 1
    chain.task("checkpoint")  # of another engine
    chain.runs -= 1
    with pytest.raises(Exception, match="Nothing was changed"):
        chain.task("commit")
    assert chain.kinds() == ["Checkpoint", "Checkpoint", "Rewind"]


def test_late_data_changed_during_replay_is_replayed_once_more(lab: Any, chain: Chain) -> None:
    chain.policy("replay")
    for day in range(2):
        lab.write_day(day)
    chain.run(2)
    for rows in range(11, 14):
        lab.write_day(1, rows=rows)
        chain.run()  # one rewind a run
    lab.write_day(1, rows=14)
    assert [len(entry.replayed) for entry in rewinds(chain)] == [1, 1, 1]
    chain.task("checkpoint")
    assert "not replayed: partition 2013-01-02T00:00Z was replayed 3 times within a day" in lab.ti.notes[-1]
    lab.clock.advance(timedelta(days=2))
    chain.run()
    assert len(rewinds(chain)) == 4


def test_replay_of_a_content_that_comes_back_rewinds_again(lab: Any, chain: Chain) -> None:
    chain.policy("replay")
    folder = lab.write_day(0)
    chain.run()
    file = folder / "part-0.parquet"
    one, moment = file.read_bytes(), file.stat()
    contents = [(lab.write_day(0, rows=12) / "part-0.parquet").read_bytes(), one]

    def put(content: bytes, nanoseconds: int) -> None:
        file.write_bytes(content)
        os.utime(file, ns=(nanoseconds, nanoseconds))

    for number in (0, 1, 0):  # it becomes B, then A again, and B once more
        put(contents[number], moment.st_mtime_ns + number)
        chain.run()
    assert [entry.cause for entry in rewinds(chain)] == ["replay"] * 3


def test_replay_is_refused_when_checkpoint_before_it_is_gone(lab: Any, chain: Chain) -> None:
    chain.policy("replay")
    chain.retention = KeepLatest(2)
    for day in range(5):
        lab.write_day(day)
    chain.run(4)
    lab.write_day(1, rows=12)
    chain.run()
    assert rewinds(chain) == []
    assert chain.days() == [0, 1, 2, 3, 4]
    chain.task("checkpoint")
    assert "not replayed: the files of checkpoint" in lab.ti.notes[-1]
    assert "were pruned" in lab.ti.notes[-1]


def test_replay_leaves_branch_that_was_forked_from_what_it_undoes(lab: Any, chain: Chain) -> None:
    chain.policy("replay")
    for day in range(3):
        lab.write_day(day)
    chain.run(3)
    branch = Ledger(chain.ledger.store, ChainKey("model", "main", "try"))
    head = chain.ledger.checkpoint()
    fork(branch, CheckpointRef(ChainKey("model"), head.id), head.watermark, by=Author(), now=lab.clock.now())
    lab.write_day(1, rows=12)
    chain.task("checkpoint")
    assert [entry.cause for entry in rewinds(chain)] == ["replay"]
    assert branch.state().sequence == 1
    [told] = [value for (_, task_id, key), value in lab.xcoms.items() if (task_id, key) == ("checkpoint", "late_data")]
    assert told.endswith("rewound to before it; training goes forward again")


def test_partition_that_is_being_written_again_is_not_compared_yet(lab: Any, chain: Chain) -> None:
    chain.policy("replay")
    for day in range(2):
        lab.write_day(day)
    chain.run(2)
    folder = lab.write_day(1, rows=12)
    (folder / "_SUCCESS").unlink()
    chain.task("checkpoint")
    assert rewinds(chain) == []
    (folder / "_SUCCESS").touch()
    chain.task("checkpoint")
    assert len(rewinds(chain)) == 1


# -- repair ------------------------------------------------------------------------------------------------------------


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


# -- target ------------------------------------------------------------------------------------------------------------


def test_splits_grow_until_run_takes_as_long_as_it_should(
    lab: Any, chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.limits = SplitLimits(target_seconds=3600)
    for day in range(31):
        lab.write_day(day)

    def takes(ctx: TrainContext) -> None:
        lab.clock.advance(timedelta(seconds=300) + len(ctx.split.partitions) * timedelta(seconds=300))
        (ctx.output / "model").write_text("")

    monkeypatch.setattr(__name__ + ".train", takes)
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


# -- lag ---------------------------------------------------------------------------------------------------------------


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

    monkeypatch.setattr(__name__ + ".train", slow)
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
