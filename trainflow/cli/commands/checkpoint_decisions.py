"""`trainflow checkpoints promote`, `rewind`, `fork`, `prune` and `sweep`: decide about what is committed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE, duration_of, moment, parse_overrides, person
from trainflow.cli.render.output import JSON_OPTION, columns_of, print_json, print_rows, text
from trainflow.errors import InputError
from trainflow.humanize import agreeing, counted
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from datetime import datetime

    from trainflow.actions.chains.fork import ForkDone, ForkPlan
    from trainflow.actions.chains.rewind import RewoundChain
    from trainflow.workspace.pipelines import OpenedPipeline


_BECOMES = {
    "begun": "starts from it now",
    "at work": "is at work, and starts from it with its next run",
    "waits": "waits for something else",
    "looks": "would look whether it starts from it",
    "next start": "starts from it when an engine runs next: 'trainflow start PIPELINE'",
}


#: of the checkpoints that a rewind undoes, how many are named
_NUMBERS_SHOWN = 20


def promote(
    pipeline: str = PIPELINE,
    which: str = typer.Argument(
        metavar="NUMBER|head|ID|@ALIAS", help="Its number, its id, an alias that it has, or the head."
    ),
    alias: str = typer.Option(..., "--alias", metavar="NAME", help="The alias, e.g. champion."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be promoted."),
    reason: str = typer.Option("", "--reason", metavar="TEXT", help="Why, for the ledger."),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Give a checkpoint of the line an alias. Its files are kept for as long as it has it.

    An alias names one checkpoint: the one that had it loses it. The engine tells MLflow, now or when one runs next.
    Stages that start from what is promoted get going, where an engine runs; else at the next start.

    JSON: {number, id, alias, promoted (false: it had the alias already), dependents: [{dag_id, what (begun | at work
    | waits | next start; looks: of a dry run), run_id (that was begun; else null)}], dry_run}.
    """
    from trainflow.actions.chains import promote as action
    from trainflow.clock import SystemClock

    with open_pipeline(pipeline) as file:
        chain = file.one_chain(stage, branch)
        now = SystemClock().now()
        if dry_run:
            done = action.plan_promote(file, chain, which, alias, now=now)
        else:
            done = action.promote(file, chain, which, alias, who=person(), now=now, reason=reason)
    if as_json:
        print_json(done)
        return 0
    already = "" if done.promoted else " already"
    is_ = "would be" if dry_run and done.promoted else "is"
    typer.echo(f"{chain.key}: checkpoint {done.number} {is_} promoted to {done.alias!r}{already}")
    for each in done.dependents:
        typer.echo(f"{each.dag_id} {_BECOMES[each.what]}")
    return 0


