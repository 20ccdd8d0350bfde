"""`trainflow checkpoints prune` and `sweep`: give back the space of what is not needed any more."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE
from trainflow.cli.person import person
from trainflow.cli.render.chain_columns import columns_of
from trainflow.cli.render.output import JSON_OPTION, print_json, print_rows
from trainflow.errors import InputError
from trainflow.pluralize import counted
from trainflow.workspace.pipelines import Chain, PipelineFile, open_pipeline
from trainflow.workspace.under_way import living_attempts

if TYPE_CHECKING:
    from trainflow.checkpoints.ledger.ledger import Ledger
    from trainflow.checkpoints.upkeep.garbage import Leftover

DRY_RUN = typer.Option(False, "--dry-run", help="Only say what would go.")
_WHAT = {
    "orphan": "an attempt that never committed",
    "pruned": "a pruned checkpoint",
    "temporary": "a file that was never finished",
    "split": "a split that was handed over in a file, and is trained",
    "partial": "saves inside a split that nobody goes on from",
}


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command("prune")(prune)
    group.command("sweep")(sweep)


def prune(
    pipeline: str = PIPELINE,
    keep_latest: int | None = typer.Option(
        None,
        "--keep-latest",
        metavar="N",
        min=1,
        help="Keep the newest N, instead of what the pipeline's retention says.",
    ),
    dry_run: bool = DRY_RUN,
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Delete files that the pipeline's retention does not keep.

    Never the head, a promoted checkpoint, what another chain was forked or started from, or what a following stage has
    not passed yet; the ledger keeps what they were trained on.

    Of a pipeline with stages: in each that has a retention.

    JSON: {pruned: [{pipeline, stage, branch, sequence, id, bytes}], bytes, dry_run}.
    """
    chains = open_pipeline(pipeline).chosen(stage, branch)
    if keep_latest is None and not any(chain.access.retention for chain in chains):
        names = ", ".join(str(chain.key) for chain in chains)
        raise InputError(f"{names}: no retention is set, so everything is kept: say --keep-latest N")
    rows = [row for chain in chains for row in _prune(chain, keep_latest, dry_run=dry_run)]
    size = sum(row["bytes"] for row in rows)
    if as_json:
        print_json({"pruned": rows, "bytes": size, "dry_run": dry_run})
        return 0
    columns = {**columns_of([chain.key for chain in chains]), "sequence": "SEQUENCE", "id": "ID", "bytes": "BYTES"}
    print_rows(rows, columns, as_json=False, empty="nothing to prune")
    if rows:
        what = "would go" if dry_run else "deleted"
        typer.echo(f"{counted(len(rows), 'checkpoint')}, {counted(size, 'byte')} {what}")
    return 0


def _prune(chain: Chain, keep_latest: int | None, *, dry_run: bool) -> list[dict[str, Any]]:
    """What goes, or would."""
    from trainflow.checkpoints.actions.prune import prune as delete
    from trainflow.checkpoints.upkeep.retention import KeepLatest, Policy
    from trainflow.clock import SystemClock

    policies: list[Policy] = [KeepLatest(keep_latest)] if keep_latest is not None else list(chain.access.retention)
    found = chain.ledger()
    before = {each.id: each for each in found.kept()}
    going = delete(
        found,
        policies,
        by=person(chain.dag_id),
        now=SystemClock().now(),
        followers=chain.access.followers,
        reason="trainflow checkpoints prune",
        dry_run=dry_run,
    )
    return [
        {**found.chain.names, "sequence": before[each].sequence, "id": each, "bytes": before[each].size}
        for each in going
    ]


def sweep(
    pipeline: str = PIPELINE,
    grace: str = typer.Option("7d", "--grace", metavar="TIME", help="Leave alone what is younger, e.g. 12h."),
    dry_run: bool = DRY_RUN,
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Delete what dead attempts left behind in the store.

    Artifacts never committed, files never finished.

    In every chain of the pipeline, its branches too, or in the one that --stage and --branch name. What belongs to a
    run that has not ended stays, however old; what trainflow cannot have written stays too. A sweep that was killed is
    finished by the next.

    JSON: {swept: [{chain, kind (orphan | pruned | temporary | split | partial), path, files, size, modified}], bytes,
    dry_run}.
    """
    from trainflow.checkpoints.upkeep.garbage import sweep as find
    from trainflow.clock import SystemClock

    file = open_pipeline(pipeline)
    patience, now = _duration(grace), SystemClock().now()
    living = living_attempts(file.project, file.settings)
    rows = [
        _leftover(ledger, each)
        for ledger in _ledgers(file, stage, branch)
        for each in find(ledger, now, grace=patience, living=living, dry_run=dry_run)
    ]
    size = sum(row["size"] for row in rows)
    if as_json:
        shown = [{name: value for name, value in row.items() if name != "what"} for row in rows]
        print_json({"swept": shown, "bytes": size, "dry_run": dry_run})
        return 0
    print_rows(
        rows,
        {"what": "WHAT", "path": "PATH", "files": "FILES", "size": "BYTES", "modified": "LAST TOUCHED"},
        as_json=False,
        empty="nothing to sweep",
    )
    if rows:
        typer.echo(f"{counted(len(rows), 'leftover')}, {counted(size, 'byte')} {'would go' if dry_run else 'deleted'}")
    return 0


def _leftover(ledger: Ledger, found: Leftover) -> dict[str, Any]:
    return {
        "chain": str(ledger.chain),
        "kind": found.kind,
        "what": _WHAT[found.kind],
        "path": ledger.store.uri(found.path),
        "files": found.files,
        "size": found.size,
        "modified": found.modified,
    }


def _ledgers(file: PipelineFile, stage: str | None, branch: str | None) -> list[Ledger]:
    """The chain that is meant, or every chain of the file's pipelines that the store has."""
    from trainflow.checkpoints.actions.prune import chains_of

    if stage or branch:
        return [chain.ledger() for chain in file.chosen(stage, branch)]
    found: dict[tuple[str, str], Ledger] = {}
    for chain in file.some_chains():
        ledger = chain.ledger()
        for key in [ledger.chain, *chains_of(ledger.store, ledger.chain.pipeline)]:
            found.setdefault((ledger.store.url, str(key)), chain.ledger(key))
    return list(found.values())


def _duration(written: str) -> timedelta:
    from trainflow.pipeline_spec.quantities import parse_duration

    try:
        found = parse_duration(written)
    except ValueError as error:
        raise InputError(f"--grace {written}: {error}") from None
    return found
