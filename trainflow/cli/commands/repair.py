"""`trainflow repair`: train the holes of a chain that have arrived."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import BRANCH, OVERRIDES, PIPELINE, STAGE, parse_overrides
from trainflow.cli.render.output import JSON_OPTION, duration, print_json, print_rows
from trainflow.errors import InputError
from trainflow.pluralize import counted
from trainflow.workspace.pipelines import Chain, open_pipeline

if TYPE_CHECKING:
    from trainflow.actions.repair import PlannedRepair
    from trainflow.samples.split_content import Hole

_COLUMNS = {"number": "RUN", "start": "FROM", "end": "TO", "partitions": "PARTITIONS", "rows": "ROWS", "about": "ABOUT"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("repair")(repair)


def repair(
    pipeline: str = PIPELINE,
    skipped: bool = typer.Option(False, "--skipped", help="Also what a gate or a person skipped on purpose."),
    earlier: bool = typer.Option(
        False, "--earlier", help="First record what the samples have before where the chain began as a hole."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only show what would be trained."),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    overrides: list[str] = OVERRIDES,
    plain: bool = typer.Option(False, "--plain", help="Plain lines instead of the live panel."),
    as_json: bool = JSON_OPTION,
) -> int:
    """Train what was stepped over and has arrived since.

    On top of the head; the ledger records it.

    With --earlier: where the samples start earlier than when the chain began, what lies before becomes a hole, once.
    It is trained on top of the head all the same, so later than what comes after it in time.

    The watermark stays where it is. Runs of the pipeline itself do it: one that is under way takes it on, and goes on
    as before then.

    Exit codes: 0 done (also when there is nothing to repair), 1 a task failed, 2 wrong input, 130 interrupted.

    JSON: {pipeline, stage, branch, dry_run, repairs: [{number, start, end, partitions, rows, bytes, estimated_seconds}]
    (what was found to be repaired), repaired (partitions that are trained now), holes (partitions still stepped over),
    head_sequence, watermark}.
    """
    file = open_pipeline(pipeline, parse_overrides(overrides))
    chain = file.one_chain(stage, branch)
    if earlier:
        _refuse_followers(chain)
        _record_earlier(chain, dry_run=dry_run)
    found, before = _look(chain, skipped=skipped), _open_partitions(chain)
    code = 0
    if not as_json:
        _show(chain, found, skipped=skipped)
    if found and not dry_run:
        # what is shown on the way must not get into the document
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            code = _train(chain, file.path, overrides, skipped=skipped, plain=plain or as_json)
    if as_json or (found and not dry_run):
        _report(chain, found, before, dry_run=dry_run, as_json=as_json)
    return code


def _record_earlier(chain: Chain, *, dry_run: bool) -> None:
    """Have the ledger know of what lies before where the chain began. Raises InputError for samples that differ in more
    than that."""
    from trainflow.actions.regrid import regridding
    from trainflow.cli.commands.regrid import record, refuse_while_running
    from trainflow.clock import SystemClock
    from trainflow.samples.grid_change import what_changed
    from trainflow.samples.partitions import label

    found = regridding(chain.ledger(), chain.existing_samples(), chain.project.root, SystemClock().now())
    if found is None:
        return
    change = found.change
    if change.elsewhere or change.recut or change.untrained is None:
        raise InputError(f"{what_changed(change)}: that is more than an earlier start; 'trainflow regrid' first")
    hole = f"{label(change.untrained.start)} to {label(change.untrained.end)}"
    if dry_run:
        raise InputError(f"{hole} is no hole yet, so there is nothing to show: without --dry-run it becomes one")
    refuse_while_running(chain)
    record(chain, found, "trainflow repair --earlier")
    typer.echo(f"{chain.key}: {hole} is recorded as a hole, and trained on top of the head", err=True)


def _refuse_followers(chain: Chain) -> None:
    init = chain.document.init_from
    if init is not None and not init.once and init.checkpoint_id is None:
        raise InputError(
            f"{chain.key} cannot be repaired: each of its runs starts from {init.chain}, so what one of them stepped "
            "over is in none of the others"
        )


def _look(chain: Chain, *, skipped: bool) -> list[PlannedRepair]:
    from trainflow.actions.repair import planned
    from trainflow.checkpoints.ledger.ancestors import experiences
    from trainflow.checkpoints.upkeep.repairs import open_holes
    from trainflow.clock import SystemClock
    from trainflow.samples.inventory import open_inventory
    from trainflow.samples.pace import limits_for_target, pace_of
    from trainflow.samples.spec import SplitLimits

    _refuse_followers(chain)
    samples, ledger = chain.existing_samples(), chain.ledger()
    history = experiences(ledger, ledger.state())
    limits = limits_for_target(chain.document.limits or SplitLimits(), history)
    seen = open_inventory(samples, chain.project.root, SystemClock().now())
    head = ledger.state().head
    columns = head.split.columns if head else ()
    return planned(samples, open_holes(ledger.state(), skipped=skipped), limits, seen, pace_of(history), columns)


def _open_partitions(chain: Chain) -> int:
    from trainflow.samples.partitions import distance
    from trainflow.samples.repair import merged

    samples = chain.existing_samples()
    return sum(distance(samples, hole.start, hole.end) for hole in merged(_holes(chain)))


def _holes(chain: Chain, *, skipped: bool = True) -> list[Hole]:
    from trainflow.checkpoints.upkeep.repairs import open_holes

    return open_holes(chain.ledger().state(), skipped=skipped)


def _show(chain: Chain, found: list[PlannedRepair], *, skipped: bool) -> None:
    from trainflow.samples.partitions import label

    rows = [
        {
            "number": each.number,
            "start": label(each.start),
            "end": label(each.end),
            "partitions": each.partitions,
            "rows": each.rows,
            "about": duration(each.estimated_seconds),
        }
        for each in found
    ]
    print_rows(rows, _COLUMNS, as_json=False, empty=_nothing(chain, skipped=skipped))


def _nothing(chain: Chain, *, skipped: bool) -> str:
    holes = _open_partitions(chain)
    if not holes:
        return f"{chain.key} has no holes: nothing to repair"
    left_out = not skipped and len(_holes(chain, skipped=False)) < len(_holes(chain))
    hint = "; --skipped trains what a gate or a person skipped, too" if left_out else ""
    return f"nothing to repair: no partition of the {holes:,} that {chain.key} stepped over can be trained now{hint}"


def _train(chain: Chain, path: Any, overrides: list[str], *, skipped: bool, plain: bool) -> int:
    from trainflow.actions.repair import repairing
    from trainflow.cli.commands.start import train

    return train(path, overrides, plain=plain, begin=repairing(chain.dag_id, skipped=skipped))


def _report(chain: Chain, found: list[PlannedRepair], before: int, *, dry_run: bool, as_json: bool) -> None:
    state, holes = chain.ledger().state(), _open_partitions(chain)
    if as_json:
        key = chain.key
        print_json(
            {
                "pipeline": key.pipeline,
                "stage": key.stage,
                "branch": key.branch,
                "dry_run": dry_run,
                "repairs": found,
                "repaired": before - holes,
                "holes": holes,
                "head_sequence": state.head_sequence,
                "watermark": state.watermark,
            }
        )
        return
    left = f", {holes:,} are still stepped over" if holes else ", no hole is left"
    typer.echo(f"{chain.key}: {counted(before - holes, 'partition')} repaired{left}")
