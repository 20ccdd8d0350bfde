"""Train a pipeline file: as the engine of its home, through the one that is alive, or in the background.

Nothing heavy is imported before the warm process has been started: it imports the project while this one imports the
engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainflow.bootstrap import importing, load_when_used
from trainflow.errors import InputError
from trainflow.workspace.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    import socket

    from trainflow.actions.first_runs import Begin
    from trainflow.clock import Clock
    from trainflow.dag_processor.files import EarlyParse
    from trainflow.engine.engine import Engine
    from trainflow.insight.progress import ProgressFeed
    from trainflow.messages.workload import DagSource, ParseResult
    from trainflow.settings.model import Settings
    from trainflow.settings.project import Project


class TrainingRequest(NamedTuple):
    """A pipeline file that is to be trained. `begin`: what is begun; None: what `trainflow start` begins.
    `parsed`: what was read of it already, with these overrides. `serves_pages`: an API server is begun beside."""

    workspace: Workspace
    path: Path
    overrides: dict[str, str]
    begin: Begin | None = None
    parsed: ParseResult | None = None
    serves_pages: bool = False

    @property
    def stored(self) -> str:
        """The path as the database has it."""
        return self.workspace.project.relative(self.path)

    @property
    def source(self) -> DagSource:
        """The file, with what it is read with."""
        from trainflow.messages.workload import DagSource

        return DagSource(self.stored, self.overrides)


class EngineTraining(NamedTuple):
    """An engine that runs in this process, and what is followed. `pages_at`: where its API server serves the pages, if
    that was asked for."""

    engine: Engine
    feeds: list[ProgressFeed]
    pages_at: str | None = None


def request_training(
    path: Path, overrides: dict[str, str], begin: Begin | None = None, parsed: ParseResult | None = None
) -> TrainingRequest:
    """Raises InputError for secrets among the overrides, which are recorded; ProjectError, SettingsError."""
    from trainflow.observability.redaction import check_no_secrets

    check_no_secrets(overrides, "--set")
    workspace = open_workspace(path)
    check_executors(workspace.project, workspace.settings)
    return TrainingRequest(workspace, path, overrides, begin, parsed)


def check_executors(project: Project, settings: Settings) -> None:
    """Raise SettingsError for a table of `[executors]` that can never work: no run is to begin with it."""
    from trainflow.settings.executors import executor_entries

    if any(not entry.is_local for entry in executor_entries(settings).values()):
        from trainflow.executors.plugins import check_options

        check_options(project, settings)


@contextmanager
def train_as_engine(request: TrainingRequest, clock: Clock, tell: Callable[[str], None]) -> Iterator[EngineTraining]:
    """Become the engine of the home, have the file read once, and begin. The engine ends with the block. `tell` is
    called with what a person is to know at once: that the database is away, that it is back.

    Raises EngineAlreadyRunning, InputError with what is wrong in the file or that a store it names cannot be used,
    KeyboardInterrupt when told to stop before the file was read.
    """
    from trainflow.engine.lock import engine_lock
    from trainflow.engine.startup import early_start
    from trainflow.workspace.store_check import StoreCheck

    project, settings = request.workspace.project, request.workspace.settings
    with ExitStack() as stack:
        stack.enter_context(engine_lock(project.home))
        early = stack.enter_context(early_start(project, settings, request.path, request.overrides))
        stores = stack.enter_context(StoreCheck(project, settings, request.path, request.overrides))
        load_when_used("importlib.metadata", "asyncio:iscoroutine", "sqlalchemy.dialects.sqlite.aiosqlite")
        with importing():
            from trainflow.actions.first_runs import begin, places_of
            from trainflow.engine.engine import Engine
            from trainflow.engine.startup import stopping_on_signals
            from trainflow.observability.logs import configure_logging

        configure_logging(settings.logging.level, project.home.engine_log)
        listener, pages_at = _listener(request)
        engine = Engine(project, settings, clock=clock, prestarted=early.forkserver, api_listener=listener)
        engine.database.tell = tell
        stack.enter_context(stopping_on_signals(engine.request_stop))
        stack.enter_context(engine.running())
        _read(engine, request, early.parse)
        workspace = Workspace(project, settings, engine.database)
        stores.raise_if_refused(places_of(workspace, request.source))
        feeds = (request.begin or begin)(workspace, request.source, clock.now())
        engine.reactor.wake()
        yield EngineTraining(engine, feeds, pages_at)


def _listener(request: TrainingRequest) -> tuple[socket.socket | None, str | None]:
    """Where the API server answers, and where it serves the pages, if that was asked for."""
    if request.serves_pages:
        from trainflow.actions.page import listen_for_pages

        return listen_for_pages(request.workspace.settings.api)
    from trainflow.settings.api_address import listen_for_attempts

    return listen_for_attempts(request.workspace.settings), None


def _read(engine: Engine, request: TrainingRequest, ahead: EarlyParse | None) -> None:
    answers: list[Any] = []
    engine.on_parsed = lambda parsed, problem: answers.append(problem) if parsed == request.path else None
    assert engine.dag_processor is not None
    engine.dag_processor.add(request.path, request.overrides, ahead)
    engine.run(lambda: bool(answers))
    if not answers:
        raise KeyboardInterrupt
    if answers[0] is not None:
        raise InputError(answers[0].message)
    # the project's other pipelines are read while this one trains
    engine.reactor.call_later(1.0, engine.scan_files)
