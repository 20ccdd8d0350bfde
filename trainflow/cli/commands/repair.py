"""`trainflow repair`: train the holes of a chain that have arrived."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from trainflow.cli.arguments import BRANCH, OVERRIDES, PIPELINE, STAGE, parse_overrides
from trainflow.cli.commands.accept_loss import accept
from trainflow.cli.person_author import person
from trainflow.cli.render.output import JSON_OPTION, duration, print_json, print_rows
from trainflow.errors import InputError
from trainflow.pluralize import counted
from trainflow.workspace.pipelines import PipelineChain, open_pipeline

if TYPE_CHECKING:
    from datetime import datetime

    from trainflow.actions.chains.repair import RepairPlan

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
    accept_loss: bool = typer.Option(
        False, "--accept-loss", help="Instead: show how a ledger goes on that has lost entries for good."
    ),
    yes: bool = typer.Option(False, "--yes", help="With --accept-loss: do it."),
    reason: str = typer.Option("", "--reason", metavar="TEXT", help="With --accept-loss: why, for the ledger."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only show what would be trained."),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    overrides: list[str] = OVERRIDES,
    plain: bool = typer.Option(False, "--plain", help="Plain lines instead of the live panel."),
    as_json: bool = JSON_OPTION,
) -> int:
    """Train what was stepped over and has arrived since.

    On top of the head; the ledger records it.

    --earlier: what lies before where the chain began becomes a hole, once, and is trained after what follows it in
    time.

    The watermark stays where it is. Runs of the pipeline itself do it: one that is under way takes it on, and goes on
    as before then.

    With --accept-loss nothing is trained: it says what of the ledger is lost and what can be put back; with --yes it
    does that, and one entry keeps what was lost, who accepted it and why. A backup is better.

    Exit codes: 0 done (also when there is nothing to repair), 1 a task failed, 2 wrong input, 130 interrupted.

    JSON: {pipeline, stage, branch, dry_run, repairs: [{number, start, end, partitions, rows, bytes, estimated_seconds}]
    (what was found to be repaired), repaired (partitions that are trained now), holes (partitions still stepped over),
    head_sequence, watermark}. With --accept-loss: {chain, whole, restored (numbers of entries), recovered (ids), first,
    last (of the entries that are lost; null: none), untied (numbers), lost ([{id, evidence}]), head_id, watermark
    (after it), entry (the number of the one that accepts it; null: not done, or not needed)}.
    """
    if (yes or reason) and not accept_loss:
        raise InputError("--yes and --reason belong to --accept-loss")
    from trainflow.actions.chains import repair as action
    from trainflow.clock import SystemClock

    given = parse_overrides(overrides)
    with open_pipeline(pipeline, given) as file:
        chain, now = file.one_chain(stage, branch), SystemClock().now()
        if accept_loss:
            return accept(chain, now, yes=yes and not dry_run, reason=reason, as_json=as_json)
        if earlier:
            _record_earlier(chain, now, dry_run=dry_run)
        plan = action.plan_repair(chain, skipped=skipped, now=now)
    if not as_json:
        _show(chain, plan)
    if plan.repairs and not dry_run:
        return _train(file.path, chain, plan, given, skipped=skipped, plain=plain, as_json=as_json)
    return _report(chain, plan, dry_run=dry_run) if as_json else 0


def _train(
    path: Path,
    chain: PipelineChain,
    plan: RepairPlan,
    given: dict[str, str],
    *,
    skipped: bool,
    plain: bool,
    as_json: bool,
) -> int:
    from trainflow.actions.chains.repair import begin_repair_of, repair_done
    from trainflow.cli.commands.start import train

    begin = begin_repair_of(chain.dag_id, skipped=skipped)
    # what is shown on the way must not get into the document
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        code = train(path, given, plain=plain or as_json, begin=begin)
    if as_json:
        _report(chain, plan, dry_run=False)
        return code
    done = repair_done(chain, plan, dry_run=False)
    left = f", {done.holes:,} are still stepped over" if done.holes else ", no hole is left"
    typer.echo(f"{chain.key}: {counted(done.repaired, 'partition')} repaired{left}")
    return code


def _report(chain: PipelineChain, plan: RepairPlan, *, dry_run: bool) -> int:
    from trainflow.actions.chains.repair import repair_done

    print_json(repair_done(chain, plan, dry_run=dry_run))
    return 0


def _record_earlier(chain: PipelineChain, now: datetime, *, dry_run: bool) -> None:
    from trainflow.actions.chains.repair import record_earlier
    from trainflow.samples.partitions import label

    hole = record_earlier(chain, dry_run=dry_run, who=person(), now=now)
    if hole is not None:
        stretch = f"{label(hole.start)} to {label(hole.end)}"
        typer.echo(f"{chain.key}: {stretch} is recorded as a hole, and trained on top of the head", err=True)


def _show(chain: PipelineChain, plan: RepairPlan) -> None:
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
        for each in plan.repairs
    ]
    print_rows(rows, _COLUMNS, as_json=False, empty=_nothing(chain, plan))


def _nothing(chain: PipelineChain, plan: RepairPlan) -> str:
    if not plan.open:
        return f"{chain.key} has no holes: nothing to repair"
    hint = "; --skipped trains what a gate or a person skipped, too" if plan.skipped_too else ""
    stepped = f"{plan.open:,} that {chain.key} stepped over"
    return f"nothing to repair: no partition of the {stepped} can be trained now{hint}"
