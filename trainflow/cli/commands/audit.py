"""`trainflow audit`: prove what chains were trained on; with --lineage, what a checkpoint ever learnt from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import BRANCH, OVERRIDES, PIPELINE, STAGE, parse_overrides
from trainflow.cli.render.file_progress import showing_files
from trainflow.cli.render.output import EXIT_FAILED, JSON_OPTION, only_one, print_json, print_rows, text
from trainflow.humanize import counted
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from trainflow.checkpoints.audit.audit import AuditReport
    from trainflow.checkpoints.audit.lineage import LineagePartition
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.insight.cost import ChainCost, Cost
    from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain


_SHOWN = 20


def audit(
    pipeline: str = PIPELINE,
    overrides: list[str] = OVERRIDES,
    every: bool = typer.Option(False, "--all", help="Also stages and branches that only the store knows."),
    files: bool = typer.Option(True, "--files/--no-files", help="Read every file of every kept checkpoint."),
    lineage: str | None = typer.Option(
        None,
        "--lineage",
        metavar="NUMBER|head|ID|@ALIAS",
        help="Instead: every partition that the weights of this checkpoint ever learnt from.",
    ),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    samples: bool = typer.Option(True, "--samples/--no-samples", help="Compare with the samples as they are now."),
    cost: bool = typer.Option(False, "--cost", help="Also what this audit cost, and what the chains cost."),
    as_json: bool = JSON_OPTION,
) -> int:
    """Prove what was trained: each partition once, in order.

    None missing, every file intact; from the ledger alone. Needs no database and no engine. Exit codes: 0 all is well
    (an empty ledger too), 1 something is wrong, 2 wrong input.

    JSON: {pipeline, ok, chains: [{pipeline, stage, branch, store, partitions, gaps, duplicates, holes (numbers),
    gap_list, duplicate_list, hole_list ({start, end, reason} each), left_out (what of the holes a gate or a person left
    out on purpose, likewise), arrived (starts of partitions of the other holes, which were missing, that are there
    now), filled (partitions that were holes once), skips, promoted (alias: checkpoint), rewinds, start (what it was
    forked or adopted from), entries, checkpoints, head_id, head_number, watermark, ledger_ok, artifacts_ok,
    republished, problems, notices, ok}]}; of one chain its keys also stand at the top.

    JSON with --cost: also cost {requests, writes (PUT, COPY, POST, LIST), reads (GET, HEAD), deletes, bytes_sent,
    bytes_received, seconds, errors, price, currency, price_source, unpriced, requests_by_kind} of this audit, and
    chain_costs [{pipeline, stage, branch, kept_checkpoints, kept_bytes, garbage_files, garbage_bytes, currency,
    price_source, kept_price_a_month, run {runs, requests, writes, reads, bytes_sent, bytes_received, price} (the mean
    of the last that committed) or null, runs_a_day, price_a_day, price_a_month}]; prices are null where they are not
    known.

    JSON with --lineage: {chain, id, number, watermark, began_with (the folder it was adopted from), rows, partitions:
    [{start, end, fingerprint, rows, chain, checkpoint_id, number, run_id, at, filled}]}, in the order of training.
    """
    from trainflow.clock import SystemClock
    from trainflow.errors import InputError
    from trainflow.insight.chains.audit import audit_pipeline

    if lineage is not None and cost:
        raise InputError("--cost is about an audit: leave out --lineage, or --cost")
    with open_pipeline(pipeline, parse_overrides(overrides)) as file, showing_files():
        if lineage is not None:
            return show_lineage(file.one_chain(stage, branch), lineage, json=as_json)
        now = SystemClock().now()
        found = audit_pipeline(file, stage, branch, now, every=every, verify_files=files, look_at_samples=samples)
        spent, chains = _costs(file, stage, branch, now) if cost else (None, [])
    if as_json:
        document = only_one(found.document, "chains")
        print_json({**document, "cost": spent, "chain_costs": chains} if cost else document)
        return 0 if found.ok else EXIT_FAILED
    for each in found.chains:
        _show(each.chain, each.report)
    if spent is not None:
        _show_costs(spent, chains)
    return 0 if found.ok else EXIT_FAILED


def _costs(file: OpenedPipeline, stage: str | None, branch: str | None, now: datetime) -> tuple[Cost, list[ChainCost]]:
    """What was asked so far, and what the chains cost, which is asked afterwards."""
    from trainflow.errors import CheckpointError
    from trainflow.insight.cost import chain_costs, cost_so_far

    spent = cost_so_far(file.workspace.settings.prices)
    try:
        return spent, chain_costs(file, stage, branch, now)
    except CheckpointError:  # what is wrong with the ledger, the audit says
        return spent, []


def _show_costs(spent: Cost, chains: list[ChainCost]) -> None:
    from trainflow.cli.render.costs import print_chain_cost, print_cost

    typer.echo("")
    print_cost(spent)
    for each in chains:
        print_chain_cost(each)


def _show(chain: ChainKey, report: AuditReport) -> None:
    from trainflow.checkpoints.audit.timeline import uncovered
    from trainflow.samples.partitions import label

    trained = f"up to {label(report.watermark)}" if report.watermark else "nothing yet"
    typer.echo(f"{chain} in {report.store}")
    typer.echo(f"  trained     {counted(report.partitions, 'partition')}, {trained}")
    typer.echo(f"  head        {f'checkpoint {report.head_number} ({report.head_id})' if report.head_id else 'none'}")
    if report.start:
        typer.echo(f"  began       {report.start}")
    for alias, name in sorted(report.promoted.items()):
        typer.echo(f"  promoted    {name} is {alias}")
    typer.echo(f"  gaps        {len(report.gaps)}")
    typer.echo(f"  duplicates  {len(report.duplicates)}")
    filled = f", {counted(report.filled, 'partition')} filled since" if report.filled else ""
    typer.echo(f"  holes       {len(report.holes)}{filled}")
    for hole in report.holes[:_SHOWN]:
        left_out = uncovered(hole, report.left_out) != [hole]
        why = f"left out on purpose: {hole.reason}" if left_out else hole.reason
        typer.echo(f"              {hole} {why}".rstrip())
    for stretch in report.skips:
        typer.echo(
            f"  skipped     {stretch}{f' {stretch.reason}' if stretch.reason else ''}, the next split records it"
        )
    typer.echo(f"  ledger      {'intact' if report.ledger_ok else 'BROKEN'} ({counted(report.entries, 'entry')})")
    typer.echo(
        f"  artifacts   {'intact' if report.artifacts_ok else 'BROKEN'} ({counted(report.checkpoints, 'checkpoint')})"
    )
    for problem in report.problems:
        typer.secho(f"  problem: {problem}", fg=typer.colors.RED)
    for notice in report.notices[:_SHOWN]:
        typer.secho(f"  notice: {notice}", fg=typer.colors.YELLOW)
    if len(report.notices) > _SHOWN:
        typer.echo(f"  … and {counted(len(report.notices) - _SHOWN, 'more notice')} (--json shows all)")
    typer.echo("  ok" if report.ok else f"  {counted(len(report.problems), 'problem')}")


_LINEAGE_COLUMNS = {
    "start": "FROM",
    "end": "TO",
    "partitions": "PARTITIONS",
    "rows": "ROWS",
    "chain": "CHAIN",
    "number": "CHECKPOINT",
    "run_id": "RUN",
    "how": "",
}


def _stretches(partitions: Sequence[LineagePartition]) -> list[dict[str, Any]]:
    """Rows of a lineage: partitions that follow each other in one checkpoint are one."""
    found: list[list[LineagePartition]] = []
    for each in partitions:
        last = found[-1][-1] if found else None
        if last and (last.end, last.checkpoint_id) == (each.start, each.checkpoint_id):
            found[-1].append(each)
        else:
            found.append([each])
    return [_stretch(each) for each in found]


def _stretch(partitions: list[LineagePartition]) -> dict[str, Any]:
    first, rows = partitions[0], [each.rows for each in partitions if each.rows is not None]
    return {
        "start": first.start,
        "end": partitions[-1].end,
        "partitions": len(partitions),
        "rows": sum(rows) if len(rows) == len(partitions) else None,
        "chain": first.chain,
        "number": first.number,
        "run_id": first.run_id,
        "how": "filled hole" if first.filled else "",
    }


def show_lineage(chain: PipelineChain, which: str, *, json: bool) -> int:
    """Print it. Raises InputError, LedgerCorrupt, StoreFailure."""
    from trainflow.insight.chains.lineage import lineage

    found = lineage(chain, which)
    if json:
        print_json(found)
        return 0
    typer.echo(f"{found.chain} checkpoint {found.number}, trained up to {text(found.watermark)}")
    if found.began_with:
        typer.echo(f"began with {found.began_with}: what that was trained on is not known here")
    print_rows(_stretches(found.partitions), _LINEAGE_COLUMNS, empty="nothing", spare=("run_id",))
    rows_ = f", {counted(found.rows, 'row')}" if found.rows is not None else ""
    typer.echo(f"{counted(len(found.partitions), 'partition')}{rows_} (--json: each with its fingerprint)")
    return 0