def rewind(
    pipeline: str = PIPELINE,
    to: str | None = typer.Option(
        None, "--to", metavar="NUMBER|ID|@ALIAS|beginning", help="The checkpoint that becomes the head."
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

    JSON: {rewound: [{chain, from, from_id, to (0: the beginning), to_id, watermark, undone, checkpoints (numbers
    of what is undone, oldest first), pruned_up_to (the end of what was asked for, where its files were pruned and it
    goes back further; else null), aliases (alias: number of the checkpoint that has it again, or null), missing (starts
    of partitions of what is undone that are not there any more; null: not known)}], dry_run}.
    """
    from trainflow.actions.chains import rewind as action
    from trainflow.clock import SystemClock

    with open_pipeline(pipeline) as file:
        chain, now = file.one_chain(stage, branch), SystemClock().now()
        plan = action.plan_rewind(chain, to=to, before=moment(before, "--before"), now=now, cascade=cascade)
        if dry_run:
            done = plan.outcome(dry_run=True)
        else:
            done = action.rewind(file, chain, plan, who=person(), now=now, reason=reason)
    if as_json:
        print_json(done)
    for each in [] if as_json else done.rewound:
        _show_rewound(each, dry_run=dry_run)
    return 0


def _show_rewound(each: RewoundChain, *, dry_run: bool) -> None:
    _say_what_was_pruned(each)
    target = f"checkpoint {each.to}" if each.to_id else "before the first checkpoint"
    trained = f", trained up to {text(each.watermark)}" if each.watermark else ""
    if each.from_ == each.to:
        typer.echo(f"{each.chain} is at {target} already{trained}: no checkpoint is undone")
        return
    would = "would be rewound" if dry_run else "is rewound"
    typer.echo(
        f"{each.chain} {would} from checkpoint {each.from_} to {target}{trained}: "
        f"{counted(each.undone, 'checkpoint')} undone{_numbers(each.checkpoints)}"
    )
    for alias, again in each.aliases.items():
        typer.echo(f"{alias!r} {_moves(again, dry_run=dry_run)}")
    if each.missing:
        typer.secho(_cannot_be_trained_again(each.missing), fg=typer.colors.YELLOW)


def _cannot_be_trained_again(missing: list[datetime]) -> str:
    have = f"{counted(len(missing), 'partition')} of that {agreeing(len(missing), 'is', 'are')}"
    return (
        f"{have} not there any more, the first is {text(missing[0])}: training forward again stops there, or steps "
        "over it, as samples.gaps says"
    )


def _moves(again: int | None, *, dry_run: bool) -> str:
    """What becomes of an alias."""
    if again is None:
        return "would name no checkpoint any more" if dry_run else "names no checkpoint any more"
    return f"{'would go' if dry_run else 'goes'} back to checkpoint {again}"


def _numbers(checkpoints: list[int]) -> str:
    """The numbers of what is undone, newest first as it is undone; "" for none."""
    shown = ", ".join(str(number) for number in checkpoints[: -_NUMBERS_SHOWN - 1 : -1])
    more = len(checkpoints) - _NUMBERS_SHOWN
    return f": {shown}{f' and {more} more' if more > 0 else ''}" if shown else ""


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


def fork(
    pipeline: str = PIPELINE,
    origin: str | None = typer.Option(
        None, "--from", metavar="NUMBER|head|ID|@ALIAS", help="The checkpoint to go on from, where one chain is forked."
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

    JSON: {forked: [{chain, origin: {chain, id, number} (null: it begins with nothing), watermark, overrides}],
    dry_run}.
    """
    from trainflow.actions.chains import fork as action
    from trainflow.clock import SystemClock

    asked = action.BranchRequest(
        branch=name,
        overrides=parse_overrides(overrides),
        origin=origin,
        before=moment(before, "--before"),
        stage=stage,
        source=source,
    )
    with open_pipeline(pipeline) as file:
        plan = action.plan_fork(file, asked)
        done = plan.outcome(dry_run=True) if dry_run else action.fork(plan, who=person(), now=SystemClock().now())
    if as_json:
        print_json(done)
    else:
        _show_forked(plan, done)
        if not dry_run:
            typer.echo(f"train it: trainflow start {pipeline} --branch {name}")
    return 0


def _show_forked(plan: ForkPlan, done: ForkDone) -> None:
    for each in done.forked:
        if each.origin is None:
            typer.echo(f"{each.chain} {'would begin' if done.dry_run else 'begins'} with nothing")
            continue
        goes_on = "would go on" if done.dry_run else "goes on"
        where = f"checkpoint {each.origin.number} of {each.origin.chain}"
        typer.echo(f"{each.chain} {goes_on} from {where}, trained up to {text(each.watermark)}")
        if each.chain in plan.complete:
            typer.echo(
                f"{each.chain} has nothing to train: the table ends there. '--before DATE' or '--from CHECKPOINT' with "
                "another --branch forks where samples come after"
            )


DRY_RUN = typer.Option(False, "--dry-run", help="Only say what would go.")
_WHAT = {
    "orphan": "an attempt that never committed",
    "pruned": "a pruned checkpoint",
    "temporary": "a file that was never finished",
    "split": "a split that was handed over in a file, and is trained",
    "partial": "saves inside a split that no attempt goes on from",
}


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

    JSON: {pruned: [{pipeline, stage, branch, number, id, bytes}], bytes, dry_run}.
    """
    import msgspec

    from trainflow.actions.chains import prune as action
    from trainflow.clock import SystemClock

    with open_pipeline(pipeline) as opened:
        chains, now = _of_branch(opened, branch).chosen(stage, branch), SystemClock().now()
        if dry_run:
            done = action.plan_prune(chains, keep_latest, now=now)
        else:
            done = action.prune(chains, keep_latest, who=person(), now=now)
    if as_json:
        print_json(done)
        return 0
    rows = [msgspec.structs.asdict(each) for each in done.pruned]
    columns = {**columns_of([chain.key for chain in chains]), "number": "CHECKPOINT", "id": "ID", "bytes": "BYTES"}
    print_rows(rows, columns, empty="nothing to prune")
    if rows:
        what = "would go" if dry_run else "deleted"
        typer.echo(f"{counted(len(rows), 'checkpoint')}, {counted(done.bytes, 'byte')} {what}")
    return 0


def _of_branch(file: OpenedPipeline, branch: str | None) -> OpenedPipeline:
    """The file as the branch trains it, which keeps what it was forked to keep; one that is not whole has the file's
    own retention."""
    from trainflow.workspace.branches import as_branch

    with contextlib.suppress(InputError):
        file = as_branch(file, branch)
    return file


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

    from trainflow.actions.chains import prune as action
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
        empty="nothing to sweep",
    )
    if rows:
        gone = "would go" if dry_run else "deleted"
        typer.echo(f"{counted(len(rows), 'leftover')}, {counted(done.bytes, 'byte')} {gone}")
    return 0
