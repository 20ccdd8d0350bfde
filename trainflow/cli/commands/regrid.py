"""`trainflow regrid`: go on with samples that are cut or placed otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import BRANCH, OVERRIDES, PIPELINE, STAGE, parse_overrides
from trainflow.cli.person import person
from trainflow.cli.render.output import JSON_OPTION, print_json
from trainflow.errors import InputError
from trainflow.workspace.pipelines import Chain, open_pipeline
from trainflow.workspace.under_way import active_runs

if TYPE_CHECKING:
    from trainflow.actions.regrid import Regridding
    from trainflow.checkpoints.ledger.entries import Regrid


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("regrid")(regrid)


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
    chain = open_pipeline(pipeline, parse_overrides(overrides)).one_chain(stage, branch)
    found = _look(chain)
    written = None
    if found is not None and not dry_run:
        refuse_while_running(chain)
        written = record(chain, found, reason)
    if as_json:
        print_json(_facts(chain, found, written, dry_run=dry_run))
    else:
        typer.echo(_said(chain, found, written))
    return 0


def record(chain: Chain, found: Regridding, reason: str) -> Regrid | None:
    """Write the entry. Raises InputError where it would not be exact."""
    from trainflow.actions.regrid import go_on
    from trainflow.clock import SystemClock

    return go_on(chain.ledger(), found, by=person(chain.dag_id), now=SystemClock().now(), reason=reason)


def refuse_while_running(chain: Chain) -> None:
    """Raise InputError while a run of the chain has not ended."""
    runs = active_runs(chain.project, chain.settings, chain.dag_id)
    if runs:
        raise InputError(
            f"run {runs[0]} of {chain.dag_id} has not ended, and keeps the samples that it began with. Nothing was "
            f"recorded; wait for it, or end it with 'trainflow runs cancel {chain.dag_id} {runs[0]}'"
        )


def _look(chain: Chain) -> Regridding | None:
    from trainflow.actions.regrid import regridding
    from trainflow.clock import SystemClock

    return regridding(chain.ledger(), chain.existing_samples(), chain.project.root, SystemClock().now())


def _facts(chain: Chain, found: Regridding | None, written: Regrid | None, *, dry_run: bool) -> dict[str, Any]:
    change, compared = (found.change, found.compared) if found else (None, None)
    key = chain.key
    return {
        "pipeline": key.pipeline,
        "stage": key.stage,
        "branch": key.branch,
        "dry_run": dry_run,
        "old": _grid(change.old) if change else None,
        "new": _grid(change.new) if change else None,
        "at": change.edge if change else None,
        "same": compared.same if compared else None,
        "other": len(compared.other) if compared else None,
        "gone": compared.gone if compared else None,
        "hole": change.untrained if change else None,
        "sequence": written.sequence if written else None,
    }


def _grid(grid: Any) -> dict[str, Any]:
    from trainflow.samples.partitions import length_label

    return {"path": grid.path, "start": grid.start, "length": length_label(grid)}


def _said(chain: Chain, found: Regridding | None, written: Regrid | None) -> str:
    from trainflow.samples.partitions import label

    if found is None:
        return f"{chain.key}: the samples are those that it was trained on, or differ in nothing that matters"
    change, compared = found.change, found.compared
    verb = "goes on" if written is not None else "would go on"
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
