"""`trainflow repair`: train the holes of a chain that have arrived, or go on with a ledger that has lost entries; and
`regrid`: go on with samples that are cut or placed otherwise."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import typer

from trainflow.cli.arguments import BRANCH, OVERRIDES, PIPELINE, STAGE, parse_overrides, person
from trainflow.cli.render.output import JSON_OPTION, print_json, print_rows, text
from trainflow.errors import InputError
from trainflow.humanize import agreeing, counted, duration
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain, open_pipeline

if TYPE_CHECKING:
    from datetime import datetime

    from trainflow.actions.chains.regrid import RegridDone, RegridPlan
    from trainflow.actions.chains.repair import LossDone, LossPlan, RepairPlan
    from trainflow.checkpoints.ledger.entries import Checkpoint
    from trainflow.checkpoints.ledger_changes.accept_loss import Damage
    from trainflow.workspace.pipelines import PipelineChain

_COLUMNS = {"number": "RUN", "start": "FROM", "end": "TO", "partitions": "PARTITIONS", "rows": "ROWS", "about": "ABOUT"}


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
    head_number, watermark}. With --accept-loss: {chain, whole, restored (numbers of entries), recovered (ids), first,
    last (of the entries that are lost; null: none), untied (numbers), lost ([{id, evidence}]), head_id, watermark
    (after it), entry (the number of the one that accepts it; null: not done, or not needed)}.
    """
    if (yes or reason) and not accept_loss:
        raise InputError("--yes and --reason belong to --accept-loss")
    from trainflow.actions.chains import repair as action
    from trainflow.clock import SystemClock
    from trainflow.workspace.branches import as_branch

    with open_pipeline(pipeline, parse_overrides(overrides)) as opened:
        file, now = opened if accept_loss else as_branch(opened, branch), SystemClock().now()
        chain = file.one_chain(stage, branch)
        if accept_loss:
            return _accept_loss(file, chain, now, yes=yes and not dry_run, reason=reason, as_json=as_json)
        if earlier:
            _record_earlier(chain, now, dry_run=dry_run)
        plan = action.plan_repair(chain, skipped=skipped, now=now)
    if not as_json:
        _show(chain, plan)
    if plan.repairs and not dry_run:
        return _train(file, chain, plan, skipped=skipped, plain=plain, as_json=as_json)
    return _report(chain, plan, dry_run=dry_run) if as_json else 0


def _train(
    file: OpenedPipeline,
    chain: PipelineChain,
    plan: RepairPlan,
    *,
    skipped: bool,
    plain: bool,
    as_json: bool,
) -> int:
    from trainflow.actions.chains.repair import begin_repair_of, repair_done
    from trainflow.cli.start_or_follow import train

    begin = begin_repair_of(chain.dag_id, skipped=skipped)
    # what is shown on the way must not get into the document
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        code = train(file.path, dict(file.overrides), plain=plain or as_json, begin=begin, parsed=file.parsed)
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
    print_rows(rows, _COLUMNS, empty=_nothing(chain, plan))


def _nothing(chain: PipelineChain, plan: RepairPlan) -> str:
    if not plan.open:
        return f"{chain.key} has no holes: nothing to repair"
    hint = "; --skipped trains what a gate or a person skipped, too" if plan.skipped_too else ""
    stepped = f"{plan.open:,} that {chain.key} stepped over"
    return f"nothing to repair: no partition of the {stepped} can be trained now{hint}"


def _accept_loss(
    file: OpenedPipeline, chain: PipelineChain, now: datetime, *, yes: bool, reason: str, as_json: bool
) -> int:
    """Show what is lost; with `yes` put right what can be, and accept the rest. Raises InputError while a run of the
    chain has not ended."""
    from trainflow.actions.chains.repair import accept_loss, plan_accept_loss

    plan = plan_accept_loss(chain)
    done = accept_loss(file, plan, who=person(), now=now, reason=reason) if yes else plan.outcome(None)
    if as_json:
        print_json(done)
    elif plan.damage is None:
        typer.echo(f"{chain.key}: nothing is missing in the ledger")
    else:
        _show_loss(plan, plan.damage, done, accepted=yes)
    return 0


