"""The checkpoint that is trained on from, as files on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainflow.errors import ArtifactCorrupt, CheckpointNotFound
from trainflow.operators.chain.head import Head
from trainflow.operators.training.training_context import ParentCheckpoint

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.artifact_cache import ArtifactCache
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.ledger.entries import Artifacts, Checkpoint
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.checkpoints.stages.init_from import UpstreamCheckpoint
    from trainflow.samples.splits.split import Split


def fetch_parent(
    ledger: Ledger, head: Head, split: Split, ti: TaskInstance, foreign: Mapping[str, Any] | None = None
) -> ParentCheckpoint | None:
    """The checkpoint to train on from: that of the upstream where the stage has one, else the head that was handed
    over, else what the chain adopted (`foreign`: the options for it), else None. Every digest is checked.

    Raises CheckpointNotFound, ArtifactCorrupt, StoreFailure.
    """
    upstream = head.upstream_of(split.start, split.end)
    if upstream is not None and head.upstream is not None:
        return _fetch_upstream(ledger, head.upstream, upstream, ti)
    return _fetch_adopted(ledger, ti, foreign) if head.id is None else _fetch_head(ledger, head, ti)


def earlier_artifacts(ledger: Ledger, head: Head, split: Split) -> list[Artifacts]:
    """The files of the checkpoints that what is trained comes from: the head, and that of another chain it was trained
    from. Both are kept while it may be committed. Raises LedgerCorrupt, StoreFailure."""
    from trainflow.checkpoints.ledger.ledger_writer import Ledger

    places = [(ledger, head.id, (head.entry, head.digest))] if head.id else []
    upstream = head.upstream_of(split.start, split.end)
    if upstream is not None and head.upstream is not None:
        theirs = Ledger(ledger.store, upstream.chain or head.upstream)
        places.append((theirs, upstream.id, (upstream.entry, upstream.digest)))
    found = []
    for chain, checkpoint_id, entry in places:
        with suppress(CheckpointNotFound):  # the chain has moved on: nothing of this is committed
            found.append((_known(chain, entry) or chain.checkpoint(checkpoint_id)).artifacts)
    return found


def fetch_judged(
    ledger: Ledger, head: Head, split: Split, ti: TaskInstance, foreign: Mapping[str, Any] | None = None
) -> ParentCheckpoint | None:
    """The checkpoint that scores the split before it is trained on: the head, else what the chain was forked from, else
    one of the upstream that has not seen the split either, else what the chain adopted, else None. An upstream that
    has would score its own training data. Raises as `fetch_parent`."""
    from trainflow.checkpoints.ledger.entries import Fork
    from trainflow.checkpoints.ledger.ledger_writer import Ledger

    if head.id is not None:
        return _fetch_head(ledger, head, ti)
    start = ledger.state().start
    if isinstance(start, Fork):
        origin = Ledger(ledger.store, start.origin.chain)
        return fetch_committed(origin, start.origin.checkpoint_id, run_scratch(ti), ti)
    upstream = head.upstream_of(split.start, split.end)
    if upstream is None:
        return _fetch_adopted(ledger, ti, foreign)
    if head.upstream is None or upstream.watermark > split.start:
        return None
    return _fetch_upstream(ledger, head.upstream, upstream, ti)


def _fetch_adopted(ledger: Ledger, ti: TaskInstance, options: Mapping[str, Any] | None) -> ParentCheckpoint | None:
    from trainflow.checkpoints.ledger.entries import Adoption
    from trainflow.checkpoints.ledger_changes.import_external import fetch

    start = ledger.state().start
    if not isinstance(start, Adoption):
        return None
    return ParentCheckpoint(
        chain=ledger.chain.prefix,
        id=start.uri,
        number=0,
        watermark=start.watermark,
        path=fetch(start, dict(options or {}), ti.project_root, run_scratch(ti)),
    )


def _fetch_head(ledger: Ledger, head: Head, ti: TaskInstance) -> ParentCheckpoint:
    assert head.id is not None
    return fetch_committed(ledger, head.id, run_scratch(ti), ti, (head.entry, head.digest))


def _fetch_upstream(
    ledger: Ledger, chain: ChainKey, upstream: UpstreamCheckpoint, ti: TaskInstance
) -> ParentCheckpoint:
    from trainflow.checkpoints.ledger.ledger_writer import Ledger

    theirs = Ledger(ledger.store, upstream.chain or chain)
    return fetch_committed(theirs, upstream.id, run_scratch(ti), ti, (upstream.entry, upstream.digest))


def fetch_committed(
    ledger: Ledger, checkpoint_id: str, into: Path, ti: TaskInstance, entry: tuple[int, str] | None = None
) -> ParentCheckpoint:
    """A checkpoint's files: a copy below `into`, or the committed ones where they are large and on this machine.
    `entry`: number and digest (empty: not known) of its ledger entry; then its chain is not looked at.

    Raises CheckpointNotFound, ArtifactCorrupt, StoreFailure.
    """
    known = _known(ledger, entry)
    if known is not None:
        with suppress(ArtifactCorrupt):  # or pruned since: its chain says which of the two
            return _fetched(ledger, known, into, ti)
    return _fetched(ledger, ledger.checkpoint(checkpoint_id), into, ti)


def _known(ledger: Ledger, entry: tuple[int, str] | None) -> Checkpoint | None:
    from trainflow.checkpoints.ledger.entry_files import read_checkpoint

    return read_checkpoint(ledger.store, ledger.chain, *entry) if entry is not None and entry[1] else None


def _fetched(ledger: Ledger, checkpoint: Checkpoint, into: Path, ti: TaskInstance) -> ParentCheckpoint:
    from trainflow.checkpoints.verified_artifacts import fetch

    return ParentCheckpoint(
        chain=ledger.chain.prefix,
        id=checkpoint.id,
        number=checkpoint.number,
        watermark=checkpoint.watermark,
        path=fetch(ledger.store, checkpoint, into, artifact_cache(ti)),
        metrics=dict(checkpoint.metrics),
    )


def artifact_cache(ti: TaskInstance) -> ArtifactCache:
    """What this machine has of the files of checkpoints that are in a store elsewhere."""
    from trainflow.checkpoints.artifact_cache import ArtifactCache

    return ArtifactCache(ti.home.artifact_cache, int(ti.settings.checkpoints.cache_gb * 1e9))


def run_scratch(ti: TaskInstance) -> Path:
    """Where the tasks of this run keep copies of what is in a store elsewhere; its last task clears it."""
    return ti.home.run_scratch(ti.dag_id, ti.run_id)


def clear_run_scratch(ti: TaskInstance) -> None:
    """Give back the disk space. Never raises."""
    shutil.rmtree(run_scratch(ti), ignore_errors=True)


def attempt_scratch(ti: TaskInstance) -> Path:
    """A folder for the working files of this attempt alone; made when it is needed."""
    return ti.home.attempts_scratch / ti.attempt_id


def clear_scratch(folder: Path, keep: Path | None) -> None:
    """Delete the working files of an attempt, but for a folder directly in it to `keep`. Never raises."""
    if keep is None or keep.parent != folder:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path == keep:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
