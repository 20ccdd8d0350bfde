"""`trainflow checkpoints prune` and `sweep`: give back the space of what is not needed any more."""

from __future__ import annotations

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE, duration_of
from trainflow.cli.person_author import person
from trainflow.cli.render.chain_columns import columns_of
from trainflow.cli.render.output import JSON_OPTION, print_json, print_rows
from trainflow.pluralize import counted
from trainflow.workspace.pipelines import open_pipeline

DRY_RUN = typer.Option(False, "--dry-run", help="Only say what would go.")
_WHAT = {
    "orphan": "an attempt that never committed",
    "pruned": "a pruned checkpoint",
    "temporary": "a file that was never finished",
    "split": "a split that was handed over in a file, and is trained",
    "partial": "saves inside a split that no attempt goes on from",
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
    import msgspec

    from trainflow.actions.chains import prune as action
    from trainflow.clock import SystemClock

    with open_pipeline(pipeline) as file:
        chains, now = file.chosen(stage, branch), SystemClock().now()
        if dry_run:
            done = action.plan_prune(chains, keep_latest, now=now)
        else:
            done = action.prune(chains, keep_latest, who=person(), now=now)
    if as_json:
        print_json(done)
        return 0
    rows = [msgspec.structs.asdict(each) for each in done.pruned]
    columns = {**columns_of([chain.key for chain in chains]), "sequence": "SEQUENCE", "id": "ID", "bytes": "BYTES"}
    print_rows(rows, columns, as_json=False, empty="nothing to prune")
    if rows:
        what = "would go" if dry_run else "deleted"
        typer.echo(f"{counted(len(rows), 'checkpoint')}, {counted(done.bytes, 'byte')} {what}")
    return 0


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
    import msgspec

    from trainflow.actions.chains import sweep as action
    from trainflow.clock import SystemClock

    with open_pipeline(pipeline) as file:
        delete = action.plan_sweep if dry_run else action.sweep
        done = delete(file, stage, branch, grace=duration_of(grace, "--grace"), now=SystemClock().now())
    if as_json:
        print_json(done)
        return 0
    rows = [{**msgspec.structs.asdict(each), "what": _WHAT[each.kind]} for each in done.swept]
    print_rows(
        rows,
        {"what": "WHAT", "path": "PATH", "files": "FILES", "size": "BYTES", "modified": "LAST TOUCHED"},
        as_json=False,
        empty="nothing to sweep",
    )
    if rows:
        gone = "would go" if dry_run else "deleted"
        typer.echo(f"{counted(len(rows), 'leftover')}, {counted(done.bytes, 'byte')} {gone}")
    return 0
