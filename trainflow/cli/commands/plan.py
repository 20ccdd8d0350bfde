"""`trainflow plan`: the runs to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from trainflow.cli.arguments import BRANCH, OVERRIDES, PIPELINE, STAGE, parse_overrides
from trainflow.cli.render.output import EXIT_FAILED, JSON_OPTION, only_one, print_json, print_rows, text
from trainflow.humanize import agreeing, counted, duration
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from trainflow.insight.chains.plan import ChainPlan

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
_WAITS = "waits "


def plan(
    pipeline: str = PIPELINE,
    runs: int = typer.Option(100, "--runs", metavar="N", min=1, help="Look at so many runs at the most."),
    overrides: list[str] = OVERRIDES,
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Show the runs that would train what is ready now.

    From the head on; nothing is changed.

    A stage that starts from another one goes as far as that one has come. Exit codes: 0, 1 when a run would fail (the
    gap policy or a check refuses a partition, the samples are not those that the chain was trained on), 2 wrong input.

    JSON: {chains: [{pipeline, stage, branch, head_number, watermark, runs: [{number, start, end, partitions, rows,
    bytes, holes: [{start, end, reason}], estimated_seconds}], outcome (caught_up | waiting | more | stopped), reason,
    partitions, rows, bytes, estimated_seconds, finish_at, never_catches_up, holes_arrived, stopped}]}; of one chain
    the keys also stand at the top. Estimates come from how long the runs of the newest checkpoints took, and are null
    without any; finish_at: when runs follow each other from now on. never_catches_up: samples arrive faster than they
    are trained on. holes_arrived: partitions that were stepped over and are there now, which 'trainflow repair' trains.
    stopped: what gates have against the checkpoint that they refused: the runs come after 'trainflow resume'.
    """
    from trainflow.clock import SystemClock
    from trainflow.insight.chains.plan import plan_pipeline

    with open_pipeline(pipeline, parse_overrides(overrides)) as file:
        found = plan_pipeline(file, stage, branch, SystemClock().now(), most=runs)
    if as_json:
        print_json(only_one(found, "chains"))
    for each in [] if as_json else found.chains:
        _show(each)
    return EXIT_FAILED if found.fails else 0


def _show(made: ChainPlan) -> None:
    from trainflow.samples.partitions import label

    watermark = made.watermark
    stands = f"checkpoint {made.head_number}" if made.head_number else "no checkpoint yet"
    typer.echo(f"{made.chain}: {stands}{f', trained up to {label(watermark)}' if watermark else ''}")
    if made.stopped:
        typer.secho(
            f"a gate stopped it: {'; '.join(made.stopped)}; after 'trainflow resume {made.chain.arguments}':",
            fg="yellow",
        )
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
    print_rows(rows, _COLUMNS, empty="no run would train anything now")
    if made.runs:
        rows_ = f", {counted(made.rows, 'row')}" if made.rows is not None else ""
        about = ""
        if made.estimated_seconds is not None:
            about = f", about {duration(made.estimated_seconds)}: done at {text(made.finish_at)}"
        amount = f"{counted(made.partitions, 'partition')}{rows_}, {counted(made.bytes, 'byte')}"
        typer.echo(f"{counted(len(made.runs), 'run')}, {amount}{about}")
    typer.echo(f"{_WORDS[made.outcome]}: {made.reason.removeprefix(_WAITS)}")
    if made.never_catches_up:
        typer.secho("at this rate it never catches up: samples arrive faster than they are trained on", fg="yellow")
    if made.holes_arrived:
        count = made.holes_arrived
        have = f"{counted(count, 'partition')} of the chain's holes {agreeing(count, 'has', 'have')} arrived"
        typer.echo(f"{have}: 'trainflow repair {made.chain.arguments}' trains {agreeing(count, 'it', 'them')}")
