"""`trainflow plan`: the runs to come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.output import JSON_OPTION, duration, print_json, print_rows
from trainflow.cli.pipelines import BRANCH, OVERRIDES, PIPELINE, STAGE, Chain, open_pipeline

if TYPE_CHECKING:
    from trainflow.checkpoints.ledger import Ledger
    from trainflow.engine.plan import Plan
    from trainflow.samples.pace import Pace
    from trainflow.serialization.document import DagDocument

EXIT_STOPPED = 1
_COLUMNS = {
    "number": "RUN",
    "start": "FROM",
    "end": "TO",
    "partitions": "PARTITIONS",
    "rows": "ROWS",
    "bytes": "BYTES",
    "holes": "HOLES",
    "estimated": "ABOUT",
}

_WORDS = {"caught_up": "then caught up", "waiting": "then waits", "more": "there may be more", "stopped": "then fails"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan")(plan)


def plan(
    pipeline: str = PIPELINE,
    runs: int = typer.Option(100, "--runs", min=1, help="Look at so many runs at the most."),
    overrides: list[str] = OVERRIDES,
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Show the runs that would train what is ready now, from the head on. Nothing is changed.

    Exit codes: 0, 1 when a run would fail (the gap policy or a check refuses a partition), 2 wrong input.

    JSON: {pipeline, stage, branch, head_sequence, watermark, runs: [{number, start, end, partitions, rows, bytes,
    holes: [{start, end, reason}], estimated_seconds}], outcome (caught_up | waiting | more | stopped), reason,
    partitions, rows, bytes, estimated_seconds}. Estimates come from earlier runs
    in the database, and are null without any.
    """
    from trainflow.clock import SystemClock
    from trainflow.engine.plan import begins_at
    from trainflow.engine.plan import plan as make_plan
    from trainflow.samples.inventory import open_inventory

    file = open_pipeline(pipeline, overrides)
    chain = file.one_chain(stage, branch)
    samples, ledger = chain.existing_samples(), chain.ledger()
    document = next(each for each in file.documents if each.dag_id == chain.dag_id)
    watermark = begins_at(document, ledger)
    inventory = open_inventory(samples, file.project.root, SystemClock().now())
    pace = _pace(chain, ledger, document)
    made = make_plan(samples, chain.document.limits, watermark, inventory, most=runs, pace=pace)
    facts = {
        "pipeline": ledger.chain.pipeline,
        "stage": ledger.chain.stage,
        "branch": ledger.chain.branch,
        "head_sequence": ledger.state().head_sequence,
        "watermark": watermark,
    }
    if as_json:
        print_json({**facts, **{name: getattr(made, name) for name in made.__struct_fields__}})
    else:
        _show(made, facts)
    return EXIT_STOPPED if made.outcome == "stopped" else 0


def _pace(chain: Chain, ledger: Ledger, document: DagDocument) -> Pace:
    """How fast the runs were that the database remembers."""
    from trainflow.cli.databases import existing_database
    from trainflow.engine.plan import experiences
    from trainflow.samples.pace import HISTORY, Pace, pace_of

    with existing_database(chain.project, chain.settings) as database:
        if database is None:
            return Pace()
        from trainflow.metadata.status_queries import run_seconds

        waiting = next((task.task_id for task in document.tasks if task.role == "samples"), None)
        with database.reading() as connection:
            seconds = run_seconds(connection, chain.dag_id, waiting, HISTORY * 2)
    return pace_of(experiences(ledger, seconds))


def _show(made: Plan, facts: dict[str, Any]) -> None:
    from trainflow.samples.partitions import label

    watermark = facts["watermark"]
    chain = f"{facts['pipeline']}/{facts['stage']}/{facts['branch']}"
    stands = f"checkpoint {facts['head_sequence']}" if facts["head_sequence"] else "no checkpoint yet"
    typer.echo(f"{chain}: {stands}{f', trained up to {label(watermark)}' if watermark else ''}")
    rows = [
        {
            "number": run.number,
            "start": label(run.start),
            "end": label(run.end),
            "partitions": run.partitions,
            "rows": run.rows,
            "bytes": run.bytes,
            "holes": len(run.holes) or None,
            "estimated": duration(run.estimated_seconds),
        }
        for run in made.runs
    ]
    print_rows(rows, _COLUMNS, as_json=False, empty="no run would train anything now")
    if made.runs:
        counted = f", {made.rows:,} rows" if made.rows is not None else ""
        about = f", about {duration(made.estimated_seconds)}" if made.estimated_seconds is not None else ""
        typer.echo(f"{len(made.runs)} runs, {made.partitions:,} partitions{counted}, {made.bytes:,} bytes{about}")
    typer.echo(f"{_WORDS[made.outcome]}: {made.reason}")
