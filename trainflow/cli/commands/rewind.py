"""`trainflow checkpoints rewind`: go back in a chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE, moment_before
from trainflow.cli.person_author import person
from trainflow.cli.render.output import JSON_OPTION, print_json, text
from trainflow.pluralize import counted
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from trainflow.actions.chains.rewind import RewoundChain


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("rewind")(rewind)


def rewind(
    pipeline: str = PIPELINE,
    to: str | None = typer.Option(
        None, "--to", metavar="SEQUENCE|ID|beginning", help="The checkpoint that becomes the head."
    ),
    before: str | None = typer.Option(
        None, "--before", metavar="DATE", help="To the newest checkpoint that has trained nothing from then on."
    ),
    cascade: bool = typer.Option(False, "--cascade", help="Rewind later stages that went on from what is undone, too."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be rewound."),
    reason: str = typer.Option("", "--reason", metavar="TEXT", help="Why; it is kept in the ledger."),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Move the head of a chain back; nothing is deleted.

    Training goes forward again from there.

    Refused while a run of the chain has not ended, and where a later stage started from a checkpoint that would be
    undone: --cascade rewinds that one, too. Skips after the new head are taken back.

    An alias whose checkpoint is undone goes back to the checkpoint that was promoted to it before, if that stays and
    has its files; in MLflow, too.

    JSON: {rewound: [{chain, from, from_id, to (0: the beginning), to_id, watermark, undone, pruned_up_to (the end of
    what was asked for, where its files were pruned and it goes back further; else null), aliases (alias: id of the
    checkpoint that has it again, or null)}], dry_run}.
    """
    from trainflow.actions.chains import rewind as action
    from trainflow.clock import SystemClock

    with open_pipeline(pipeline) as file:
        chain = file.one_chain(stage, branch)
        plan = action.plan_rewind(chain, to=to, before=moment_before(before), cascade=cascade)
        if dry_run:
            done = plan.outcome(dry_run=True)
        else:
            done = action.rewind(file, chain, plan, who=person(), now=SystemClock().now(), reason=reason)
    if as_json:
        print_json(done)
    for each in [] if as_json else done.rewound:
        _show(each, dry_run=dry_run)
    return 0


def _show(each: RewoundChain, *, dry_run: bool) -> None:
    _say_what_was_pruned(each)
    target = f"checkpoint {each.to}" if each.to_id else "before the first checkpoint"
    trained = f", trained up to {text(each.watermark)}" if each.watermark else ""
    would = "would be rewound" if dry_run else "is rewound"
    typer.echo(
        f"{each.chain} {would} from checkpoint {each.from_} to {target}{trained}: "
        f"{counted(each.undone, 'checkpoint')} undone"
    )
    for alias, again in each.aliases.items():
        typer.echo(f"{alias!r} {'goes back to checkpoint ' + again if again else 'names no checkpoint any more'}")


def _say_what_was_pruned(each: RewoundChain) -> None:
    """Say it where a rewind goes further back than was asked for, since the files of nearer checkpoints are gone."""
    if each.pruned_up_to is None:
        return
    upto = text(each.pruned_up_to)
    if each.to_id is None:
        typer.echo(
            f"{each.chain}: the checkpoints up to {upto} were pruned, none of them can be gone on from: it begins anew"
        )
        return
    typer.echo(
        f"{each.chain}: the checkpoints from {text(each.watermark)} up to {upto} were pruned: it goes back to the "
        "nearest one that is kept before them"
    )
