"""The checkpoint that is trained on from, as files on this machine."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from trainflow.identifiers import canonical_json
from trainflow.operators.head import Head
from trainflow.operators.training import ParentCheckpoint

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.ledger import Ledger


def fetch_parent(ledger: Ledger, head: Head, ti: TaskInstance) -> ParentCheckpoint | None:
    """The checkpoint to go on from: the head that was handed over, else the checkpoint of an earlier stage that the
    chain starts from, else None. Every digest is checked.

    Raises CheckpointNotFound, ArtifactCorrupt, StoreFailure.
    """
    from trainflow.checkpoints.artifacts import fetch
    from trainflow.checkpoints.ledger import Ledger

    if head.id is not None:
        checkpoint = ledger.checkpoint(head.id)
    elif head.origin is not None:
        checkpoint = Ledger(ledger.store, head.origin.chain).checkpoint(head.origin.checkpoint_id)
    else:
        return None
    return ParentCheckpoint(
        id=checkpoint.id,
        sequence=checkpoint.sequence,
        watermark=checkpoint.watermark,
        path=fetch(ledger.store, checkpoint, run_scratch(ti)),
        metrics=dict(checkpoint.metrics),
    )


def run_scratch(ti: TaskInstance) -> Path:
    """Where the tasks of this run keep copies of what is in a store elsewhere; its last task clears it."""
    name = hashlib.sha256(canonical_json([ti.dag_id, ti.run_id])).hexdigest()[:24]
    return ti.home.scratch / "runs" / name


def clear_run_scratch(ti: TaskInstance) -> None:
    """Give back the disk space. Never raises."""
    shutil.rmtree(run_scratch(ti), ignore_errors=True)


def attempt_scratch(ti: TaskInstance) -> Path:
    """A folder for the working files of this attempt alone; made by whoever needs it."""
    return ti.home.scratch / "attempts" / ti.attempt_id
