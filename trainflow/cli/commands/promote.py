"""`trainflow checkpoints promote`: give a checkpoint an alias, in the ledger and in the MLflow model registry; and what
becomes of aliases in a rewind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE
from trainflow.cli.person import person
from trainflow.cli.render.output import JSON_OPTION, print_json
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from datetime import datetime

    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.ledger.entries import Checkpoint
    from trainflow.checkpoints.ledger.ledger import Ledger
    from trainflow.metadata.database import Database
    from trainflow.serialization.document import DagDocument
    from trainflow.workspace.pipelines import Chain, PipelineFile


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("promote")(promote)


def promote(
    pipeline: str = PIPELINE,
    which: str = typer.Argument(metavar="SEQUENCE|head|ID", help="The checkpoint's number, its id, or the head."),
    alias: str = typer.Option(..., "--alias", metavar="NAME", help="The alias, e.g. champion."),
    reason: str = typer.Option("", "--reason", metavar="TEXT", help="Why, for the ledger."),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Give a checkpoint of the line an alias. Its files are kept for as long as it has it.

    An alias names one checkpoint: the one that had it loses it. The engine tells MLflow, now or when one runs next.
    Stages that start from what is promoted get going, where an engine runs; else at the next start.

    JSON: {sequence, id, alias, promoted (false: it had the alias already), followers: [{dag_id, what (begun | at work |
    waits | next start), run_id (that was begun; else null)}]}.
    """
    from trainflow.checkpoints.actions.promote import check_alias
    from trainflow.checkpoints.actions.promote import promote as record
    from trainflow.clock import SystemClock
    from trainflow.workspace.names import checkpoint_named

    check_alias(alias)
    file, now = open_pipeline(pipeline), SystemClock().now()
    chain = file.one_chain(stage, branch)
    ledger = chain.ledger()
    checkpoint = checkpoint_named(ledger, which)
    entry = record(ledger, checkpoint.id, alias, by=person(chain.dag_id), now=now, reason=reason)
    # said again where it was so already: whoever was killed in between says it now
    number = entry.sequence if entry is not None else None
    _have_delivered(chain, checkpoint, alias, ledger.store.uri(checkpoint.artifacts.path), number, now)
    followers = _get_followers_going(file, chain, alias, now)
    if as_json:
        promoted = {"alias": alias, "promoted": entry is not None, "followers": followers}
        print_json({"sequence": checkpoint.sequence, "id": checkpoint.id, **promoted})
        return 0
    already = "" if entry is not None else " already"
    typer.echo(f"{chain.key}: checkpoint {checkpoint.sequence} is promoted to {alias!r}{already}")
    for each in followers:
        typer.echo(f"{each['dag_id']} {_BECOMES[each['what']]}")
    return 0


_BECOMES = {
    "begun": "starts from it now",
    "at work": "is at work, and starts from it with its next run",
    "waits": "waits for something else",
    "next start": "starts from it when an engine runs next: 'trainflow start'",
}


def _get_followers_going(file: PipelineFile, chain: Chain, alias: str, now: datetime) -> list[dict[str, Any]]:
    """What becomes of the stages that start from what is promoted."""
    from trainflow.workspace.workspace import existing_database

    with existing_database(chain.project, chain.settings) as database:
        if database is not None and _engine_runs(chain, database, now):
            import msgspec

            from trainflow.actions.promoted_stages import get_followers_going
            from trainflow.executors.execution_socket import nudge

            going = get_followers_going(database, chain.project, chain.settings, chain.key, alias, now)
            nudge(chain.project.home.socket_path)
            return [msgspec.to_builtins(each) for each in going]
    waiting = [document.dag_id for document in file.documents if _follows(document, chain, alias)]
    return [{"dag_id": dag_id, "what": "next start", "run_id": None} for dag_id in waiting]


def _engine_runs(chain: Chain, database: Database, now: datetime) -> bool:
    from trainflow.insight.snapshot import engine_state

    return engine_state(chain.project, chain.settings, database, now).alive


def _follows(document: DagDocument, chain: Chain, alias: str) -> bool:
    from trainflow.actions.promoted_stages import follows

    return follows(document, chain.key, alias)


def have_moved_aliases_delivered(chain: Chain, ledger: Ledger) -> None:
    """After a rewind: leave it for the engine to tell MLflow who has the aliases now. Where this is killed, the next
    run of the chain tells it."""
    from trainflow.clock import SystemClock
    from trainflow.executors.execution_socket import nudge
    from trainflow.operators.promotion import moved_aliases
    from trainflow.workspace.workspace import existing_database

    state, now = ledger.state(), SystemClock().now()
    if not state.demoted or not chain.settings.tracking.enabled:
        return
    moved = moved_aliases(ledger, state)
    with existing_database(chain.project, chain.settings) as database:
        if database is not None:
            database.write(lambda connection: _put_off_moved(connection, chain, ledger.chain, moved, now))
    nudge(chain.project.home.socket_path)


def _put_off_moved(connection: Any, chain: Chain, key: ChainKey, moved: list[dict[str, Any]], now: datetime) -> None:
    import msgspec

    from trainflow.engine.mirrored_run import enqueue_promotion
    from trainflow.tracking.deliveries import AliasMoved, Demoted, TrackedChain, TrackedRun

    tracked = TrackedChain(key.pipeline, key.stage, key.branch, chain.document.store)
    run = TrackedRun(chain=tracked, dag_id=chain.dag_id, run_id="", started_at=now)
    for each in msgspec.convert(moved, list[AliasMoved]):
        enqueue_promotion(connection, Demoted(run, each), now)


def _have_delivered(
    chain: Chain, checkpoint: Checkpoint, alias: str, uri: str, entry: int | None, now: datetime
) -> None:
    """Leave it for the engine to tell MLflow and whoever is notified. `entry` is the promotion's number."""
    from trainflow.executors.execution_socket import nudge
    from trainflow.operators.promotion import promotion_notice
    from trainflow.workspace.workspace import existing_database

    notice = promotion_notice(chain.key, checkpoint, alias, uri, dag_id=chain.dag_id, entry=entry)

    def write(connection: Any) -> None:
        from trainflow.engine.mirrored_run import enqueue_promotion
        from trainflow.metadata import notification_queries

        notification_queries.add(connection, notice, now)
        if chain.settings.tracking.enabled:
            enqueue_promotion(connection, _delivery(chain, checkpoint, alias, uri), now, by_hand=True)

    with existing_database(chain.project, chain.settings) as database:
        if database is not None:
            database.write(write)
    nudge(chain.project.home.socket_path)


def _delivery(chain: Chain, checkpoint: Checkpoint, alias: str, uri: str) -> Any:
    from trainflow.tracking.deliveries import Promoted, TrackedChain, TrackedCheckpoint, TrackedRun

    key = chain.key
    run = TrackedRun(
        chain=TrackedChain(key.pipeline, key.stage, key.branch, chain.document.store),
        dag_id=checkpoint.by.dag_id or chain.dag_id,
        run_id=checkpoint.by.run_id,
        started_at=checkpoint.at,
    )
    return Promoted(run, alias, TrackedCheckpoint(checkpoint.id, checkpoint.sequence, uri, checkpoint.watermark))
