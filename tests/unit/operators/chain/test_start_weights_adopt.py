"""A chain that begins with a checkpoint that trainflow did not write, operator by operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainflow.authoring.dag import DAG
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Adoption
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes import fork
from trainflow.checkpoints.ledger_changes.import_spec import Adopt
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.errors import ArtifactCorrupt, CheckpointNotFound, InputError
from trainflow.insight.chains.audit import audit_chain
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
from trainflow.storage.urls import open_store

TASKS = ("checkpoint", "samples", "evaluate", "train", "commit")
OLD = Adopt("old/{watermark:%Y%m%d}/")


def train(ctx: TrainContext) -> None:
    assert ctx.parent is not None
    seen = json.loads((ctx.parent.path / "model.json").read_text())
    seen += [row for batch in ctx.split.batches() for row in batch["id"].to_pylist()]
    (ctx.output / "model.json").write_text(json.dumps(seen))


def evaluate(ctx: EvaluateContext) -> dict[str, float]:
    return {"seen": float(len(json.loads((ctx.parent.path / "model.json").read_text())))}


class Adopting:
    def __init__(self, lab: Any) -> None:
        self.lab = lab
        self.adopt = OLD
        for day in range(5):
            lab.write_day(day)

    def old(self, day: str, *ids: int) -> Path:
        folder: Path = self.lab.root / "old" / day
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(json.dumps(ids))
        return folder

    def build(self) -> DAG:
        with DAG("model", max_active_runs=1) as dag:
            head = CheckpointOperator(adopt=self.adopt).output
            split = DataCheckerOperator(
                samples=self.lab.samples, limits=SplitLimits(partitions=1), checkpoint=head
            ).output
            evaluated = EvaluateOperator(function=evaluate, checkpoint=head, split=split).output
            trained = TrainOperator(function=train, checkpoint=head, split=split).output
            CommitCheckpointOperator(checkpoint=head, split=split, trained=trained, evaluated=evaluated)
        return dag

    def run(self, run_id: str, *tasks: str) -> None:
        for task_id in tasks or TASKS:
            self.lab.run(self.build, task_id, run_id=run_id)

    @property
    def ledger(self) -> Ledger:
        return Ledger(open_store("checkpoints", root=self.lab.root), ChainKey("model"))

    def audit(self) -> Any:
        now = self.lab.clock.now()
        return audit_chain(self.ledger, self.lab.samples, self.lab.root, now, verify_files=True, look_at_samples=False)


@pytest.fixture
def adopting(lab: Any) -> Adopting:
    return Adopting(lab)


def test_chain_begins_with_newest_and_trains_on_from_its_watermark(lab: Any, adopting: Adopting) -> None:
    adopting.old("20130102", 1)
    folder = adopting.old("20130103", 1, 2)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    adopting.run("run-1")
    adopting.run("run-2")

    first, checkpoint, second = adopting.ledger.entries()
    assert isinstance(first, Adoption)
    assert (first.uri, first.watermark.day, [file.path for file in first.files]) == ("old/20130103", 3, ["model.json"])
    assert (checkpoint.parent_id, checkpoint.origin, checkpoint.split.start.day) == (None, None, 3)
    assert checkpoint.evaluation == {"seen": 2.0}  # scored like any head, before it was trained on
    assert second.evaluation == {"seen": 12.0}
    model = json.loads((lab.root / "checkpoints" / second.artifacts.path / "model.json").read_text())
    assert model[:2] == [1, 2]
    assert set(model[2:]) == {day * 1000 + row for day in (2, 3) for row in range(10)}
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before
    report = adopting.audit()
    assert (report.ok, report.start, report.gaps, report.notices) == (True, "adopted from old/20130103", [], [])


def test_import_leaves_later_folders_alone(lab: Any, adopting: Adopting) -> None:
    adopting.old("20130103", 1)
    adopting.run("run-1", "checkpoint", "checkpoint")
    adopting.old("20130104", 1)
    adopting.run("run-1", "checkpoint", "samples")
    assert [entry.sequence for entry in adopting.ledger.entries()] == [1]
    assert lab.xcoms["run-1", "samples", "return_value"]["start"].startswith("2013-01-03")
    assert lab.xcoms["run-1", "checkpoint", "return_value"]["id"] is None


def test_import_by_two_engines_one_wins_and_both_go_on(
    lab: Any, adopting: Adopting, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopting.old("20130103", 1)
    real = fork.adopt

    def slower(ledger: Ledger, *args: Any, **kwargs: Any) -> Any:
        if not list(adopting.ledger.entries()):
            adopting.old("20130104", 9)  # and the other one finds a newer one
            monkeypatch.setattr(fork, "adopt", real)
            adopting.run("other", "checkpoint")
        return real(ledger, *args, **kwargs)

    monkeypatch.setattr(fork, "adopt", slower)
    adopting.run("run-1", "checkpoint")
    (entry,) = adopting.ledger.entries()
    assert isinstance(entry, Adoption)
    assert entry.uri == "old/20130104"
    assert lab.xcoms["run-1", "checkpoint", "return_value"]["watermark"].startswith("2013-01-04")


def test_import_of_nothing_does_not_start_from_nothing(lab: Any, adopting: Adopting) -> None:
    with pytest.raises(CheckpointNotFound, match="no checkpoint in old/"):
        adopting.run("run-1", "checkpoint")
    assert list(adopting.ledger.entries()) == []
    adopting.old("20130103", 1)
    adopting.run("run-1")


def test_import_changed_since_is_not_trained_on(lab: Any, adopting: Adopting) -> None:
    folder = adopting.old("20130103", 1)
    adopting.run("run-1", "checkpoint", "samples")
    (folder / "model.json").write_text("[7]")
    with pytest.raises(ArtifactCorrupt, match="is not what the chain adopted"):
        adopting.run("run-1", "train")
    report = adopting.audit()
    assert not report.ok
    assert report.problems == ["old/20130103/model.json is not what was adopted"]
    (folder / "model.json").unlink()
    folder.rmdir()
    assert adopting.audit().problems == ["the folder old/20130103, which the chain adopted, has gone"]


def test_folder_may_go_once_it_was_trained_on(lab: Any, adopting: Adopting) -> None:
    folder = adopting.old("20130103", 1)
    adopting.run("run-1")
    folder.rename(lab.root / "archive")
    adopting.run("run-2")
    report = adopting.audit()
    assert (report.ok, report.notices) == (True, ["the folder old/20130103, which the chain adopted, has gone"])


def test_rewind_to_very_beginning_begins_with_it_again(lab: Any, adopting: Adopting) -> None:
    adopting.old("20130103", 1)
    adopting.run("run-1")
    head = adopting.ledger.checkpoint()
    author = head.by
    rewind(adopting.ledger, None, expected_head=head.id, by=author, now=lab.clock.now())
    adopting.run("run-2")
    again = adopting.ledger.checkpoint()
    assert (again.parent_id, again.split.start.day, again.evaluation) == (None, 3, {"seen": 1.0})
    assert adopting.audit().ok


def test_adopt_and_init_from_exclude_each_other() -> None:
    with pytest.raises(InputError, match="give 'adopt' or 'init_from'"), DAG("model"):
        CheckpointOperator(adopt=OLD, init_from="other/main/main")
