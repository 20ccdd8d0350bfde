"""`trainflow db`: check, migrate, reset, path, current."""

from __future__ import annotations

import typer

from trainflow.cli.render.output import EXIT_FAILED, JSON_OPTION, print_json
from trainflow.workspace.workspace import open_workspace

db = typer.Typer(
    name="db",
    help="The metadata database. What was trained is in the checkpoint stores, not here.",
    no_args_is_help=True,
)


@db.command("check")
def check(as_json: bool = JSON_OPTION) -> int:
    """Ask whether the database is reachable, whole, current.

    Current: its schema is that of this version. Exit code 1 if not.

    JSON: {ok, place, dialect, exists, revision, head, problem}. A database that does not exist yet is ok:
    the first start makes it.
    """
    from trainflow.insight.database import check_database

    with open_workspace() as workspace:
        found = check_database(workspace)
    if as_json:
        print_json(found)
    else:
        fine = f"fine, revision {found.revision}" if found.revision else "does not exist yet: the first start makes it"
        typer.echo(f"{found.place}: {found.problem or fine}")
    return EXIT_FAILED if found.problem else 0


@db.command("migrate")
def migrate() -> None:
    """Create the database, or bring its schema up to date.

    Every other command does so by itself, too.
    """
    from trainflow.actions import database

    with open_workspace() as workspace:
        done = database.migrate(workspace)
    was = "" if done.before == done.after else f" (was {done.before or 'empty'})"
    typer.echo(f"{done.place}: revision {done.after}{was}")


@db.command("reset")
def reset(yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask.")) -> int:
    """Drop every run, task, XCom and pool.

    Checkpoints and ledgers stay: the next start goes on at the heads.

    Refused while an engine is alive. Exit code 1 when refused or not confirmed.
    """
    from trainflow.actions import database
    from trainflow.clock import SystemClock

    with open_workspace() as workspace:
        place = database.plan_reset(workspace, SystemClock().now()).place
        if not yes and not typer.confirm(f"Drop everything in {place}?"):
            typer.echo("nothing was changed")
            return EXIT_FAILED
        database.reset(workspace, SystemClock().now())
    typer.echo(f"{place} is empty now; the chains go on at their heads")
    return 0


@db.command("path")
def path() -> None:
    """Print where the database is.

    A file, or a URL without its password.
    """
    from trainflow.insight.database import database_place

    with open_workspace() as workspace:
        typer.echo(database_place(workspace))


@db.command("current")
def current(as_json: bool = JSON_OPTION) -> None:
    """Show the revision of the database's schema.

    And the one this trainflow needs.

    JSON: {revision (null: there is no database yet), head, is_current}.
    """
    from trainflow.insight.database import database_revision

    with open_workspace() as workspace:
        found = database_revision(workspace)
    if as_json:
        print_json(found)
    else:
        behind = "" if found.is_current else f" (this trainflow needs {found.head})"
        typer.echo(f"{found.revision or 'empty'}{behind}")
