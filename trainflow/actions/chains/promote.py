"""Give a checkpoint an alias, in the ledger and for the MLflow model registry; tell of aliases that a rewind moved."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from trainflow.actions.chains.promoted_stages import PromotedStage, follows, trigger_dependents
from trainflow.checkpoints.actions.promote import check_alias
from trainflow.checkpoints.actions.promote import promote as record
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, Checkpoint
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.engine.mirrored_run import enqueue_promotion
from trainflow.insight.snapshot import engine_state
from trainflow.metadata import notification_queries
from trainflow.operators.promotion import moved_aliases, promotion_notice
from trainflow.tracking.deliveries import AliasMoved, Demoted, Promoted, TrackedChain, TrackedCheckpoint, TrackedRun
from trainflow.workspace.names import checkpoint_named
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain


class PromotionDone(msgspec.Struct, frozen=True):
    """A checkpoint that has the alias now. `promoted`: false where it had it already. `dependents`: what becomes of the
    stages that start from what is promoted."""

    sequence: int
    id: str
    alias: str
    promoted: bool
    dependents: list[PromotedStage]


def promote(
    file: OpenedPipeline, chain: PipelineChain, which: str, alias: str, *, who: Author, now: datetime, reason: str = ""
) -> PromotionDone:
    """Give the checkpoint of a number, an id or the head the alias; the one that had it loses it.

    Stages that start from what is promoted get going where an engine runs. Raises InputError, ChainMoved, StoreFailure.
    """
    check_alias(alias)
    ledger = chain.ledger()
    checkpoint = checkpoint_named(ledger, which)
    entry = record(ledger, checkpoint.id, alias, by=chain.by(who), now=now, reason=reason)
    # said again where it was so already: one killed in between says it now
    number = entry.sequence if entry is not None else None
    _have_delivered(chain, checkpoint, alias, ledger.store.uri(checkpoint.artifacts.path), number, now)
    dependents = _get_going(file, chain, alias, now)
    return PromotionDone(checkpoint.sequence, checkpoint.id, alias, entry is not None, dependents)


def _get_going(file: OpenedPipeline, chain: PipelineChain, alias: str, now: datetime) -> list[PromotedStage]:
    workspace = chain.workspace
    database = workspace.existing_database
    if database is not None and engine_state(workspace.project, workspace.settings, database, now).alive:
        going = trigger_dependents(workspace, chain.key, alias, now)
        workspace.wake_engine()
        return going
    waiting = [document.dag_id for document in file.documents if follows(document, chain.key, alias)]
    return [PromotedStage(dag_id, "next start") for dag_id in waiting]


def _have_delivered(
    chain: PipelineChain, checkpoint: Checkpoint, alias: str, uri: str, entry: int | None, now: datetime
) -> None:
    """Leave it for the engine to tell MLflow and the targets of notices. `entry` is the promotion's number."""
    notice = promotion_notice(chain.key, checkpoint, alias, uri, dag_id=chain.dag_id, entry=entry)

    def write(connection: Connection) -> None:
        notification_queries.add(connection, notice, now)
        if chain.workspace.settings.tracking.enabled:
            enqueue_promotion(connection, _delivery(chain, checkpoint, alias, uri), now, by_hand=True)

    database = chain.workspace.existing_database
    if database is not None:
        database.write(write)
    chain.workspace.wake_engine()


def _delivery(chain: PipelineChain, checkpoint: Checkpoint, alias: str, uri: str) -> Promoted:
    run = TrackedRun(
        chain=_tracked(chain, chain.key),
        dag_id=checkpoint.by.dag_id or chain.dag_id,
        run_id=checkpoint.by.run_id,
        started_at=checkpoint.at,
    )
    return Promoted(run, alias, TrackedCheckpoint(checkpoint.id, checkpoint.sequence, uri, checkpoint.watermark))


def have_moved_aliases_delivered(chain: PipelineChain, ledger: Ledger, now: datetime) -> None:
    """After a rewind: leave it for the engine to tell MLflow who has the aliases now. Where this is killed, the next
    run of the chain tells it."""
    state, workspace = ledger.state(), chain.workspace
    if not state.demoted or not workspace.settings.tracking.enabled:
        return
    moved = moved_aliases(ledger, state)
    database = workspace.existing_database
    if database is not None:
        database.write(lambda connection: _put_off_moved(connection, chain, ledger.chain, moved, now))
    workspace.wake_engine()


def _put_off_moved(
    connection: Connection, chain: PipelineChain, key: ChainKey, moved: list[dict[str, Any]], now: datetime
) -> None:
    run = TrackedRun(chain=_tracked(chain, key), dag_id=chain.dag_id, run_id="", started_at=now)
    for each in msgspec.convert(moved, list[AliasMoved]):
        enqueue_promotion(connection, Demoted(run, each), now)


def _tracked(chain: PipelineChain, key: ChainKey) -> TrackedChain:
    return TrackedChain(key.pipeline, key.stage, key.branch, chain.document.store)
