"""`trainflow start`: train a pipeline, as the engine of its home or through the one that is alive."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.entry import importing
from trainflow.cli.opened import pipeline_path
from trainflow.counting import agreeing, counted
from trainflow.errors import EngineAlreadyRunning, InputError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from trainflow.cli.live import Display
    from trainflow.dag_processor.ahead import Ahead
    from trainflow.engine.beginning import Begin
    from trainflow.engine.engine import Engine
    from trainflow.engine.follower import Follower
    from trainflow.engine.following import Following
    from trainflow.engine.mirror import Mirror
    from trainflow.engine.views import View
    from trainflow.settings.model import Settings
    from trainflow.settings.project import Project

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
_FIRST_LOOK_SECONDS = 0.05
_LOOK_SECONDS = 0.25
_LOOK_SECONDS_WAITING = 1.0
#: deliveries that take longer are announced: the chain has ended, and the terminal does not come back
_SILENT_SECONDS = 1.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("start")(start)


def start(
    pipeline: str = typer.Argument(help="A pipeline file (YAML or Python), or the name of one in pipelines/."),
    overrides: list[str] = typer.Option(
        [], "--set", metavar="NAME=VALUE", help="Override a value of the pipeline, e.g. --set split.partitions=7."
    ),
    branch: str | None = typer.Option(
        None, "--branch", metavar="NAME", help="Train this branch, begun with 'trainflow checkpoints fork'."
    ),
    detach: bool = typer.Option(False, "--detach", help="Train in the background and give the terminal back."),
    plain: bool = typer.Option(False, "--plain", help="Plain lines instead of the live panel."),
    chaos: int | None = typer.Option(
        None, "--chaos", metavar="SEED", help="Kill attempts and the engine at random steps while training, then audit."
    ),
    ready: int | None = typer.Option(None, "--ready-descriptor", hidden=True),
) -> int:
    """Train a pipeline until it is caught up (mode: latest: until you stop it with Ctrl-C).

    Continues at the head of the chain. Becomes the engine of the project when none is alive, otherwise hands the run
    to the one that is and follows it. Ctrl-C stops in good order, a second Ctrl-C at once; the next start goes on.

    Exit codes: 0 done, 1 the chain or a task failed, 2 wrong input, 130 interrupted.
    """
    path = pipeline_path(pipeline)
    if branch is not None:
        from trainflow.cli.branches import overrides_of_branch

        given = overrides_of_branch(path, branch, parse_overrides(overrides))
        overrides = [f"{name}={value}" for name, value in given.items()]
    if chaos is not None:
        from trainflow.cli.chaotic import start_chaotic
        from trainflow.settings.project import project_of

        if detach:
            raise InputError("--chaos is there to be watched: leave out --detach")
        options = [word for item in overrides for word in ("--set", item)]
        return start_chaotic(project_of(path), path, chaos, [*options, "--plain"] if plain else options)
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
    from trainflow.settings.load import load_settings
    from trainflow.settings.project import project_of

    given = parse_overrides(overrides)
    project = project_of(path)
    settings = load_settings(project)
    if detach:
        from trainflow.cli.detached import start_detached

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


def parse_overrides(given: list[str]) -> dict[str, str]:
    """`name=value` pairs. Raises InputError for what is none."""
    parsed = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set {item}: write --set NAME=VALUE, e.g. --set split.partitions=7")
        parsed[key.strip()] = value
    return parsed


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
    from trainflow.dag_processor.ahead import read_ahead
    from trainflow.engine.lock import engine_lock
    from trainflow.executors.warm_spawn import spawn

    clock = SystemClock()
    with ExitStack() as stack:
        stack.enter_context(engine_lock(project.home))
        prestarted = ahead = None
        if settings.executor.isolation == "fork":
            prestarted = spawn(project.root)
            stack.callback(prestarted.discard)
            ahead = read_ahead(prestarted, project, path, overrides)
        with importing():
            from trainflow.engine.beginning import begin as begin_training
            from trainflow.engine.engine import Engine
            from trainflow.observability.logs import configure_logging

        configure_logging(settings.logging.level, project.home.engine_log)
        engine = Engine(project, settings, clock=clock, prestarted=prestarted)
        stack.enter_context(engine.stopping_on_signals())
        stack.enter_context(engine.running())
        _read(engine, path, overrides, ahead)
        begin = begin or begin_training
        followings = begin(engine.database, project, settings, project.relative(path), clock.now())
        _say_what_goes_on(followings)
        engine.reactor.wake()
        _say_ready(ready)
        return _Session(engine, followings, plain=plain).run()


def _read(engine: Engine, path: Path, overrides: dict[str, str], ahead: Ahead | None) -> None:
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


class _Session:
    """The engine's own terminal."""

    def __init__(self, engine: Engine, followings: list[Following], *, plain: bool) -> None:
        self._engine = engine
        self._followings = followings
        self._plain = plain
        self._display: Display | None = None
        self._views: dict[str, View] = {}
        self._over = False

    def run(self) -> int:
        """Turn the engine until everything followed has ended. Returns the exit code."""
        began = self._engine.clock.monotonic()
        while True:
            try:
                # the first tasks are on their way before anything is drawn
                self._engine.reactor.call_later(_FIRST_LOOK_SECONDS, self._look)
                self._engine.run(lambda: self._over)
                self._look(again=False)
            finally:
                self._close_display()
            seconds = self._engine.clock.monotonic() - began
            if self._engine.stop_requested and not self._over:
                typer.echo("stopping: attempts under way are told to stop, the next start goes on from here")
                return EXIT_INTERRUPTED
            left = self._drain()
            if self._engine.stop_requested or not self._somebody_came():
                break
        summarize(list(self._views.values()), seconds, undelivered=left)
        return exit_code(self._views.values())

    def _show(self, now: datetime) -> None:
        from trainflow.cli.live import display

        if self._display is None:
            self._display = display(interactive=False if self._plain else None)
        self._display.show(list(self._views.values()), now)

    def _close_display(self) -> None:
        if self._display is not None:
            self._display.close()
            self._display = None

    def _somebody_came(self) -> bool:
        """Did another terminal come to follow while the last deliveries were made?"""
        now = self._engine.clock.now()
        return self._engine.database.read(lambda connection: _others_follow(connection, self._engine, now))

    def _look(self, *, again: bool = True) -> None:
        """Show what is new; the session is over when nothing that is followed here or elsewhere is left."""
        now = self._engine.clock.now()
        self._over = self._engine.database.read(partial(self._look_at, now))
        self._show(now)
        if again and not self._over:
            self._engine.reactor.call_later(_look_again_in(self._views.values()), self._look)

    def _look_at(self, now: datetime, connection: Connection) -> bool:
        """Take the views anew. Returns whether nothing is left."""
        for following in self._followings:
            self._views[following.dag_id] = following.look(connection, now)
        finished = all(view.finished for view in self._views.values())
        return finished and not _others_follow(connection, self._engine, now)

    def _drain(self) -> tuple[int, str | None] | None:
        settings, stopped = self._engine.settings, lambda: bool(self._engine.stop_requested)
        if self._engine.notifier is not None:
            self._engine.notifier.drain(settings.notifications.drain_seconds, stopped)
        if self._engine.mirror is None:
            return None
        self._drain_mirror(self._engine.mirror, settings.tracking.drain_seconds, stopped)
        return self._engine.mirror.undelivered()

    def _drain_mirror(self, mirror: Mirror, seconds: float, stopped: Callable[[], bool]) -> None:
        """MLflow makes its store when it is first written to, which takes longer than some trainings."""
        left = mirror.drain(min(_SILENT_SECONDS, seconds), stopped)
        if mirror.under_way and not stopped() and seconds > _SILENT_SECONDS:
            typer.echo(
                f"handing {counted(left, 'delivery')} to MLflow … (Ctrl-C: leave them to the next start)", err=True
            )
            mirror.drain(seconds - _SILENT_SECONDS, stopped)


