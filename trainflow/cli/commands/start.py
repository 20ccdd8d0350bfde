"""`trainflow start`: train a pipeline, as the engine of its home or through the one that is alive; and `resume`: say
what becomes of a chain that a gate or its samples stopped, and let it go on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from trainflow.cli.arguments import BRANCH, OVERRIDES, PIPELINE, STAGE, parse_overrides, person
from trainflow.cli.render.output import EXIT_INTERRUPTED
from trainflow.errors import EngineAlreadyRunning, InputError
from trainflow.workspace.locate import pipeline_path
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from trainflow.actions.chains.resume import Decision
    from trainflow.actions.first_runs import Begin
    from trainflow.actions.start import TrainingRequest
    from trainflow.insight.progress import ProgressFeed
    from trainflow.messages.workload import ParseResult


def start(
    pipeline: str = typer.Argument(
        metavar="PIPELINE", help="A pipeline file (YAML or Python), or the name of one in pipelines/."
    ),
    overrides: list[str] = typer.Option(
        [], "--set", metavar="NAME=VALUE", help="Override a value of the pipeline, e.g. --set split.partitions=7."
    ),
    branch: str | None = typer.Option(
        None, "--branch", metavar="NAME", help="Train this branch, begun with 'trainflow checkpoints fork'."
    ),
    detach: bool = typer.Option(False, "--detach", help="Train in the background and give the terminal back."),
    plain: bool = typer.Option(False, "--plain", help="Plain lines instead of the live panel."),
    failpoint: int | None = typer.Option(
        None,
        "--failpoint",
        metavar="SEED",
        help="Kill attempts and the engine at random steps while training, then audit.",
    ),
    ready: int | None = typer.Option(None, "--ready-descriptor", hidden=True),
) -> int:
    """Train a pipeline until it is caught up.

    In mode latest until you stop it with Ctrl-C. Continues at the head of the chain. Becomes the engine of the
    project when none is alive, otherwise hands the run to the one that is and follows it. Ctrl-C stops in good order,
    a second Ctrl-C at once; the next start goes on.

    Exit codes: 0 done, 1 the chain or a task failed, 2 wrong input, 130 interrupted.
    """
    path, given = pipeline_path(pipeline), parse_overrides(overrides)
    if branch is not None:
        from trainflow.workspace.branches import overrides_of_branch
        from trainflow.workspace.workspace import open_workspace

        with open_workspace(path) as workspace:
            given = overrides_of_branch(workspace, path, branch, given)
    if failpoint is not None:
        from trainflow.cli.commands.start_failpoint import start_with_failpoints
        from trainflow.settings.project import project_of

        if detach:
            raise InputError("--failpoint is there to be watched: leave out --detach")
        options = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
        return start_with_failpoints(project_of(path), path, failpoint, [*options, "--plain"] if plain else options)
    return train(path, given, detach=detach, plain=plain, ready=ready)


def train(
    path: Path,
    overrides: dict[str, str],
    *,
    plain: bool,
    detach: bool = False,
    ready: int | None = None,
    begin: Begin | None = None,
    parsed: ParseResult | None = None,
) -> int:
    """Train a pipeline file, as the engine of its home or through the one that is alive. `begin`: what is begun there;
    by default what `trainflow start` begins. `parsed`: what was read of the file already. Returns the exit code."""
    from trainflow.actions.start import request_training

    request = request_training(path, overrides, begin, parsed)
    if detach:
        return _detached(request)
    code = None
    while code is None:
        try:
            code = _as_engine(request, plain=plain, ready=ready)
        except EngineAlreadyRunning as other:
            if not other.pid:
                raise
            typer.echo(f"an engine is alive (pid {other.pid}): following it")
            code = _as_follower(request, plain=plain, ready=ready)
    return code


def _as_engine(request: TrainingRequest, *, plain: bool, ready: int | None) -> int:
    from trainflow.actions.start import train_as_engine
    from trainflow.clock import SystemClock

    begun = False
    try:
        with train_as_engine(request, SystemClock()) as (engine, feeds):
            from trainflow.cli.live.session import Session, say_where_chains_stand

            begun = True
            _say_what_goes_on(feeds, request.stored)
            _say_ready(ready)
            code = Session(engine, feeds, plain=plain).run()
    except KeyboardInterrupt:
        if begun:
            raise
        typer.echo("stopped before anything was begun")
        return EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED:
        say_where_chains_stand(feeds, request.stored, request.workspace, request.overrides)
    return code


def _as_follower(request: TrainingRequest, *, plain: bool, ready: int | None) -> int | None:
    """The exit code; None when the engine was about to end and has not taken up what was begun here."""
    from trainflow.actions.start import train_through_engine
    from trainflow.cli.live.session import follow
    from trainflow.clock import SystemClock

    try:
        with train_through_engine(request, SystemClock()) as (client, feeds):
            _say_what_goes_on(feeds, request.stored)
            _say_ready(ready)
            return follow(client, feeds, plain=plain)
    except KeyboardInterrupt:
        typer.echo("not following any more; the engine goes on ('trainflow stop' ends it)")
        return EXIT_INTERRUPTED


def _detached(request: TrainingRequest) -> int:
    """0 once it trains; its own exit code where it has ended already."""
    from trainflow.actions.start import train_detached

    started = train_detached(request)
    if started.exit_code is None:
        typer.echo(f"training in the background (pid {started.pid})")
        typer.echo("  trainflow status    where it is      trainflow stop    end it in good order")
        typer.echo(f"  {started.log}")
        return 0
    if started.exit_code:
        typer.echo(f"it ended at once (exit code {started.exit_code}); the end of {started.log}:", err=True)
        typer.echo("\n".join(started.log.read_text().splitlines()[-15:]), err=True)
    return started.exit_code


def _say_what_goes_on(feeds: list[ProgressFeed], stored: str) -> None:
    """A run keeps the tasks of the version that it began with and the wait it is in, while a task that starts now reads
    the file as it is: which part of a change is in force is not to be guessed."""
    for each in feeds:
        if each.outdated is not None:
            typer.echo(
                f"{each.dag_id}: goes on with run {each.outdated}, which began before the pipeline was changed: "
                "its tasks, its --set and a wait under way stay as they were, and what starts now reads the file as it "
                "is (functions, params, samples). To have all of the change now: 'trainflow runs cancel "
                f"{each.dag_id} {each.outdated}', then 'trainflow start {stored}'"
            )


def _say_ready(descriptor: int | None) -> None:
    """Tell the process that started this in the background that it trains."""
    if descriptor is None:
        return
    import os

    with suppress(OSError):
        os.write(descriptor, b"1")
        os.close(descriptor)


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
    from trainflow.clock import SystemClock

    given = parse_overrides(overrides)
    asked = action.ResumeRequest(
        decision=_decision(accept=accept, skip=skip, rewind=rewind),
        rewind=rewind or 0,
        stage=stage,
        branch=branch,
        only_record=no_start,
    )
    with open_pipeline(pipeline, given) as file:
        now = SystemClock().now()
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
    return train(file.path, given, detach=detach, plain=plain, parsed=file.parsed)


def _decision(*, accept: bool, skip: bool, rewind: int | None) -> Decision:
    if sum((accept, skip, rewind is not None)) > 1:
        raise InputError("--accept, --skip and --rewind are three decisions: take one of them")
    return "accept" if accept else "skip" if skip else "rewind" if rewind is not None else "again"
