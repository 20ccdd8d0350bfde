"""What a terminal shows while a pipeline trains, of its own engine or of another one, until that is over."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from trainflow.bootstrap import is_replaced
from trainflow.cli.render.output import EXIT_FAILED, EXIT_INTERRUPTED
from trainflow.humanize import agreeing, counted

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from trainflow.actions.engine_client import EngineClient
    from trainflow.cli.live.panel import Display
    from trainflow.engine.engine import Engine
    from trainflow.engine.mlflow_dispatcher import MlflowDispatcher
    from trainflow.insight.chains.chain_status import ChainStatus
    from trainflow.insight.progress import ProgressFeed, ProgressView
    from trainflow.metadata.queries.status_queries import Undelivered
    from trainflow.workspace.workspace import Workspace

_FIRST_LOOK_SECONDS = 0.05
_LOOK_SECONDS = 0.25
_LOOK_SECONDS_WAITING = 1.0
#: deliveries that take longer are announced: the chain has ended, and the terminal does not come back
_SILENT_SECONDS = 1.0


class Session:
    """The engine's own terminal."""

    def __init__(self, engine: Engine, feeds: list[ProgressFeed], *, plain: bool) -> None:
        self._engine = engine
        self._followings = feeds
        self._plain = plain
        self._display: Display | None = None
        self._views: dict[str, ProgressView] = {}
        self._over = False
        self._cancel_look: Callable[[], None] | None = None

    def run(self) -> int:
        """Turn the engine until everything followed has ended. Returns the exit code."""
        began = self._engine.clock.monotonic()
        while True:
            try:
                # the first tasks are on their way before anything is drawn
                self._look_in(_FIRST_LOOK_SECONDS)
                self._engine.run(lambda: self._over)
                self._look(again=False)
            finally:
                self._close_display()
            seconds = self._engine.clock.monotonic() - began
            if self._engine.stop_requested and not self._over:
                typer.echo("stopping: attempts under way are told to stop; a commit comes to its end")
                return EXIT_INTERRUPTED
            left = self._drain()
            if self._engine.stop_requested or not self._somebody_came():
                break
        summarize(list(self._views.values()), seconds, undelivered=left)
        return exit_code(self._views.values())

    def _show(self, now: datetime) -> None:
        from trainflow.cli.live.panel import display

        if self._display is None:
            self._display = display(interactive=False if self._plain else None)
        self._display.show(list(self._views.values()), now)

    def _close_display(self) -> None:
        # the reactor goes on turning while attempts come to their end: a look then would draw what nothing closes
        if self._cancel_look is not None:
            self._cancel_look()
            self._cancel_look = None
        if self._display is not None:
            self._display.close()
            self._display = None

    def _somebody_came(self) -> bool:
        """Whether another terminal came to follow while the last deliveries were made."""
        now = self._engine.clock.now()
        return self._engine.database.read(lambda connection: self._is_followed(connection, now))

    def _is_followed(self, connection: Connection, now: datetime) -> bool:
        from trainflow.actions.engine_client import clients_follow

        return clients_follow(connection, self._engine.settings, now)

    def _look(self, *, again: bool = True) -> None:
        """Show what is new; the session is over when nothing that is followed here or elsewhere is left."""
        now = self._engine.clock.now()
        self._over = self._engine.database.read(partial(self._look_at, now))
        self._show(now)
        if again and not self._over:
            self._look_in(_look_again_in(self._views.values()))

    def _look_in(self, seconds: float) -> None:
        self._cancel_look = self._engine.reactor.call_later(seconds, self._look).cancel

    def _look_at(self, now: datetime, connection: Connection) -> bool:
        """Take the views anew. Returns whether nothing is left."""
        for feed in self._followings:
            self._views[feed.dag_id] = feed.look(connection, now)
        finished = all(view.finished for view in self._views.values())
        return finished and not self._is_followed(connection, now)

    def _drain(self) -> Undelivered | None:
        settings, stopped = self._engine.settings, lambda: bool(self._engine.stop_requested)
        if self._engine.notifier is not None:
            self._engine.notifier.drain(settings.notifications.drain_seconds, stopped)
        for channel in self._engine.channels:
            channel.drain(channel.drain_seconds, stopped)
        if self._engine.mirror is None:
            return None
        self._drain_mirror(self._engine.mirror, settings.tracking.drain_seconds, stopped)
        return self._engine.mirror.backlog()

    def _drain_mirror(self, mirror: MlflowDispatcher, seconds: float, stopped: Callable[[], bool]) -> None:
        """MLflow makes its store when it is first written to, which takes longer than some trainings."""
        left = mirror.drain(min(_SILENT_SECONDS, seconds), stopped)
        if mirror.under_way and not stopped() and seconds > _SILENT_SECONDS:
            typer.echo(
                f"handing {counted(left, 'delivery')} to MLflow … (Ctrl-C: leave them to the next start)", err=True
            )
            mirror.drain(seconds - _SILENT_SECONDS, stopped)


