"""`trainflow db`: check, migrate, reset, path, current."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from trainflow.cli.exit_codes import EXIT_FAILED
from trainflow.cli.render.output import JSON_OPTION

if TYPE_CHECKING:
    from trainflow.metadata.database import Database
    from trainflow.settings.model import Settings
    from trainflow.settings.project import Project

db = typer.Typer(
    help="The metadata database. What was trained is in the checkpoint stores, not here.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(db, name="db")


class _Raw(NamedTuple):
    project: Project
    settings: Settings
    database: Database

    @property
    def exists(self) -> bool:
        """A SQLite file that is not there yet is no error: the first command that writes makes it."""
        return self.database.file is None or self.database.file.is_file()

    @property
    def place(self) -> str:
        """The file, or the URL without its password."""
        return str(self.database.file or self.database.url.render_as_string(hide_password=True))


@contextmanager
def _raw() -> Iterator[_Raw]:
    """The database as it is: nothing is created or migrated."""
    from trainflow.metadata.database import Database
    from trainflow.settings.load import load_settings
    from trainflow.workspace.workspace import find_project

    project = find_project()
    settings = load_settings(project)
    database = Database.of(project.home, settings)
    try:
        yield _Raw(project, settings, database)
    finally:
        database.close()


@db.command("check")
def check(as_json: bool = JSON_OPTION) -> int:
    """Ask whether the database is reachable, whole, current.

    Current: its schema is that of this version. Exit code 1 if not.

    JSON: {ok, place, dialect, exists, revision, head, problem}. A database that does not exist yet is ok:
    the first start makes it.
    """
    from trainflow.cli.render.output import print_json
    from trainflow.metadata.schema import HEAD

    with _raw() as raw:
        revision, problem = _examined(raw)
        facts = {
            "ok": problem is None,
            "place": raw.place,
            "dialect": raw.database.engine.dialect.name,
            "exists": raw.exists,
            "revision": revision,
            "head": HEAD,
            "problem": problem,
        }
    if as_json:
        print_json(facts)
    else:
        fine = f"fine, revision {revision}" if revision else "does not exist yet: the first start makes it"
        typer.echo(f"{facts['place']}: {problem or fine}")
    return EXIT_FAILED if problem else 0


def _examined(raw: _Raw) -> tuple[str | None, str | None]:
    """Revision and problem."""
    from sqlalchemy.exc import DBAPIError

    from trainflow.errors import EngineError
    from trainflow.metadata.schema import HEAD, current_revision, damage_of

    if not raw.exists:
        return None, None
    try:
        revision = current_revision(raw.database)
        if raw.database.is_sqlite:
            damage = damage_of(raw.database)
            if damage is not None:
                return revision, f"is damaged: {damage}. It may be moved away: the chains go on at their heads"
    except (EngineError, DBAPIError) as error:
        return None, f"cannot be read: {error.orig if isinstance(error, DBAPIError) else error}"
    if revision not in (None, HEAD):
        return revision, f"is at revision {revision}, this trainflow needs {HEAD}: 'trainflow db migrate'"
    return revision, None


@db.command("migrate")
def migrate() -> None:
    """Create the database, or bring its schema up to date.

    Every other command does so by itself, too.
    """
    from trainflow.metadata.schema import current_revision, ensure_schema

    with _raw() as raw:
        before = current_revision(raw.database) if raw.exists else None
        raw.project.home.create()
        ensure_schema(raw.database)
        after = current_revision(raw.database)
    typer.echo(f"{raw.place}: revision {after}" + ("" if before == after else f" (was {before or 'empty'})"))


@db.command("reset")
def reset(yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask.")) -> int:
    """Drop every run, task, XCom and pool.

    Checkpoints and ledgers stay: the next start goes on at the heads.

    Refused while an engine is alive. Exit code 1 when refused or not confirmed.
    """
    from trainflow.metadata import schema

    with _raw() as raw:
        _refuse_while_alive(raw)
        if not yes and not typer.confirm(f"Drop everything in {raw.place}?"):
            typer.echo("nothing was changed")
            return EXIT_FAILED
        raw.project.home.create()
        schema.reset(raw.database)
    typer.echo(f"{raw.place} is empty now; the chains go on at their heads")
    return 0


def _refuse_while_alive(raw: _Raw) -> None:
    from trainflow.clock import SystemClock
    from trainflow.errors import EngineAlreadyRunning
    from trainflow.insight.snapshot import engine_state
    from trainflow.metadata.schema import HEAD, current_revision

    usable = raw.exists and current_revision(raw.database) == HEAD
    state = engine_state(raw.project, raw.settings, raw.database if usable else None, SystemClock().now())
    if state.alive:
        where = f" on {state.hostname}" if state.hostname else ""
        raise EngineAlreadyRunning(
            f"an engine (pid {state.pid}{where}) uses this database: end it with 'trainflow stop' first",
            pid=state.pid or 0,
        )


@db.command("path")
def path() -> None:
    """Print where the database is.

    A file, or a URL without its password.
    """
    with _raw() as raw:
        typer.echo(raw.place)


@db.command("current")
def current(as_json: bool = JSON_OPTION) -> None:
    """Show the revision of the database's schema.

    And the one this trainflow needs.

    JSON: {revision (null: there is no database yet), head, is_current}.
    """
    from trainflow.cli.render.output import print_json
    from trainflow.metadata.schema import HEAD, current_revision

    with _raw() as raw:
        revision = current_revision(raw.database) if raw.exists else None
    facts: dict[str, Any] = {"revision": revision, "head": HEAD, "is_current": revision == HEAD}
    if as_json:
        print_json(facts)
    else:
        typer.echo(f"{revision or 'empty'}" + ("" if revision == HEAD else f" (this trainflow needs {HEAD})"))
