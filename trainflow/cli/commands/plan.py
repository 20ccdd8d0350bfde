"""`trainflow plan`: the runs to come."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import BRANCH, OVERRIDES, PIPELINE, STAGE, parse_overrides
from trainflow.cli.exit_codes import EXIT_FAILED
from trainflow.cli.render.output import JSON_OPTION, duration, print_json, print_rows, text
from trainflow.pluralize import agreeing, counted
from trainflow.workspace.pipelines import Chain, open_pipeline

if TYPE_CHECKING:
    from trainflow.checkpoints.ledger.ledger import Ledger
    from trainflow.insight.plan import Plan
    from trainflow.samples.inventory import Inventory
    from trainflow.samples.pace import Pace

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
#: of a chain that trains nothing until a person has decided
_NO_PROSPECTS: dict[str, Any] = {"finish_at": None, "never_catches_up": False, "holes_arrived": 0}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan")(plan)


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

    JSON: {chains: [{pipeline, stage, branch, head_sequence, watermark, runs: [{number, start, end, partitions, rows,
    bytes, holes: [{start, end, reason}], estimated_seconds}], outcome (caught_up | waiting | more | stopped), reason,
    partitions, rows, bytes, estimated_seconds, finish_at, never_catches_up, holes_arrived, stopped}]}; of one chain
    the keys also stand at the top. Estimates come from how long the runs of the newest checkpoints took, and are null
    without any; finish_at: when runs follow each other from now on. never_catches_up: samples arrive faster than they
    are trained on. holes_arrived: partitions that were stepped over and are there now, which 'trainflow repair' trains.
    stopped: what gates have against the checkpoint that they refused: the runs come after 'trainflow resume'.
    """
    from trainflow.clock import SystemClock

    now = SystemClock().now()
    found = [
        _of_chain(chain, runs, now)
        for chain in open_pipeline(pipeline, parse_overrides(overrides)).chosen(stage, branch)
    ]
    if as_json:
        each = [{**facts, **{name: getattr(made, name) for name in made.__struct_fields__}} for made, facts in found]
        print_json({**(each[0] if len(each) == 1 else {}), "chains": each})
    else:
        for made, facts in found:
            _show(made, facts)
    return EXIT_FAILED if any(made.outcome == "stopped" for made, _ in found) else 0


def _of_chain(chain: Chain, runs: int, now: datetime) -> tuple[Plan, dict[str, Any]]:
    from trainflow.checkpoints.actions.regrid import change_of
    from trainflow.checkpoints.ledger.ancestors import experiences
    from trainflow.insight.next_run import adopting, outlook
    from trainflow.insight.plan import plan as make_plan
    from trainflow.insight.plan import refused
    from trainflow.samples.grid import grid_of
    from trainflow.samples.inventory import open_inventory
    from trainflow.samples.pace import limits_for_target, pace_of
    from trainflow.samples.spec import SplitLimits

    samples, ledger = chain.existing_samples(), chain.ledger()
    change = change_of(ledger.state(), grid_of(samples))
    if change is not None:
        return refused(change, ledger.chain.pipeline), _names(ledger, ledger.state().watermark) | _NO_PROSPECTS
    ahead = outlook(chain.document, ledger)
    if not ledger.state().sequence and chain.adopt is not None:
        ahead = adopting(ahead, chain.adopt, chain.project.root, now)
    inventory = open_inventory(samples, chain.project.root, now)
    history = experiences(ledger, ledger.state())
    limits, pace = limits_for_target(chain.document.limits or SplitLimits(), history), pace_of(history)
    made = make_plan(samples, limits, ahead, inventory, most=runs, pace=pace)
    return made, _names(ledger, ahead.watermark) | _prospects(made, pace, ahead.watermark, ledger, inventory)


def _names(ledger: Ledger, watermark: datetime | None) -> dict[str, Any]:
    state = ledger.state()
    return {
        **ledger.chain.names,
        "head_sequence": state.head_sequence,
        "watermark": watermark,
        "stopped": state.stopped.reasons if state.stopped else [],
    }


def _prospects(
    made: Plan, pace: Pace, watermark: datetime | None, ledger: Ledger, inventory: Inventory
) -> dict[str, Any]:
    from trainflow.checkpoints.upkeep.repairs import open_holes
    from trainflow.samples.lag import forecast, lag_behind
    from trainflow.samples.repair import arrived

    samples, seconds = inventory.samples, made.estimated_seconds
    lag = lag_behind(samples, watermark, inventory.is_ready, inventory.now)
    return {
        "finish_at": None if seconds is None else inventory.now + timedelta(seconds=round(seconds)),
        "never_catches_up": forecast(samples, lag.partitions, pace.seconds_a_partition, inventory.now).never,
        "holes_arrived": sum(1 for _ in arrived(samples, open_holes(ledger.state()), inventory)),
    }


def _show(made: Plan, facts: dict[str, Any]) -> None:
    from trainflow.samples.partitions import label

    watermark = facts["watermark"]
    chain = f"{facts['pipeline']}/{facts['stage']}/{facts['branch']}"
    stands = f"checkpoint {facts['head_sequence']}" if facts["head_sequence"] else "no checkpoint yet"
    typer.echo(f"{chain}: {stands}{f', trained up to {label(watermark)}' if watermark else ''}")
    if facts["stopped"]:
        typer.secho(f"a gate stopped it: {'; '.join(facts['stopped'])}; after 'trainflow resume':", fg="yellow")
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
        rows_ = f", {counted(made.rows, 'row')}" if made.rows is not None else ""
        about = ""
        if made.estimated_seconds is not None:
            about = f", about {duration(made.estimated_seconds)}: done at {text(facts['finish_at'])}"
        amount = f"{counted(made.partitions, 'partition')}{rows_}, {counted(made.bytes, 'byte')}"
        typer.echo(f"{counted(len(made.runs), 'run')}, {amount}{about}")
    typer.echo(f"{_WORDS[made.outcome]}: {made.reason.removeprefix(_WAITS)}")
    if facts["never_catches_up"]:
        typer.secho("at this rate it never catches up: samples arrive faster than they are trained on", fg="yellow")
    if facts["holes_arrived"]:
        count = facts["holes_arrived"]
        have = f"{counted(count, 'partition')} of the chain's holes {agreeing(count, 'has', 'have')} arrived"
        typer.echo(f"{have}: 'trainflow repair' trains {agreeing(count, 'it', 'them')}")