def _look_again_in(views: Iterable[View]) -> float:
    """Seconds until there may be something new to see: a chain that only waits is looked at less often."""
    works = any(task.state in ("queued", "running", "scheduled") for view in views for task in view.tasks)
    return _LOOK_SECONDS if works else _LOOK_SECONDS_WAITING


def _others_follow(connection: Any, engine: Engine, now: Any) -> bool:
    """Does another terminal follow something through this engine?"""
    from trainflow.metadata import service_queries
    from trainflow.observability.processes import is_alive

    dead_after = timedelta(seconds=engine.settings.engine.dead_after_seconds)
    rows = service_queries.living(connection, now, dead_after, "follower")
    return any(is_alive(row.pid, row.process_started) for row in rows)


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
    from trainflow.cli.parsed import parse
    from trainflow.engine.follower import Follower

    try:
        parsed = parse(project, settings, path, overrides)
        with Follower(project, settings) as follower:
            followings = follower.begin(path, overrides, parsed, begin)
            _say_what_goes_on(followings)
            _say_ready(ready)
            return _follow(follower, followings, plain=plain)
    except KeyboardInterrupt:
        typer.echo("not following any more; the engine goes on ('trainflow stop' ends it)")
        return EXIT_INTERRUPTED


def _follow(follower: Follower, followings: list[Following], *, plain: bool) -> int | None:
    """Show what happens until it is over. Raises KeyboardInterrupt."""
    from trainflow.cli.live import display

    shown = display(interactive=False if plain else None)
    began = follower.clock.monotonic()
    views: dict[str, View] = {}
    taken_up = False
    try:
        while not views or not all(view.finished for view in views.values()):
            for following in followings:
                view = views[following.dag_id] = follower.look(following)
                taken_up = taken_up or view.current_number is not None or view.last_run is not None
            shown.show(list(views.values()), follower.clock.now())
            if not follower.wait(_LOOK_SECONDS) and not all(view.finished for view in views.values()):
                if not taken_up:
                    return None
                typer.echo("the engine has ended before the chain was caught up: start again to go on", err=True)
                return EXIT_FAILED
    finally:
        shown.close()
    seconds = follower.clock.monotonic() - began
    undelivered = (0, None) if follower.settings.tracking.enabled else None
    summarize(list(views.values()), seconds, undelivered=undelivered)
    return exit_code(views.values())


