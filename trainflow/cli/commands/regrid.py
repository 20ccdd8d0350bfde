"""`trainflow regrid`: go on with samples that are cut or placed otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from trainflow.cli.arguments import BRANCH, OVERRIDES, PIPELINE, STAGE, parse_overrides, person
from trainflow.cli.render.output import JSON_OPTION, print_json
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from trainflow.actions.chains.regrid import RegridDone, RegridPlan


def regrid(
    pipeline: str = PIPELINE,
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be recorded."),
    reason: str = typer.Option("", "--reason", metavar="TEXT", help="Why; it is kept in the ledger."),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    overrides: list[str] = OVERRIDES,
    as_json: bool = JSON_OPTION,
) -> int:
    """Go on with samples that are cut or placed otherwise.

    The grid of a table is its path, its start and the length of its partitions; the ledger knows the one that a chain
    was trained on. Where the pipeline file says another one now, nothing is trained until this command has recorded
    that it is meant.

    It keeps every partition trained exactly once, and is refused where that cannot be: the chain has to end where a
    partition of the new grid begins, and a table with another path has to hold the content that was trained (the newest
    partitions are compared). What the table has now before where the chain began is recorded as a hole, which
    'trainflow repair' trains.

    Exit codes: 0 done (also when there is nothing to record), 2 wrong input or refused.

    JSON: {pipeline, stage, branch, dry_run, old, new (each {path, start, length}; null: nothing to record), at (the end
    of the chain, from which on the new grid holds), same, other, gone (of a table with another path: how many trained
    partitions have the same content there, have another, are not there), hole ({start, end, reason} or null), sequence
    (of the entry; null: none was written)}.
    """
    from trainflow.actions.chains import regrid as action
    from trainflow.clock import SystemClock

    with open_pipeline(pipeline, parse_overrides(overrides)) as file:
        now = SystemClock().now()
        plan = action.plan_regrid(file.one_chain(stage, branch), now=now)
        if dry_run:
            done = plan.outcome(None, dry_run=True)
        else:
            done = action.regrid(plan, who=person(), now=now, reason=reason)
    if as_json:
        print_json(done)
    else:
        typer.echo(_said(plan, done))
    return 0


def _said(plan: RegridPlan, done: RegridDone) -> str:
    from trainflow.samples.partitions import label

    chain, found = plan
    if found is None:
        return f"{chain.key}: the samples are those that it was trained on, or differ in nothing that matters"
    change, compared = found.change, found.compared
    verb = "goes on" if done.sequence is not None else "would go on"
    said = f"{chain.key} {verb} at {label(change.edge)} with {change.new}; until then it was {change.old}"
    if compared is not None:
        said += (
            f"\nof the trained partitions {compared.same:,} have the same content there, {len(compared.other):,} "
            f"another, {compared.gone:,} are not there"
        )
    if change.untrained is not None:
        hole = f"{label(change.untrained.start)} to {label(change.untrained.end)}"
        said += f"\n{hole} is recorded as a hole: 'trainflow repair {chain.key.pipeline}' trains it"
    return said
