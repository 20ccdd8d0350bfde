"""A chain over real files that are published late or again."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import msgspec

from trainflow.authoring.dag import DAG
from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.insight.chains.audit import audit_chain
from trainflow.insight.chains.chain_status import chain_status_of
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
        assert chain_status_of(self.ledger, self.samples, root, now).holes_arrived == len(report.arrived)
        return [each.start.day for each in report.left_out], [each.day for each in report.arrived]

    def report(self) -> Any:
        report = audit(self.ledger, self.samples)
        assert report.problems == []
        return report
