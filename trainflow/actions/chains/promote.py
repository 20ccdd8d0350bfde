"""Give a checkpoint an alias, in the ledger and for the MLflow model registry, and get the stages going that start from
what is promoted; tell of aliases that a rewind moved.

No commit triggers those stages, so the promotion does. What they do then is the rule of their own runs, asked of the
ledgers. Without an engine nothing is begun: the next start looks by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection

from trainflow.actions.first_runs import Look, chains_to_look_at, create_run, lock_dags, will_trigger
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, Checkpoint
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.promote import check_alias
from trainflow.checkpoints.ledger_changes.promote import promote as record
from trainflow.engine.mlflow_dispatcher import enqueue_promotion, results_by_role
from trainflow.errors import InputError
from trainflow.insight.chains.lost_ledger_end import key_of
from trainflow.insight.snapshot import engine_state
from trainflow.metadata.queries import dag_queries, notification_queries, run_queries, xcom_queries
from trainflow.operators.chain.notices import moved_aliases, promotion_notice
from trainflow.serialization.document import DagDocument, decode_known
from trainflow.tracking.deliveries import AliasMoved, Demoted, Promoted, TrackedChain, TrackedCheckpoint, TrackedRun
from trainflow.workspace.names import checkpoint_named
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain
from trainflow.workspace.workspace import Workspace

#: begun: a run was created; at work: a run in progress will reach this checkpoint; waits: the stage waits for another
#: condition; next start: no engine is alive to create a run; looks: a dry run, decided when the checkpoint is promoted
What = Literal["begun", "at work", "waits", "next start", "looks"]


class PromotedStage(msgspec.Struct, frozen=True):
    """What a promotion means for one stage that starts from the promoted checkpoint."""

    dag_id: str
    what: What
    run_id: str | None = None


def follows(document: DagDocument, upstream: ChainKey, alias: str) -> bool:
    """Whether runs of the DAG start from what is promoted to `alias` in the chain."""
    init = document.chain.init_from if document.chain else None
    return init is not None and (init.chain, init.at) == (upstream, "promoted") and init.alias in (None, alias)


def trigger_dependents(workspace: Workspace, upstream: ChainKey, alias: str, now: datetime) -> list[PromotedStage]:
    """Begin a run of each DAG that starts from what was promoted, unless one that is under way comes to it."""
    database = workspace.database
    with database.reading() as connection:
        rows = dag_queries.everything(connection)
    documents = [decode_known(row.dag_id, row.document) for row in rows if row.missing_since is None]
    dependents = [document for document in documents if follows(document, upstream, alias)]
    look = chains_to_look_at(dependents, workspace)
    dag_ids = {key_of(document.chain): document.dag_id for document in documents if document.chain}

    def begin(connection: Connection) -> list[PromotedStage]:
        lock_dags(connection, [document.dag_id for document in dependents])
        return [_trigger(connection, each, dag_ids, look, now) for each in dependents]

    return database.write(begin)


def _trigger(
    connection: Connection, document: DagDocument, dag_ids: Mapping[ChainKey, str], look: Look, now: datetime
) -> PromotedStage:
    assert document.chain is not None
    init, ahead = document.chain.init_from, look(document.chain)
    assert init is not None
    if any(not _is_ending(connection, run, document) for run in run_queries.unfinished_of(connection, document.dag_id)):
        return PromotedStage(document.dag_id, "at work")
    upstream = dag_ids.get(init.chain)
    if ahead is not None and (ahead.waits is not None or (init.once and ahead.begun)):
        return PromotedStage(document.dag_id, "waits")
    if (
        upstream is not None
        and ahead is not None
        and _is_triggered_anyway(connection, upstream, ahead.pinned_run, document, once=init.once)
    ):
        return PromotedStage(document.dag_id, "at work")
    conf: dict[str, Any] = {"init_from": ahead.pin} if ahead is not None and ahead.pin else {}
    number = create_run(connection, document.dag_id, conf, now)
    return PromotedStage(document.dag_id, "begun", run_queries.by_id(connection, number).run_id)


def _is_ending(connection: Connection, run: Any, document: DagDocument) -> bool:
    """Whether it has looked before there was anything to start from, and triggers nothing."""
    head = results_by_role(document, xcom_queries.of_run(connection, run.id)).get("checkpoint")
    return isinstance(head, dict) and bool(head.get("waits"))


def _is_triggered_anyway(
    connection: Connection, upstream: str, pinned_run: str | None, document: DagDocument, *, once: bool
) -> bool:
    """Whether a run of the upstream triggers the follower: one that begins once when the upstream is caught up, any
    other when the newest checkpoint is committed."""
    if once:
        return bool(run_queries.unfinished_of(connection, upstream))
    return will_trigger(connection, upstream, pinned_run, document.dag_id)


def _on_line(ledger: Ledger, which: str) -> Checkpoint:
    """A checkpoint that the head descends from. Raises InputError for one that a rewind left behind; NotFound."""
    checkpoint = checkpoint_named(ledger, which)
    if all(each.id != checkpoint.id for each in ledger.line()):
        number, fork = checkpoint.number, f"trainflow checkpoints fork {ledger.chain.fork_arguments}"
        raise InputError(
            f"checkpoint {number} of {ledger.chain} was left behind by a rewind: only what the head descends from is "
            f"promoted. '{fork} --from {number} --branch NAME' goes on from it, and may promote what comes of that"
        )
    return checkpoint


class PromotionDone(msgspec.Struct, frozen=True):
    """A checkpoint that has the alias now, or would. `promoted`: false where it had it already. `dependents`: what
    becomes of the stages that start from what is promoted."""

    number: int
    id: str
    alias: str
    promoted: bool
    dependents: list[PromotedStage]
    dry_run: bool = False


def plan_promote(file: OpenedPipeline, chain: PipelineChain, which: str, alias: str, *, now: datetime) -> PromotionDone:
    """What `promote` would record; it raises what that does."""
    check_alias(alias)
    ledger = chain.ledger(dry_run=True)
    checkpoint = _on_line(ledger, which)
    entry = record(ledger, checkpoint.id, alias, by=chain.by(Author()), now=now)
    dependents = [PromotedStage(each.dag_id, "looks") for each in file.documents if follows(each, chain.key, alias)]
    return PromotionDone(checkpoint.number, checkpoint.id, alias, entry is not None, dependents, dry_run=True)


def promote(
    file: OpenedPipeline, chain: PipelineChain, which: str, alias: str, *, who: Author, now: datetime, reason: str = ""
) -> PromotionDone:
    """Give the checkpoint of a number, an id or the head the alias; the one that had it loses it.

    Stages that start from what is promoted get going where an engine runs. Raises InputError, ChainMoved, StoreFailure.
    """
    check_alias(alias)
    ledger = chain.ledger()
    checkpoint = _on_line(ledger, which)
    entry = record(ledger, checkpoint.id, alias, by=chain.by(who), now=now, reason=reason)
    # said again where it was so already: one killed in between says it now
    number = entry.sequence if entry is not None else None
    _have_delivered(chain, checkpoint, alias, ledger.store.uri(checkpoint.artifacts.path), number, now)
    dependents = _get_going(file, chain, alias, now)
    return PromotionDone(checkpoint.number, checkpoint.id, alias, entry is not None, dependents)


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
    return Promoted(run, alias, TrackedCheckpoint(checkpoint.id, checkpoint.number, uri, checkpoint.watermark))


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
