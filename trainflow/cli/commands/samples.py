"""`trainflow samples`: the partitions a pipeline trains on."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import BRANCH, OVERRIDES, PIPELINE, STAGE, moment, parse_overrides
from trainflow.cli.render.costs import print_cost
from trainflow.cli.render.output import EXIT_FAILED, JSON_OPTION, columns_of, print_json, print_rows, text
from trainflow.humanize import counted
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from trainflow.insight.chains.partitions import ChainPartitions, PartitionReport

samples = typer.Typer(name="samples", help="The partitions a pipeline trains on.", no_args_is_help=True)

PARTITION = typer.Argument(metavar="PARTITION", help="The partition's start: 2013-01-31, or 2013-01-31T05:00 (UTC).")
_COLUMNS = {"start": "FROM", "end": "TO", "partitions": "PARTITIONS", "state": "STATE", "bytes": "BYTES", "reason": ""}


@samples.command("list")
def list_samples(
    pipeline: str = PIPELINE,
    since: str | None = typer.Option(
        None, "--from", metavar="DATE", help="First partition; default: the table's start."
    ),
    until: str | None = typer.Option(
        None, "--to", metavar="DATE", help="Exclusive end; default: the last that is there or trained."
    ),
    overrides: list[str] = OVERRIDES,
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """List the partitions and the state each is in.

    Trained, ready, not ready (and why), missing, or a hole; of a pipeline with stages, stage by stage. For people,
    neighbours are put together.

    JSON: [{pipeline, stage, branch, start, end, state (trained | ready | not_ready | missing | hole), reason, files,
    bytes, checkpoint (the number of the one trained on it, or null)}], one for each partition.
    """
    from trainflow.clock import SystemClock
    from trainflow.insight.chains.partitions import partitions_of

    first, end = moment(since, "--from"), moment(until, "--to")
    with open_pipeline(pipeline, parse_overrides(overrides)) as file:
        found = partitions_of(file.chosen(stage, branch), first, end, SystemClock().now())
    if as_json:
        print_json([line for each in found for line in each.lines])
        return 0
    rows = [row for each in found for row in _ranges(each)]
    columns = {**columns_of([each.chain for each in found]), **_COLUMNS}
    print_rows(rows, columns, empty="no partition is there yet")
    return 0


def _ranges(found: ChainPartitions) -> list[dict[str, Any]]:
    from trainflow.insight.chains.partitions import ranges
    from trainflow.samples.partitions import label

    return [
        {
            **found.chain.names,
            "start": label(each.start),
            "end": label(each.end),
            "partitions": each.partitions,
            "state": each.state.replace("_", " "),
            "bytes": each.bytes or None,
            "reason": each.reason,
        }
        for each in ranges(found.partitions)
    ]


@samples.command("check")
def check(
    pipeline: str = PIPELINE,
    partition: str = PARTITION,
    overrides: list[str] = OVERRIDES,
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    cost: bool = typer.Option(False, "--cost", help="Also what that cost: requests, bytes, seconds, and their price."),
    as_json: bool = JSON_OPTION,
) -> int:
    """Ask of a partition whether it is ready and good.

    Exit code 1 when it is not.

    JSON: the keys of `samples show`; with --cost also cost, as of `audit --cost`.
    """
    from trainflow.clock import SystemClock
    from trainflow.insight.chains.partitions import partition_report
    from trainflow.insight.cost import cost_so_far

    with open_pipeline(pipeline, parse_overrides(overrides)) as file:
        report = partition_report(file.one_chain(stage, branch), partition, SystemClock().now())
        spent = cost_so_far(file.workspace.settings.prices) if cost else None
    if as_json:
        print_json(report if spent is None else {**_builtins(report), "cost": spent})
    else:
        for problem in report.problems or ([report.reason] if report.reason else []):
            typer.secho(problem, fg=typer.colors.RED)
        refused = "not good" if report.problems else report.state.replace("_", " ")
        typer.echo(f"{_name(report.start)}: {'ready and good' if report.ok else refused}")
        if spent is not None:
            print_cost(spent)
    return 0 if report.ok else EXIT_FAILED


@samples.command("show")
def show(
    pipeline: str = PIPELINE,
    partition: str = PARTITION,
    overrides: list[str] = OVERRIDES,
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Show what a partition holds, and who was trained on it.

    JSON: {start, end, state, reason, ok, problems, files: [{path, size_bytes, rows, fingerprint, row_groups, hint}],
    rows, bytes, fingerprint, trained_by: {checkpoint_id, number, at, fingerprint, start, end, hint} or null,
    republished}.
    """
    report = _report(pipeline, partition, overrides, stage, branch)
    if as_json:
        print_json(report)
    else:
        _show(report)
    return 0


def _report(
    pipeline: str, partition: str, overrides: list[str], stage: str | None, branch: str | None
) -> PartitionReport:
    from trainflow.clock import SystemClock
    from trainflow.insight.chains.partitions import partition_report

    with open_pipeline(pipeline, parse_overrides(overrides)) as file:
        return partition_report(file.one_chain(stage, branch), partition, SystemClock().now())


def _builtins(report: PartitionReport) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(report)
    return found


def _name(start: datetime) -> str:
    from trainflow.samples.partitions import label

    return f"partition {label(start)}"


def _show(report: PartitionReport) -> None:
    state = report.state.replace("_", " ")
    typer.echo(f"{_name(report.start)}: {state}{f': {report.reason}' if report.reason else ''}")
    for problem in report.problems:
        typer.secho(f"  problem: {problem}", fg=typer.colors.RED)
    for file in report.files:
        rows = f"{counted(file.rows, 'row')}, " if file.rows is not None else ""
        typer.echo(f"  {file.path}  {rows}{counted(file.size_bytes, 'byte')}")
    if report.fingerprint:
        rows = f"{counted(report.rows, 'row')}, " if report.rows is not None else ""
        typer.echo(
            f"  in all: {counted(len(report.files), 'file')}, {rows}{counted(report.bytes, 'byte')}, "
            f"{report.fingerprint}"
        )
    trained = report.trained_by
    if trained is None:
        typer.echo("  not trained")
        return
    typer.echo(f"  trained by checkpoint {trained.number} ({trained.checkpoint_id}) at {text(trained.at)}")
    if report.republished:
        typer.secho("  published again since: it was trained with other content", fg=typer.colors.YELLOW)