def say_ready(descriptor: int | None) -> None:
    """Tell the process that started this in the background that it trains."""
    if descriptor is None:
        return
    import os

    with suppress(OSError):
        os.write(descriptor, b"1")
        os.close(descriptor)


def say_where_chains_stand(
    feeds: Iterable[ProgressFeed], stored: str, workspace: Workspace, overrides: dict[str, str]
) -> None:
    """After the engine was told to stop, and has: what is committed, and what goes on from there."""
    from trainflow.clock import SystemClock
    from trainflow.insight.chains.chain_status import head_of

    typer.echo("stopped in good order")
    for each in feeds:
        if each.chain is not None:
            reached = head_of(workspace, each.dag_id, each.chain, stored, SystemClock().now())
            typer.echo(f"{each.dag_id}: {_head_in_words(reached)}")
    given = [word for name, value in overrides.items() for word in ("--set", f"{name}={value}")]
    typer.echo(f"go on from there: {shlex.join(['trainflow', 'start', stored, *given])}")


def _head_in_words(reached: ChainStatus) -> str:
    from trainflow.cli.live.lines import day

    if reached.problem is not None:
        return f"its ledger cannot be read now: {reached.problem}"
    if not reached.head_number:
        return "nothing is committed yet"
    trained = f", trained up to {day(reached.watermark)}" if reached.watermark else ""
    return f"the head is checkpoint {reached.head_number}{trained}"


def _look_again_in(views: Iterable[ProgressView]) -> float:
    """Seconds until there may be something new to see: a chain that only waits is looked at less often."""
    works = any(task.state in ("queued", "running", "scheduled") for view in views for task in view.tasks)
    return _LOOK_SECONDS if works else _LOOK_SECONDS_WAITING


def follow(client: EngineClient, feeds: list[ProgressFeed], *, plain: bool) -> int | None:
    """Show what happens until it is over. EXIT_INTERRUPTED when the engine is another build now, and this is not; None
    when it has ended and has not taken up what was begun. Raises KeyboardInterrupt."""
    from trainflow.cli.live.panel import display

    shown = display(interactive=False if plain else None)
    began = client.clock.monotonic()
    views: dict[str, ProgressView] = {}
    taken_up = False
    try:
        while not views or not all(view.finished for view in views.values()):
            for feed in feeds:
                view = views[feed.dag_id] = client.look(feed)
                taken_up = taken_up or view.current_number is not None or view.last_run is not None
            shown.show(list(views.values()), client.clock.now())
            if not client.wait(_LOOK_SECONDS) and not all(view.finished for view in views.values()):
                if is_replaced():
                    typer.echo(
                        "the engine has ended, and trainflow was installed anew: waiting for it to come back", err=True
                    )
                    if client.engine_comes_back():
                        return EXIT_INTERRUPTED
                if not taken_up:
                    return None
                typer.echo("the engine has ended before the chain was caught up: start again to go on", err=True)
                return EXIT_FAILED
    finally:
        shown.close()
    seconds = client.clock.monotonic() - began
    from trainflow.metadata.queries.status_queries import Undelivered

    undelivered = Undelivered() if client.workspace.settings.tracking.enabled else None
    summarize(list(views.values()), seconds, undelivered=undelivered)
    return exit_code(views.values())


def summarize(views: list[ProgressView], seconds: float, *, undelivered: Undelivered | None) -> None:
    """The table at the end. `undelivered`: None where nothing is mirrored."""
    from trainflow.cli.live.panel import summary, summary_of_stages

    trained = any(view.total or view.trained for view in views)
    mirrored = "trainflow mlflow" if undelivered is not None and trained else None
    if mirrored and undelivered is not None:
        mirrored += _missing_in_mlflow(undelivered)
    if len(views) == 1:
        summary(views[0], seconds=seconds, mirrored=mirrored)
    else:
        summary_of_stages(views, seconds=seconds, mirrored=mirrored)
    sys.stdout.flush()


def _missing_in_mlflow(found: Undelivered) -> str:
    said = ""
    if found.waiting:
        why = found.reason or "MLflow was not reached in time"
        waits = f"{counted(found.waiting, 'delivery')} {agreeing(found.waiting, 'waits', 'wait')}"
        said += f"  ({waits}: {why}; the next start delivers)"
    if found.refused:
        said += f"  (MLflow refused {counted(found.refused, 'delivery')}: {found.refused_reason})"
    return said


def exit_code(views: Any) -> int:
    """0 when the last run of every pipeline succeeded."""
    failed = any(view.last_run is not None and view.last_run.state == "failed" for view in views)
    return EXIT_FAILED if failed else 0
