"""`trainflow pools`: list, set, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.render.output import JSON_OPTION, print_json, print_rows
from trainflow.humanize import agreeing, counted
from trainflow.workspace.workspace import open_workspace

if TYPE_CHECKING:
    from trainflow.insight.runs.pools import Pool

pools = typer.Typer(name="pools", help="Pools: limits that tasks share.", no_args_is_help=True)

_COLUMNS = {
    "name": "POOL",
    "slots": "SLOTS",
    "running": "RUNNING",
    "queued": "QUEUED",
    "deferred": "DEFERRED",
    "open": "OPEN",
    "description": "DESCRIPTION",
}


@pools.command("list")
def list_pools(as_json: bool = JSON_OPTION) -> None:
    """List the pools and what is in use of them, in slots.

    JSON: [{name, slots, include_deferred, description, running, queued, scheduled (tasks that wait for a slot),
    deferred, open}]; slots -1 and open null: no limit. `deferred` tasks take slots only with include_deferred.
    """
    from trainflow.insight.runs import pools as insight

    with open_workspace() as workspace:
        found = insight.list_pools(workspace)
    if as_json:
        print_json(found)
    else:
        print_rows([_row(each) for each in found], _COLUMNS, empty="no pool")


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
    from trainflow.actions import pools as actions

    with open_workspace() as workspace:
        done = actions.set_pool(workspace, name, slots, description=description, include_deferred=include_deferred)
    limit = "no limit" if done.slots == -1 else counted(done.slots, "slot")
    typer.echo(f"pool {done.name}: {limit}{' (new)' if done.created else ''}")


@pools.command("delete")
def delete_pool(
    name: str = typer.Argument(metavar="NAME", help="A pool."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would wait for it."),
) -> None:
    """Delete a pool. Tasks that name it are not started any more until it is there again."""
    from trainflow.actions import pools as actions

    with open_workspace() as workspace:
        waiting = (actions.plan_delete_pool if dry_run else actions.delete_pool)(workspace, name).waiting
    typer.echo(f"{'would delete' if dry_run else 'deleted'} pool {name}")
    if waiting:
        name_it = f"{counted(waiting, 'task')} of runs that have not ended {agreeing(waiting, 'names', 'name')} it"
        typer.echo(f"{name_it}: none of them starts until it is there again", err=True)


def _row(pool: Pool) -> dict[str, Any]:
    import msgspec

    deferred = f"{pool.deferred}{' (counted)' if pool.include_deferred else ''}"
    slots, left = ("no limit", "no limit") if pool.slots == -1 else (str(pool.slots), str(pool.open))
    return msgspec.structs.asdict(pool) | {"slots": slots, "open": left, "deferred": deferred}
