"""The checkpoint that is trained on from, as files on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainflow.operators.chain.head import Head
from trainflow.operators.training.training_context import ParentCheckpoint

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.ledger.ledger import Ledger
    from trainflow.samples.splits.split import Split


def fetch_parent(
    ledger: Ledger, head: Head, split: Split, ti: TaskInstance, foreign: Mapping[str, Any] | None = None
) -> ParentCheckpoint | None:
    """The checkpoint to train on from: that of the upstream where the stage has one, else the head that was handed
    over, else what the chain adopted (`foreign`: the options for it), else None. Every digest is checked.

    Raises CheckpointNotFound, ArtifactCorrupt, StoreFailure.
    """
    from trainflow.checkpoints.ledger.ledger import Ledger

    origin = head.origin_of(split.start, split.end)
    if origin is not None:
        return _fetch(Ledger(ledger.store, origin.chain), origin.checkpoint_id, ti)
    return _fetch_adopted(ledger, ti, foreign) if head.id is None else _fetch(ledger, head.id, ti)


def fetch_judged(
    ledger: Ledger, head: Head, split: Split, ti: TaskInstance, foreign: Mapping[str, Any] | None = None
) -> ParentCheckpoint | None:
    """The checkpoint that scores the split before it is trained on: the head, else what the chain was forked from, else
    one of the upstream that has not seen the split either, else what the chain adopted, else None. An upstream that
    has would score its own training data. Raises as `fetch_parent`."""
    from trainflow.checkpoints.ledger.entries import Fork
    from trainflow.checkpoints.ledger.ledger import Ledger

    if head.id is not None:
        return _fetch(ledger, head.id, ti)
    start = ledger.state().start
    if isinstance(start, Fork):
        return _fetch(Ledger(ledger.store, start.origin.chain), start.origin.checkpoint_id, ti)
    upstream = head.upstream_of(split.start, split.end)
    if upstream is None:
        return _fetch_adopted(ledger, ti, foreign)
    if head.upstream is None or upstream.watermark > split.start:
        return None
    return _fetch(Ledger(ledger.store, upstream.chain or head.upstream), upstream.id, ti)


def _fetch_adopted(ledger: Ledger, ti: TaskInstance, options: Mapping[str, Any] | None) -> ParentCheckpoint | None:
    from trainflow.checkpoints.ledger.entries import Adoption
    from trainflow.checkpoints.ledger_changes.import_external import fetch

    start = ledger.state().start
    if not isinstance(start, Adoption):
        return None
    return ParentCheckpoint(
        chain=ledger.chain.prefix,
        id=start.uri,
        sequence=start.sequence,
        watermark=start.watermark,
        path=fetch(start, dict(options or {}), ti.project_root, run_scratch(ti)),
    )


def _fetch(ledger: Ledger, checkpoint_id: str, ti: TaskInstance) -> ParentCheckpoint:
    return fetch_committed(ledger, checkpoint_id, run_scratch(ti))


def fetch_committed(ledger: Ledger, checkpoint_id: str, into: Path) -> ParentCheckpoint:
    """A checkpoint's files: a copy below `into`, or the committed ones where they are large and on this machine.

    Raises CheckpointNotFound, ArtifactCorrupt, StoreFailure.
    """
    from trainflow.checkpoints.verified_artifacts import fetch

    checkpoint = ledger.checkpoint(checkpoint_id)
    return ParentCheckpoint(
        chain=ledger.chain.prefix,
        id=checkpoint.id,
        sequence=checkpoint.sequence,
        watermark=checkpoint.watermark,
        path=fetch(ledger.store, checkpoint, into),
        metrics=dict(checkpoint.metrics),
    )


def run_scratch(ti: TaskInstance) -> Path:
    """Where the tasks of this run keep copies of what is in a store elsewhere; its last task clears it."""
    return ti.home.run_scratch(ti.dag_id, ti.run_id)


def clear_run_scratch(ti: TaskInstance) -> None:
    """Give back the disk space. Never raises."""
    shutil.rmtree(run_scratch(ti), ignore_errors=True)


def attempt_scratch(ti: TaskInstance) -> Path:
    """A folder for the working files of this attempt alone; made when it is needed."""
    return ti.home.attempts_scratch / ti.attempt_id
