"""`trainflow checkpoints promote`: give a checkpoint an alias, in the ledger and in the MLflow model registry; and what
becomes of aliases in a rewind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.output import JSON_OPTION, print_json
from trainflow.cli.person import person
from trainflow.cli.pipelines import BRANCH, PIPELINE, STAGE, open_pipeline

if TYPE_CHECKING:
    from datetime import datetime

    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.entries import Checkpoint
    from trainflow.checkpoints.ledger import Ledger
    from trainflow.cli.pipelines import Chain


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("promote")(promote)


def promote(
    pipeline: str = PIPELINE,
    which: str = typer.Argument(metavar="SEQUENCE|head|ID", help="The checkpoint's number, its id, or the head."),
    alias: str = typer.Option(..., "--alias", help="The alias, e.g. champion."),
    reason: str = typer.Option("", "--reason", help="Why, for the ledger."),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Give a checkpoint of the line an alias. Its files are kept for as long as it has it.

    An alias names one checkpoint: the one that had it loses it. The engine tells MLflow, now or when one runs next.

    JSON: {sequence, id, alias, promoted (false: it had the alias already)}.
    """
    from trainflow.checkpoints.promote import check_alias
    from trainflow.checkpoints.promote import promote as record
    from trainflow.cli.checkpoints import find
    from trainflow.clock import SystemClock

    check_alias(alias)
    chain, now = open_pipeline(pipeline).one_chain(stage, branch), SystemClock().now()
    ledger = chain.ledger()
    checkpoint = find(ledger, which)
    entry = record(ledger, checkpoint.id, alias, by=person(chain.dag_id), now=now, reason=reason)
    # said again where it was so already: whoever was killed in between says it now
    number = entry.sequence if entry is not None else None
    _have_delivered(chain, checkpoint, alias, ledger.store.uri(checkpoint.artifacts.path), number, now)
    if as_json:
        promoted = entry is not None
        print_json({"sequence": checkpoint.sequence, "id": checkpoint.id, "alias": alias, "promoted": promoted})
    else:
        already = "" if entry is not None else " already"
        typer.echo(f"{chain.key}: checkpoint {checkpoint.sequence} is promoted to {alias!r}{already}")
    return 0


def have_moved_aliases_delivered(chain: Chain, ledger: Ledger) -> None:
    """After a rewind: leave it for the engine to tell MLflow who has the aliases now. Where this is killed, the next
    run of the chain tells it."""
    from trainflow.cli.databases import existing_database
    from trainflow.clock import SystemClock
    from trainflow.executors.supervision import nudge
    from trainflow.operators.promotion import moved_aliases

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

    from trainflow.engine.mirrored_run import put_off
    from trainflow.tracking.deliveries import AliasMoved, Demoted, TrackedChain, TrackedRun

    tracked = TrackedChain(key.pipeline, key.stage, key.branch, chain.document.store)
    run = TrackedRun(chain=tracked, dag_id=chain.dag_id, run_id="", started_at=now)
    for each in msgspec.convert(moved, list[AliasMoved]):
        put_off(connection, Demoted(run, each), now)


def _have_delivered(
    chain: Chain, checkpoint: Checkpoint, alias: str, uri: str, entry: int | None, now: datetime
) -> None:
    """Leave it for the engine to tell MLflow and whoever is notified. `entry` is the promotion's number."""
    from trainflow.cli.databases import existing_database
    from trainflow.executors.supervision import nudge
    from trainflow.operators.promotion import promotion_notice

    notice = promotion_notice(chain.key, checkpoint, alias, uri, dag_id=chain.dag_id, entry=entry)

    def write(connection: Any) -> None:
        from trainflow.engine.mirrored_run import put_off
        from trainflow.metadata import notification_queries

        notification_queries.add(connection, notice, now)
        if chain.settings.tracking.enabled:
            put_off(connection, _delivery(chain, checkpoint, alias, uri), now, by_hand=True)

    with existing_database(chain.project, chain.settings) as database:
        if database is not None:
            database.write(write)
    nudge(chain.project.home.socket_path)


def _delivery(chain: Chain, checkpoint: Checkpoint, alias: str, uri: str) -> Any:
    from trainflow.tracking.deliveries import CheckpointSummary, Promoted, TrackedChain, TrackedRun

    key = chain.key
    run = TrackedRun(
        chain=TrackedChain(key.pipeline, key.stage, key.branch, chain.document.store),
        dag_id=checkpoint.by.dag_id or chain.dag_id,
        run_id=checkpoint.by.run_id,
        started_at=checkpoint.at,
    )
    return Promoted(run, alias, CheckpointSummary(checkpoint.id, checkpoint.sequence, uri, checkpoint.watermark))