def _say_what_goes_on(followings: list[Following]) -> None:
    """A run keeps the version of the pipeline it began with: nobody should wonder why a change does nothing yet."""
    for each in followings:
        if each.outdated is not None:
            typer.echo(
                f"{each.dag_id}: goes on with run {each.outdated}, which began before the pipeline was changed and "
                "keeps what it began with; the run after it has the change. To have it now: 'trainflow runs cancel "
                f"{each.dag_id} {each.outdated}', then start again"
            )


def _say_ready(descriptor: int | None) -> None:
    """Tell whoever started this in the background that it trains."""
    if descriptor is None:
        return
    import os

    with suppress(OSError):
        os.write(descriptor, b"1")
        os.close(descriptor)


# -- the end -------------------------------------------------------------------------------------------------------


def summarize(views: list[View], seconds: float, *, undelivered: tuple[int, str | None] | None) -> None:
    """The table at the end. `undelivered`: None where nothing is mirrored."""
    from trainflow.cli.live import summary
    from trainflow.cli.live_stages import summary_of_stages

    count, reason = undelivered or (0, None)
    trained = any(view.total or view.trained for view in views)
    mirrored = "trainflow mlflow" if undelivered is not None and trained else None
    if mirrored and count:
        why = reason or "MLflow was not reached in time"
        mirrored += (
            f"  ({counted(count, 'delivery')} {agreeing(count, 'waits', 'wait')}: {why}; the next start delivers)"
        )
    if len(views) == 1:
        summary(views[0], seconds=seconds, mirrored=mirrored)
    else:
        summary_of_stages(views, seconds=seconds, mirrored=mirrored)
    sys.stdout.flush()


def exit_code(views: Any) -> int:
    """0 when the last run of every pipeline succeeded."""
    failed = any(view.last_run is not None and view.last_run.state == "failed" for view in views)
    return EXIT_FAILED if failed else 0
