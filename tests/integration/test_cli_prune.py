"""`checkpoints prune`, `sweep` and dependents: what is given back, and what is kept for others."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.integration.cli_history import History
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.artifacts import output_folder
from trainflow.checkpoints.ledger.entries import CheckpointRef
from trainflow.checkpoints.stages.dependents import add_dependent
from trainflow.checkpoints.stages.init_from import Dependent
from trainflow.testing.chains import ChainWriter, attempt_id, split_of

LONG_AGO = datetime(2014, 1, 1, tzinfo=UTC).timestamp()


def test_prune_keeps_one_week_of_what_was_trained(history: History) -> None:
    # 2013-01-01 was a Tuesday: Sundays are the days 6, 13, 20
    made = [each.id for each in history.main.commit_many(16)]

    said = history.json("checkpoints", "prune", "flights", "--dry-run")
    assert (said["dry_run"], len(said["pruned"]), len(history.ledger.kept())) == (True, 12, 16)
    history.json("checkpoints", "prune", "flights")

    assert [each.id for each in history.ledger.kept()] == [made[5], made[12], made[14], made[15]]
    assert history.json("checkpoints", "prune", "flights")["pruned"] == []


def test_prune_of_branch_keeps_what_that_was_forked_to_keep(history: History) -> None:
    origin = CheckpointRef(history.main.chain, history.main.commit_many(2)[1].id)
    history.json("checkpoints", "fork", "flights", "--branch", "deep", "--set", "retention.keep_latest=4")
    deep = ChainWriter(history.store, history.root / "deep", ChainKey("flights", "main", "deep"))
    deep.commit(split=split_of(2), origin=origin)
    deep.commit_many(3)
    assert history.json("checkpoints", "prune", "flights", "--branch", "deep")["pruned"] == []
    assert len(deep.ledger.kept()) == 4


def leave_behind(history: History, chain: ChainKey, number: int) -> Path:
    folder = output_folder(history.store, chain, attempt_id(number), history.root)
    (folder / "model.bin").write_bytes(b"12345")
    os.utime(folder / "model.bin", (LONG_AGO, LONG_AGO))
    return folder


def test_sweep_takes_what_dead_attempts_left_in_every_branch(history: History) -> None:
    history.main.commit_many(2)
    left = [leave_behind(history, ChainKey("flights", "main", branch), 50) for branch in ("main", "deeper")]
    other = leave_behind(history, ChainKey("nights"), 50)

    said = history.json("checkpoints", "sweep", "flights", "--dry-run")
    assert [each["chain"] for each in said["swept"]] == ["flights/main/main", "flights/main/deeper"]
    assert (said["bytes"], said["dry_run"], said["swept"][0]["kind"]) == (10, True, "orphan")
    assert all(folder.exists() for folder in left)
    code, out = history.run("checkpoints", "sweep", "flights", "--branch", "deeper")
    assert (code, "1 leftover, 5 bytes deleted" in out) == (0, True)
    assert [folder.exists() for folder in left] == [True, False]

    history.json("checkpoints", "sweep", "flights")

    assert [folder.exists() for folder in (*left, other)] == [False, False, True]
    assert history.run("checkpoints", "sweep", "flights") == (0, "nothing to sweep\n")
    assert history.json("audit", "flights", "--no-samples")["ok"]


def test_dependents_of_another_pipeline_are_listed(history: History) -> None:
    made = history.main.commit_many(4)
    add_dependent(history.store, history.main.chain, Dependent(ChainKey("nights"), "same_watermark"))
    nights = ChainWriter(history.store, history.root / "nights", ChainKey("nights"))
    nights.commit(days=3, origin=CheckpointRef(history.main.chain, made[2].id))

    said = history.json("checkpoints", "dependents", "flights")
    assert said == {
        "dependents": [{"chain": "nights/main/main", "at": "same_watermark", "once": False, "held": 2}],
    }
    code, out = history.run("checkpoints", "dependents", "flights", "--forget", "nights/other/main")
    assert (code, "does not follow" in out) == (2, True)
    code, out = history.run("checkpoints", "dependents", "flights", "--forget", "nights/main/main/more")
    assert (code, "write PIPELINE/STAGE/BRANCH" in out) == (2, True)
    code, out = history.run("checkpoints", "dependents", "flights", "--forget", "nights/main/main")
    assert (code, out) == (0, "no stage of another pipeline follows\n")


def test_sweep_leaves_young_alone_and_what_it_does_not_know(history: History) -> None:
    folder = leave_behind(history, ChainKey("flights"), 50)
    unknown = leave_behind(history, ChainKey("flights"), 51)
    unknown = unknown.rename(unknown.with_name("my-own-folder"))

    assert history.json("checkpoints", "sweep", "flights", "--grace", "36000d")["swept"] == []
    assert len(history.json("checkpoints", "sweep", "flights", "--grace", "36h")["swept"]) == 1
    assert (folder.exists(), unknown.exists()) == (False, True)
    code, said = history.run("checkpoints", "sweep", "flights", "--grace", "soon")
    assert (code, "--grace soon: 'soon' is not a duration" in said) == (2, True)


def test_sweep_spares_what_run_that_has_not_ended_made(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = leave_behind(history, ChainKey("flights"), 50)
    monkeypatch.setattr("trainflow.workspace.workspace.Workspace.living_attempts", lambda *_: {attempt_id(50)})

    assert history.json("checkpoints", "sweep", "flights")["swept"] == []
    assert folder.exists()
