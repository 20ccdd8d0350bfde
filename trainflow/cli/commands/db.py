"""`trainflow db`: check, migrate, clean, reset, path, current."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from trainflow.cli.arguments import duration_of
from trainflow.cli.render.output import EXIT_FAILED, JSON_OPTION, print_json, print_rows, text
from trainflow.errors import InputError
from trainflow.humanize import agreeing, bytes_text, counted
from trainflow.workspace.workspace import open_workspace

if TYPE_CHECKING:
    from trainflow.actions.database import Cleanup

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


@db.command("clean")
def clean(
    older_than: str = typer.Option(
        ..., "--older-than", metavar="DURATION", help="For how long they have ended, at least 1d, e.g. 90d."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only show what would be deleted."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
    as_json: bool = JSON_OPTION,
) -> int:
    """Delete runs that ended long ago, with tasks and logs.

    Checkpoints, ledgers and MLflow keep what they have: every checkpoint still names the run that made it. The last ten
    runs of each DAG stay, and its last success; so do runs that a system outside is still to be told of. Logs are those
    on this host, and those that no run knows any more are deleted as well. Engines may be at work meanwhile. A SQLite
    file does not become smaller: what is free in it is used again.

    Exit code 1 when not confirmed; `--json` does not ask, and takes `--yes` or `--dry-run`.

    JSON: {before, dags: [{dag_id, runs, first_ended_at, last_ended_at}], awaited, logs, log_bytes}. `awaited`: runs
    that stay for what is still to be told.
    """
    from trainflow.actions.database import clean_up, plan_cleanup
    from trainflow.clock import SystemClock

    age, now = duration_of(older_than, "--older-than"), SystemClock().now()
    if as_json and not (dry_run or yes):
        raise InputError("--json does not ask: add --yes, or --dry-run")
    with open_workspace() as workspace:
        if yes and not dry_run:
            found = clean_up(workspace, age, now)
        else:
            found = plan_cleanup(workspace, age, now)
        if not (dry_run or yes) and (found.dags or found.logs):
            _print_cleanup(found, is_plan=True)
            if not typer.confirm("Delete them?"):
                typer.echo("nothing was changed")
                return EXIT_FAILED
            found = clean_up(workspace, age, now)
    if as_json:
        print_json(found)
    else:
        _print_cleanup(found, is_plan=dry_run)
    return 0


def _print_cleanup(cleanup: Cleanup, *, is_plan: bool) -> None:
    rows = [
        {"dag": each.dag_id, "runs": each.runs, "first": each.first_ended_at, "last": each.last_ended_at}
        for each in cleanup.dags
    ]
    columns = {"dag": "DAG", "runs": "RUNS", "first": "FIRST ENDED", "last": "LAST ENDED"}
    print_rows(rows, columns, empty=f"no run that ended before {text(cleanup.before)} can be deleted")
    if not (cleanup.dags or cleanup.logs or cleanup.awaited):
        return
    runs = counted(sum(each.runs for each in cleanup.dags), "run")
    logs = f"{counted(cleanup.logs, 'log')} ({bytes_text(cleanup.log_bytes)})"
    typer.echo(f"would delete {runs} and {logs}" if is_plan else f"deleted {runs} and {logs}")
    if cleanup.awaited:
        stay = agreeing(cleanup.awaited, "stays", "stay")
        typer.echo(
            f"{counted(cleanup.awaited, 'run')} {stay}: a system outside is still to be told of "
            f"{agreeing(cleanup.awaited, 'it', 'them')} ('trainflow status' says why it has not been)"
        )


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
