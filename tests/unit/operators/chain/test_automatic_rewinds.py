"""Samples that change behind the chain's back, operator by operator over real files."""

from __future__ import annotations

import logging
import os
import shutil
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.operators.late_chain import TASKS, Chain
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, CheckpointRef, Rewind
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.fork import fork
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.messages.notice import Event


@pytest.fixture
def chain(lab: Any) -> Chain:
    return Chain(lab)


def rewinds(chain: Chain) -> list[Rewind]:
    return [entry for entry in chain.ledger.entries() if isinstance(entry, Rewind)]


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


def test_replay_of_content_that_comes_back_rewinds_again(lab: Any, chain: Chain) -> None:
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


def test_replay_that_would_lose_what_is_gone_is_refused_and_told(lab: Any, chain: Chain) -> None:
    """Old samples are deleted: what a checkpoint was trained on beside the partition could not be trained on again."""
    chain.policy("replay")
    for day in range(4):
        lab.write_day(day)
    chain.run(4)
    shutil.rmtree(lab.root / "data/date=2013-01-03")
    lab.write_day(1, rows=12)
    chain.task("checkpoint")
    assert rewinds(chain) == []
    assert chain.days() == [0, 1, 2, 3]
    said = (
        "partition 2013-01-02T00:00Z can only be trained on again together with 1 partition that is not there any more"
    )
    assert f"not replayed: {said}, the first is 2013-01-03T00:00Z" in lab.ti.notes[-1]
    # what would not be undone may be gone
    lab.write_day(2)
    shutil.rmtree(lab.root / "data/date=2013-01-01")
    chain.run(3)
    assert [entry.to_checkpoint_id for entry in rewinds(chain)] == [chain.ledger.line()[0].id]
