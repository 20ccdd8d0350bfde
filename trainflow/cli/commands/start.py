"""`trainflow start`: train a pipeline, as the engine of its home or through the one that is alive."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trainflow.bootstrap import importing
from trainflow.cli.arguments import parse_overrides
from trainflow.cli.exit_codes import EXIT_INTERRUPTED
from trainflow.errors import EngineAlreadyRunning, InputError
from trainflow.workspace.locate import pipeline_path

if TYPE_CHECKING:
    from trainflow.actions.start import Begin
    from trainflow.dag_processor.early_parse import EarlyParse
    from trainflow.engine.engine import Engine
    from trainflow.insight.progress.feed import Following
    from trainflow.settings.model import Settings
    from trainflow.settings.project import Project


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("start")(start)


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
    path = pipeline_path(pipeline)
    if branch is not None:
        from trainflow.workspace.branches import overrides_of_branch
        from trainflow.workspace.workspace import open_workspace

        with open_workspace(path) as workspace:
            given = overrides_of_branch(workspace, path, branch, parse_overrides(overrides))
        overrides = [f"{name}={value}" for name, value in given.items()]
    if failpoint is not None:
        from trainflow.cli.commands.start_chaos import start_chaotic
        from trainflow.settings.project import project_of

        if detach:
            raise InputError("--failpoint is there to be watched: leave out --detach")
        options = [word for item in overrides for word in ("--set", item)]
        return start_chaotic(project_of(path), path, failpoint, [*options, "--plain"] if plain else options)
    return train(path, overrides, detach=detach, plain=plain, ready=ready)


def train(
    path: Path,
    overrides: list[str],
    *,
    plain: bool,
    detach: bool = False,
    ready: int | None = None,
    begin: Begin | None = None,
) -> int:
    """Train a pipeline file, as the engine of its home or through the one that is alive. `begin`: what is begun there;
    by default what `trainflow start` begins. Returns the exit code."""
    from trainflow.observability.redaction import check_no_secrets
    from trainflow.settings.load import load_settings
    from trainflow.settings.project import project_of

    given = parse_overrides(overrides)
    check_no_secrets(given, "--set")
    project = project_of(path)
    settings = load_settings(project)
    if detach:
        from trainflow.cli.commands.start_detached import start_detached

        return start_detached(project, path, overrides)
    code = None
    while code is None:
        try:
            code = _as_engine(project, settings, path, given, begin, plain=plain, ready=ready)
        except EngineAlreadyRunning as other:
            if not other.pid:
                raise
            typer.echo(f"an engine is alive (pid {other.pid}): following it")
            code = _as_follower(project, settings, path, given, begin, plain=plain, ready=ready)
    return code


# -- as the engine -------------------------------------------------------------------------------------------------


def _as_engine(
    project: Project,
    settings: Settings,
    path: Path,
    overrides: dict[str, str],
    begin: Begin | None,
    *,
    plain: bool,
    ready: int | None,
) -> int:
    from trainflow.clock import SystemClock
    from trainflow.engine.early_start import early_start
    from trainflow.engine.lock import engine_lock

    clock = SystemClock()
    with ExitStack() as stack:
        stack.enter_context(engine_lock(project.home))
        early = stack.enter_context(early_start(project, settings, path, overrides))
        with importing():
            from trainflow.actions.start import begin as begin_training
            from trainflow.cli.live.session import Session, say_where_chains_stand
            from trainflow.engine.engine import Engine
            from trainflow.engine.stop_signals import stopping_on_signals
            from trainflow.observability.logs import configure_logging
            from trainflow.workspace.workspace import Workspace

        configure_logging(settings.logging.level, project.home.engine_log)
        engine = Engine(project, settings, clock=clock, prestarted=early.forkserver)
        stack.enter_context(stopping_on_signals(engine.request_stop))
        stack.enter_context(engine.running())
        _read(engine, path, overrides, early.parse)
        begin = begin or begin_training
        followings = begin(engine.database, project, settings, project.relative(path), clock.now())
        _say_what_goes_on(followings, project.relative(path))
        engine.reactor.wake()
        _say_ready(ready)
        code = Session(engine, followings, plain=plain).run()
    if code == EXIT_INTERRUPTED:
        say_where_chains_stand(followings, project.relative(path), Workspace(project, settings), overrides)
    return code


def _read(engine: Engine, path: Path, overrides: dict[str, str], ahead: EarlyParse | None) -> None:
    """Have the pipeline's file read. Raises InputError with what is wrong in it."""
    answers: list[Any] = []
    engine.on_parsed = lambda parsed, problem: answers.append(problem) if parsed == path else None
    assert engine.dag_processor is not None
    engine.dag_processor.add(path, overrides, ahead)
    engine.run(lambda: bool(answers))
    if not answers:
        raise KeyboardInterrupt
    if answers[0] is not None:
        raise InputError(answers[0].message)
    # the project's other pipelines are read while this one trains
    engine.reactor.call_later(1.0, engine.scan_files)


# -- through the engine that is alive ------------------------------------------------------------------------------


def _as_follower(
    project: Project,
    settings: Settings,
    path: Path,
    overrides: dict[str, str],
    begin: Begin | None,
    *,
    plain: bool,
    ready: int | None,
) -> int | None:
    """The exit code; None when the engine was about to end and has not taken up what was begun here."""
    from trainflow.actions.engine_client import Follower
    from trainflow.cli.live.session import follow
    from trainflow.workspace.file_reading import parse

    try:
        parsed = parse(project, settings, path, overrides)
        with Follower(project, settings) as follower:
            followings = follower.begin(path, overrides, parsed, begin)
            _say_what_goes_on(followings, project.relative(path))
            _say_ready(ready)
            return follow(follower, followings, plain=plain)
    except KeyboardInterrupt:
        typer.echo("not following any more; the engine goes on ('trainflow stop' ends it)")
        return EXIT_INTERRUPTED


def _say_what_goes_on(followings: list[Following], stored: str) -> None:
    """A run keeps the tasks of the version that it began with and the wait it is in, while a task that starts now reads
    the file as it is: which part of a change is in force is not to be guessed."""
    for each in followings:
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
