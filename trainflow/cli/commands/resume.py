"""`trainflow resume`: say what becomes of a chain that a gate or its samples stopped, and let it go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from trainflow.cli.arguments import BRANCH, OVERRIDES, PIPELINE, STAGE, parse_overrides, person
from trainflow.errors import InputError
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from trainflow.actions.chains.resume import Decision


def resume(
    pipeline: str = PIPELINE,
    accept: bool = typer.Option(
        False, "--accept", help="Commit the checkpoint although gates refused it; nothing is trained again."
    ),
    skip: bool = typer.Option(
        False, "--skip", help="Leave out the split, or the samples that stopped it; the next split records a hole."
    ),
    rewind: int | None = typer.Option(
        None, "--rewind", metavar="N", min=1, help="Go back N checkpoints and train forward again."
    ),
    reason: str = typer.Option("", "--reason", metavar="TEXT", help="Why, for the ledger."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be decided."),
    no_start: bool = typer.Option(False, "--no-start", help="Only record the decision; the next start goes on."),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    overrides: list[str] = OVERRIDES,
    detach: bool = typer.Option(False, "--detach", help="Train in the background and give the terminal back."),
    plain: bool = typer.Option(False, "--plain", help="Plain lines instead of the live panel."),
) -> int:
    """Decide about a chain that is stopped, and go on.

    Stopped by a gate or by its samples; goes on as 'trainflow start' does.

    Without an option the split is trained again: after a change of the code, the parameters, the samples or the gates.
    The decision, who made it and why are in the ledger. A chain that is stopped by its samples (a gap with
    gaps: {then: fail}, a partition that a check refuses) goes on with --skip. Where nothing is stopped, nothing is
    done: 'trainflow start' trains, also once samples are mended.

    Exit codes: 0 done, 1 the chain or a task failed, 2 wrong input, 130 interrupted.
    """
    from trainflow.actions.chains import resume as action
    from trainflow.cli.start_or_follow import train
    from trainflow.clock import SystemClock
    from trainflow.workspace.branches import as_branch

    given = parse_overrides(overrides)
    asked = action.ResumeRequest(
        decision=_decision(accept=accept, skip=skip, rewind=rewind),
        rewind=rewind or 0,
        stage=stage,
        branch=branch,
        only_record=no_start,
    )
    with open_pipeline(pipeline, given) as file:
        now, file = SystemClock().now(), as_branch(file, branch)
        if dry_run:
            done = action.plan_resume(file, asked, now=now)
        else:
            done = action.resume(file, asked, who=person(), now=now, reason=reason)
    if done is not None:
        typer.echo(f"{done.chain}: {done.sentence}")
    if dry_run:
        typer.echo("nothing was recorded, and nothing was started: without --dry-run it is")
    if no_start or dry_run:
        return 0
    return train(file.path, dict(file.overrides), detach=detach, plain=plain, parsed=file.parsed)


def _decision(*, accept: bool, skip: bool, rewind: int | None) -> Decision:
    if sum((accept, skip, rewind is not None)) > 1:
        raise InputError("--accept, --skip and --rewind are three decisions: take one of them")
    return "accept" if accept else "skip" if skip else "rewind" if rewind is not None else "again"
