"""`trainflow checkpoints promote`: give a checkpoint an alias, in the ledger and in the MLflow model registry."""

from __future__ import annotations

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE
from trainflow.cli.person_author import person
from trainflow.cli.render.output import JSON_OPTION, print_json
from trainflow.workspace.pipelines import open_pipeline

_BECOMES = {
    "begun": "starts from it now",
    "at work": "is at work, and starts from it with its next run",
    "waits": "waits for something else",
    "next start": "starts from it when an engine runs next: 'trainflow start'",
}


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

    JSON: {sequence, id, alias, promoted (false: it had the alias already), dependents: [{dag_id, what (begun | at work
    | waits | next start), run_id (that was begun; else null)}]}.
    """
    from trainflow.actions.chains import promote as action
    from trainflow.clock import SystemClock

    with open_pipeline(pipeline) as file:
        chain = file.one_chain(stage, branch)
        now = SystemClock().now()
        done = action.promote(file, chain, which, alias, who=person(), now=now, reason=reason)
    if as_json:
        print_json(done)
        return 0
    already = "" if done.promoted else " already"
    typer.echo(f"{chain.key}: checkpoint {done.sequence} is promoted to {done.alias!r}{already}")
    for each in done.dependents:
        typer.echo(f"{each.dag_id} {_BECOMES[each.what]}")
    return 0
