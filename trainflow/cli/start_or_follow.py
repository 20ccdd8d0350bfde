"""Train a pipeline from a terminal: become the engine of its home, or follow the one that is alive."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from trainflow.bootstrap import is_replaced, run_again, version
from trainflow.cli.render.output import EXIT_FAILED, EXIT_INTERRUPTED
from trainflow.errors import EngineAlreadyRunning

if TYPE_CHECKING:
    from trainflow.actions.first_runs import Begin
    from trainflow.actions.start import TrainingRequest
    from trainflow.insight.progress import ProgressFeed
    from trainflow.messages.workload import ParseResult

log = logging.getLogger(__name__)


def train(
    path: Path,
    overrides: dict[str, str],
    *,
    plain: bool,
    detach: bool = False,
    ready: int | None = None,
    begin: Begin | None = None,
    parsed: ParseResult | None = None,
    open_page: bool = False,
) -> int:
    """Train a pipeline file, as the engine of its home or through the one that is alive. `begin`: what is begun there;
    by default what `trainflow start` begins. `parsed`: what was read of the file already. `open_page`: serve the
    pages meanwhile, and show them. Returns the exit code."""
    from trainflow.actions.start import request_training

    request = request_training(path, overrides, begin, parsed)._replace(serves_pages=open_page)
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
        ready = None  # it was said, and its number may be another file's now
    return code


def _as_engine(request: TrainingRequest, *, plain: bool, ready: int | None) -> int | None:
    """The exit code; None when a chain that may go on has no run that does."""
    from trainflow.actions.start import train_as_engine
    from trainflow.clock import SystemClock
    from trainflow.observability.standard_streams import outlive_readers

    outlive_readers(log.warning)
    begun = False
    try:
        with train_as_engine(request, SystemClock(), say_beside) as (engine, feeds, pages_at):
            from trainflow.cli.live.session import Session, say_ready, say_where_chains_stand

            begun = True
            say_what_goes_on(feeds, request.stored)
            show_pages(pages_at)
            say_ready(ready)
            code = Session(engine, feeds, plain=plain).run()
    except KeyboardInterrupt:
        if begun:
            raise
        # the engine may have gone on already with what the one before left
        typer.echo("stopped before the pipeline was read; what was under way goes on with the next start")
        return EXIT_INTERRUPTED
    if engine.is_replaced and code == EXIT_INTERRUPTED:
        return as_installed_now(_words_to_go_on(request))
    if code == EXIT_INTERRUPTED:
        say_where_chains_stand(feeds, request.stored, request.workspace, request.overrides)
    return None if code == 0 and _goes_on(request, feeds) else code


def _words_to_go_on(request: TrainingRequest) -> list[str]:
    """What `trainflow` is told to go on with this training; none: the same as this time. What a person has decided
    (`resume`, `repair`) is in the ledger or in the database, and is not to be decided again."""
    if sys.argv[1:2] == ["start"]:
        return []
    given = [word for name, value in request.overrides.items() for word in ("--set", f"{name}={value}")]
    return ["start", str(request.path), *given, *(word for word in ("--plain",) if word in sys.argv)]


def as_installed_now(instead: Sequence[str] = ()) -> int:
    """Go on as the same command (or as `instead`) of the build that has taken the place of this one; the exit code
    where that cannot be imported."""
    why = f"trainflow {version()} was replaced where it is installed: " if is_replaced() else ""
    typer.echo(f"{why}it goes on as what is there now", err=True)
    run_again(without="--ready-descriptor", instead=instead)
    typer.echo("error: what is installed now cannot be imported: install it again, and start again", err=True)
    return EXIT_FAILED


def _goes_on(request: TrainingRequest, feeds: list[ProgressFeed]) -> bool:
    """Whether what was begun by `trainflow start` has to be begun again, since it ended before it was caught up."""
    broken = [each for each in feeds if each.breaks_off] if request.begin is None else []
    for each in broken:
        run = each.breaks_off.number if each.breaks_off else 0
        typer.echo(f"{each.dag_id}: run {run} ended and triggered no other: going on with a new one")
    return bool(broken)


def _as_follower(request: TrainingRequest, *, plain: bool, ready: int | None) -> int | None:
    """The exit code; None when the engine was about to end and has not taken up what was begun here, or when a chain
    that may go on has no run that does."""
    from trainflow.actions.engine_client import train_through_engine
    from trainflow.cli.live.session import follow, say_ready
    from trainflow.clock import SystemClock

    try:
        with train_through_engine(request, SystemClock(), say_beside) as (client, feeds):
            say_what_goes_on(feeds, request.stored)
            if request.serves_pages:
                from trainflow.actions.page import page_address

                at = page_address(request.workspace, SystemClock().now())
                show_pages(at)
                if at is None:
                    typer.echo("the engine serves no pages: 'trainflow ui --open' does, beside it")
            say_ready(ready)
            code = follow(client, feeds, plain=plain)
            code = None if code == 0 and _goes_on(request, feeds) else code
    except KeyboardInterrupt:
        typer.echo("not following any more; the engine goes on ('trainflow stop' ends it)")
        return EXIT_INTERRUPTED
    return as_installed_now(_words_to_go_on(request)) if code == EXIT_INTERRUPTED else code


def say_beside(sentence: str) -> None:
    """Say what a person is to know at once, beside what is shown."""
    typer.echo(sentence, err=True)


def show_pages(address: str | None) -> None:
    """Say where the pages are, and show them; None: they are not served here."""
    if address is None:
        return
    from trainflow.actions.page import show_in_browser

    typer.echo(f"page: {address}")
    show_in_browser(address)


def say_what_goes_on(feeds: list[ProgressFeed], stored: str) -> None:
    """A run keeps the tasks of the version that it began with, while a task that starts now reads the file as it is:
    which part of a change is in force is not to be guessed."""
    for each in feeds:
        if each.loss is not None:
            typer.secho(f"{each.dag_id}: {each.loss}", fg=typer.colors.YELLOW, err=True)
        if each.outdated is not None:
            typer.echo(
                f"{each.dag_id}: goes on with run {each.outdated}, which began before the pipeline was changed: "
                "its tasks and its --set stay as they were, and what starts now reads the file as it is (functions, "
                "params, samples; a wait for samples looks anew). To have all of the change now: 'trainflow runs "
                f"cancel {each.dag_id} {each.outdated}', then 'trainflow start {stored}'"
            )


def _detached(request: TrainingRequest) -> int:
    """0 once it trains; its own exit code where it has ended already."""
    from trainflow.actions.detached_start import train_detached

    started = train_detached(request)
    if started.exit_code is None:
        typer.echo(f"training in the background (pid {started.pid})")
        typer.echo("  trainflow status    where it is      trainflow stop    end it in good order")
        typer.echo(f"  {started.log}")
        return 0
    if started.exit_code:
        how = f"exit code {started.exit_code}" if started.exit_code > 0 else f"killed by signal {-started.exit_code}"
        typer.echo(f"it ended at once ({how}); the end of {started.log}:", err=True)
        nothing = "(nothing: is its disk full? 'trainflow start PIPELINE' without --detach says it here)"
        typer.echo("\n".join(started.said.splitlines()[-15:]) or nothing, err=True)
    return started.exit_code if started.exit_code >= 0 else EXIT_FAILED
