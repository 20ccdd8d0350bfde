"""`trainflow pools`: list, set, delete."""

from __future__ import annotations

from typing import Any

import typer

from trainflow.cli.render.output import JSON_OPTION
from trainflow.pluralize import agreeing, counted

pools = typer.Typer(help="Pools: limits that tasks share.", no_args_is_help=True)

_COLUMNS = {
    "name": "POOL",
    "slots": "SLOTS",
    "running": "RUNNING",
    "queued": "QUEUED",
    "deferred": "DEFERRED",
    "open": "OPEN",
    "description": "DESCRIPTION",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(pools, name="pools")


@pools.command("list")
def list_pools(as_json: bool = JSON_OPTION) -> None:
    """List the pools and what is in use of them, in slots.

    JSON: [{name, slots, include_deferred, description, running, queued, deferred, open}]; slots -1 and open
    null: no limit. `deferred` tasks take slots only with include_deferred.
    """
    from trainflow.cli.render.output import print_rows
    from trainflow.metadata import pool_queries
    from trainflow.metadata.pool_queries import PoolUse
    from trainflow.workspace.workspace import opened

    with opened() as here, here.database.reading() as connection:
        used = pool_queries.use(connection)
        rows = [_facts(row, used.get(row.name, PoolUse())) for row in pool_queries.listing(connection)]
    shown = rows if as_json else [_shown(row) for row in rows]
    print_rows(shown, _COLUMNS, as_json=as_json, empty="no pool")


@pools.command("set", context_settings={"ignore_unknown_options": True})
def set_pool(
    name: str = typer.Argument(metavar="NAME", help="A pool, new or not."),
    slots: int = typer.Argument(metavar="SLOTS", help="How many slots; -1: no limit; 0: nothing starts."),
    description: str | None = typer.Option(
        None, "--description", metavar="TEXT", help="What it is for; default: as it was."
    ),
    include_deferred: bool | None = typer.Option(
        None, "--include-deferred/--exclude-deferred", help="Tasks that wait in the triggerer keep their slots, or not."
    ),
) -> None:
    """Create or change a pool. Tasks that run go on, even when there are more of them than slots now."""
    from trainflow.executors.execution_socket import nudge
    from trainflow.identifiers import check_name
    from trainflow.metadata import pool_queries
    from trainflow.workspace.workspace import opened

    check_name(name, "pool")
    with opened() as here:
        with here.database.transaction() as connection:
            before = next((row for row in pool_queries.listing(connection) if row.name == name), None)
            if description is None:
                description = before.description or "" if before else ""
            if include_deferred is None:
                include_deferred = before.include_deferred if before else False
            pool_queries.put(connection, name, slots, description=description, include_deferred=include_deferred)
        nudge(here.project.home.socket_path)
    typer.echo(f"pool {name}: {'no limit' if slots == -1 else counted(slots, 'slot')}" + ("" if before else " (new)"))


@pools.command("delete")
def delete_pool(name: str = typer.Argument(metavar="NAME", help="A pool.")) -> None:
    """Delete a pool. Tasks that name it are not started any more until it is there again."""
    from trainflow.metadata import pool_queries, task_queries
    from trainflow.workspace.workspace import opened

    with opened() as here, here.database.transaction() as connection:
        pool_queries.remove(connection, name)
        waiting = task_queries.count_in_pool(connection, name)
    typer.echo(f"deleted pool {name}")
    if waiting:
        name_it = f"{counted(waiting, 'task')} of runs that have not ended {agreeing(waiting, 'names', 'name')} it"
        typer.echo(f"{name_it}: none of them starts until it is there again", err=True)


def _facts(row: Any, use: Any) -> dict[str, Any]:
    taken = use.running + use.queued + (use.deferred if row.include_deferred else 0)
    return {
        "name": row.name,
        "slots": row.slots,
        "include_deferred": row.include_deferred,
        "description": row.description or "",
        "running": use.running,
        "queued": use.queued,
        "deferred": use.deferred,
        "open": None if row.slots == -1 else max(0, row.slots - taken),
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    counted = f"{row['deferred']}{' (counted)' if row['include_deferred'] else ''}"
    slots, left = ("no limit", "no limit") if row["slots"] == -1 else (str(row["slots"]), str(row["open"]))
    return row | {"slots": slots, "open": left, "deferred": counted}