def _show_loss(plan: LossPlan, damage: Damage, done: LossDone, *, accepted: bool) -> None:
    from trainflow.checkpoints.ledger.missing_entries import entries_named

    chain, head = plan.chain, plan.head
    for sentence in _sentences(damage):
        typer.echo(f"{chain.key}: {sentence}")
    goes_on = "nothing: it begins anew"
    if head:
        goes_on = f"checkpoint {head.number} ({head.id}), trained up to {text(head.watermark)}"
    typer.echo(f"{chain.key}: it {'goes' if accepted else 'would go'} on from {goes_on}")
    if done.entry is not None:
        audit = f"'trainflow audit {chain.key.arguments}'"
        typer.echo(f"{chain.key}: {entries_named([done.entry])} keeps what was lost; {audit} tells it")
    elif not accepted:
        typer.echo("nothing was changed: restore a backup where there is one; otherwise '--yes' does this")


def _sentences(damage: Damage) -> list[str]:
    from trainflow.checkpoints.ledger.missing_entries import entries_named

    found = []
    if damage.restored:
        numbers = [copy.entry.sequence for copy in damage.restored]
        aside = f"; what is in the place of {entries_named(damage.damaged)} is set aside" if damage.damaged else ""
        were = agreeing(len(numbers), "it was", "they were")
        found.append(f"{entries_named(numbers)} can be put back as {were}{aside}")
    first, last = damage.state.sequence + 1, damage.newest.sequence
    if last >= first:
        lost = range(first, last + 1)
        are = agreeing(len(lost), "is", "are")
        knows = f"{damage.newest.what} knows of entry {last}"
        found.append(f"{entries_named(lost)} {are} lost or cannot be tied to what is left: {knows}")
    if damage.untied:
        found.append(f"{entries_named(damage.untied)} {agreeing(len(damage.untied), 'is', 'are')} there and set aside")
    found += [
        f"checkpoint {each.id}, {_trained(each)}, is known by its copy and whole: committed again"
        for each in damage.recovered
    ]
    found += [f"checkpoint {name} is lost ({what}); its files are left alone" for name, what in damage.lost.items()]
    if damage.is_lossy:
        found.append("promotions, rewinds and skips among the lost entries are gone, too: look, and make them again")
    return found


def _trained(entry: Checkpoint) -> str:
    return f"{counted(len(entry.split.partitions), 'partition')} up to {text(entry.split.end)}"


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
    of the chain, from which on the new grid holds), same, other, missing (of a table with another path: how many
    trained partitions have the same content there, have another, are not there), hole ({start, end, reason} or null),
    entry (of the entry; null: none was written)}.
    """
    from trainflow.actions.chains import regrid as action
    from trainflow.clock import SystemClock
    from trainflow.workspace.branches import as_branch

    with open_pipeline(pipeline, parse_overrides(overrides)) as opened:
        file, now = as_branch(opened, branch), SystemClock().now()
        plan = action.plan_regrid(file.one_chain(stage, branch), now=now)
        if dry_run:
            done = plan.outcome(None, dry_run=True)
        else:
            done = action.regrid(plan, who=person(), now=now, reason=reason)
    if as_json:
        print_json(done)
    else:
        typer.echo(_regridded(plan, done))
    return 0


def _regridded(plan: RegridPlan, done: RegridDone) -> str:
    from trainflow.samples.partitions import label

    chain, found = plan
    if found is None:
        return f"{chain.key}: the samples are those that it was trained on, or differ in nothing that matters"
    change, compared = found.change, found.compared
    verb = "goes on" if done.entry is not None else "would go on"
    said = f"{chain.key} {verb} at {label(change.edge)} with {change.new}; until then it was {change.old}"
    if compared is not None:
        said += (
            f"\nof the trained partitions {compared.same:,} have the same content there, {len(compared.other):,} "
            f"another, {compared.missing:,} are not there"
        )
    if change.untrained is not None:
        hole = f"{label(change.untrained.start)} to {label(change.untrained.end)}"
        said += f"\n{hole} is recorded as a hole: 'trainflow repair {chain.key.arguments}' trains it"
    return said
