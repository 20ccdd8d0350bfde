"""`trainflow checkpoints rewind`: go back in a chain."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE
from trainflow.cli.commands.promote import have_moved_aliases_delivered
from trainflow.cli.person import person
from trainflow.cli.render.output import JSON_OPTION, print_json, text
from trainflow.errors import InputError
from trainflow.pluralize import counted
from trainflow.workspace.branches import dags_of
from trainflow.workspace.pipelines import Chain, PipelineFile, open_pipeline
from trainflow.workspace.under_way import active_runs

if TYPE_CHECKING:
    from trainflow.checkpoints.actions.cascading_rewind import Undoing
    from trainflow.checkpoints.ledger.ledger import Ledger

BEGINNING = "beginning"


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
    from trainflow.checkpoints.actions.cascading_rewind import undoings

    file = open_pipeline(pipeline)
    chain = file.one_chain(stage, branch)
    ledger = chain.ledger()
    plan = undoings(ledger, _target(ledger, to, before))
    if len(plan) > 1 and not cascade:
        others = ", ".join(f"{each.chain} (checkpoint {each.head_sequence})" for each in plan[:-1])
        raise InputError(
            f"{others} went on from checkpoints of {ledger.chain} that would be undone; nothing was rewound. "
            "--cascade rewinds them as well, --cascade --dry-run shows how far"
        )
    if not dry_run:
        _check_that_nothing_runs(file, plan)
        _rewind(chain, plan, reason)
    if as_json:
        print_json({"rewound": [_undone(each) for each in plan], "dry_run": dry_run})
        return 0
    for each in plan:
        _say_what_was_pruned(each)
        target = f"checkpoint {each.to_sequence}" if each.to_id else "before the first checkpoint"
        trained = f", trained up to {text(each.watermark)}" if each.watermark else ""
        would = "would be rewound" if dry_run else "is rewound"
        typer.echo(
            f"{each.chain} {would} from checkpoint {each.head_sequence} to {target}{trained}: "
            f"{counted(each.undone, 'checkpoint')} undone"
        )
        for alias, again in each.aliases.items():
            typer.echo(f"{alias!r} {'goes back to checkpoint ' + again if again else 'names no checkpoint any more'}")
    return 0


def _target(ledger: Ledger, to: str | None, before: str | None) -> str | None:
    """The id of the checkpoint to rewind to; None: to before the first. Raises InputError."""
    from trainflow.checkpoints.ledger.ancestors import line_back
    from trainflow.workspace.names import checkpoint_named

    if (to is None) == (before is None):
        raise InputError("say where to: either --to SEQUENCE|ID|beginning or --before DATE")
    if to is not None:
        return None if to == BEGINNING else checkpoint_named(ledger, to).id
    limit = moment(before or "")
    return next((each.id for each in line_back(ledger, ledger.state()) if each.watermark <= limit), None)


def _say_what_was_pruned(each: Undoing) -> None:
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


def moment(written: str) -> datetime:
    """What `--before` says. Raises InputError."""
    from trainflow.pipeline_spec.quantities import parse_moment

    try:
        return parse_moment(written)
    except ValueError as error:
        raise InputError(f"--before {written}: {error}") from None


def _check_that_nothing_runs(file: PipelineFile, plan: list[Undoing]) -> None:
    for dag_id in sorted({dag_id for each in plan for dag_id in dags_of(file, each.chain)}):
        runs = active_runs(file.project, file.settings, dag_id)
        if runs:
            raise InputError(
                f"run {runs[0]} of {dag_id} has not ended: what it trains would not fit the chain any more. Nothing "
                f"was rewound; end it with 'trainflow runs cancel {dag_id} {runs[0]}', or wait for it"
            )


def _rewind(chain: Chain, plan: list[Undoing], reason: str) -> None:
    """One ledger after the other, who depends on another first: cut short, the command may be given again."""
    from trainflow.checkpoints.actions.rewind import rewind as move_back
    from trainflow.clock import SystemClock

    for each in plan:
        ledger = chain.ledger(each.chain)
        move_back(
            ledger,
            each.to_id,
            expected_head=each.head_id,
            by=person(chain.dag_id),
            now=SystemClock().now(),
            reason=reason,
        )
        have_moved_aliases_delivered(chain, ledger)


def _undone(each: Undoing) -> dict[str, Any]:
    return {
        "chain": str(each.chain),
        "from": each.head_sequence,
        "from_id": each.head_id,
        "to": each.to_sequence,
        "to_id": each.to_id,
        "watermark": each.watermark,
        "undone": each.undone,
        "pruned_up_to": each.pruned_up_to,
        "aliases": each.aliases,
    }
