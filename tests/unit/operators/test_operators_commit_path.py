"""The way of a checkpoint from the task that commits it to its ledger entry: how many files it passes."""

from __future__ import annotations

import sys
from typing import Any

from tests.tools.trace_commit import CommitTrace

MOST_FILES = 12


def test_commit_from_task_to_entry_passes_few_files(training: Any, lab: Any) -> None:
    def train(ctx: Any) -> dict[str, float]:
        (ctx.output / "model").write_text("weights")
        return {"auc": 0.7}

    build = training(train, commit={"gates": ["auc >= 0.6"], "promote": []})
    lab.run(build, "train")
    trace = CommitTrace(lab.ti.attempt_id, begins="CommitCheckpointOperator.execute", ends="created")

    before = sys.getprofile()
    sys.setprofile(trace)
    try:
        lab.run(build, "commit")
    finally:
        sys.setprofile(before)

    assert trace.has_ended
    assert "checkpoints/ledger/ledger_writer.py" in trace.files
    assert 8 <= len(trace.files) <= MOST_FILES, str(trace)
