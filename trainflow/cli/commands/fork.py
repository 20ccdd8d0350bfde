"""`trainflow checkpoints fork`: begin a branch, a chain beside each of a pipeline's chains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from trainflow.cli.arguments import PIPELINE, STAGE, moment_before, parse_overrides
from trainflow.cli.person_author import person
from trainflow.cli.render.output import JSON_OPTION, print_json, text
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from trainflow.actions.chains.fork import ForkDone, ForkPlan


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("fork")(fork)


def fork(
    pipeline: str = PIPELINE,
    origin: str | None = typer.Option(
        None, "--from", metavar="SEQUENCE|head|ID", help="The checkpoint to go on from, where one chain is forked."
    ),
    before: str | None = typer.Option(
        None,
        "--before",
        metavar="DATE",
        help="Each chain from its newest checkpoint that has trained nothing from then on.",
    ),
    name: str = typer.Option(..., "--branch", metavar="NAME", help="The new branch."),
    overrides: list[str] = typer.Option(
        [], "--set", metavar="NAME=VALUE", help="What the branch does otherwise, e.g. --set params.rate=0.1."
    ),
    stage: str | None = STAGE,
    source: str | None = typer.Option(None, "--of", metavar="BRANCH", help="The branch to fork; default: the file's."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be forked."),
    as_json: bool = JSON_OPTION,
) -> int:
    """Begin a branch beside the chains of a file.

    Over the same samples, from checkpoints of theirs.

    Every stage begins the branch, or the one that --stage names: at its head, or at its newest checkpoint before DATE.
    A stage whose weights came from a checkpoint of another one that is not in the branch begins further back, so that
    they fit together; one that has no checkpoint there begins with nothing. A command that was cut short is completed
    by the same command. What a branch was forked from is kept for as long as it is there. `trainflow start PIPELINE
    --branch NAME` trains it.

    JSON: {forked: [{chain, origin: {chain, id, sequence} (null: it begins with nothing), watermark, overrides}],
    dry_run}.
    """
    from trainflow.actions.chains import fork as action
    from trainflow.clock import SystemClock

    asked = action.BranchRequest(
        branch=name,
        overrides=parse_overrides(overrides),
        origin=origin,
        before=moment_before(before),
        stage=stage,
        source=source,
    )
    with open_pipeline(pipeline) as file:
        plan = action.plan_fork(file, asked)
        done = plan.outcome(dry_run=True) if dry_run else action.fork(plan, who=person(), now=SystemClock().now())
    if as_json:
        print_json(done)
    else:
        _show(plan, done)
        if not dry_run:
            typer.echo(f"train it: trainflow start {pipeline} --branch {name}")
    return 0


def _show(plan: ForkPlan, done: ForkDone) -> None:
    for each in done.forked:
        if each.origin is None:
            typer.echo(f"{each.chain} {'would begin' if done.dry_run else 'begins'} with nothing")
            continue
        goes_on = "would go on" if done.dry_run else "goes on"
        where = f"checkpoint {each.origin.sequence} of {each.origin.chain}"
        typer.echo(f"{each.chain} {goes_on} from {where}, trained up to {text(each.watermark)}")
        if each.chain in plan.complete:
            typer.echo(
                f"{each.chain} has nothing to train: the table ends there. '--before DATE' or '--from CHECKPOINT' with "
                "another --branch forks where samples come after"
            )
