"""`trainflow audit`: prove what a pipeline's chains were trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import BRANCH, OVERRIDES, PIPELINE, STAGE, parse_overrides
from trainflow.cli.exit_codes import EXIT_FAILED
from trainflow.cli.render.output import JSON_OPTION, print_json
from trainflow.pluralize import counted
from trainflow.workspace.pipelines import Chain, open_pipeline

if TYPE_CHECKING:
    from trainflow.checkpoints.audit.audit import AuditReport
    from trainflow.checkpoints.ledger.ledger import Ledger

_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("audit")(audit)


def audit(
    pipeline: str = PIPELINE,
    overrides: list[str] = OVERRIDES,
    every: bool = typer.Option(False, "--all", help="Also stages and branches that only the store knows."),
    files: bool = typer.Option(True, "--files/--no-files", help="Read every file of every kept checkpoint."),
    diet: str | None = typer.Option(
        None,
        "--diet",
        metavar="SEQUENCE|head|ID",
        help="Instead: every partition that the weights of this checkpoint ever learnt from.",
    ),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    samples: bool = typer.Option(True, "--samples/--no-samples", help="Compare with the samples as they are now."),
    as_json: bool = JSON_OPTION,
) -> int:
    """Prove what was trained: each partition once, in order.

    None missing, every file intact; from the ledger alone. Needs no database and no engine. Exit codes: 0 all is well
    (an empty ledger too), 1 something is wrong, 2 wrong input.

    JSON: {pipeline, ok, chains: [{pipeline, stage, branch, store, partitions, gaps, duplicates, holes (numbers),
    gap_list, duplicate_list, hole_list ({start, end, reason} each), left_out (what of the holes a gate or a person left
    out on purpose, likewise), arrived (starts of partitions of the other holes, which were missing, that are there
    now), filled (partitions that were holes once), skips, promoted (alias: checkpoint), rewinds, start (what it was
    forked or adopted from), entries, checkpoints, head_id, head_sequence, watermark, ledger_ok, artifacts_ok,
    republished, problems, notices, ok}]}; of one chain its keys also stand at the top.

    JSON with --diet: {chain, id, sequence, watermark, began_with (the folder it was adopted from), rows, partitions:
    [{start, end, fingerprint, rows, chain, checkpoint_id, sequence, run_id, at, filled}]}, in the order of training.
    """
    file = open_pipeline(pipeline, parse_overrides(overrides))
    if diet is not None:
        from trainflow.cli.commands.lineage import show_diet

        return show_diet(file.one_chain(stage, branch), diet, json=as_json)
    ledgers = _ledgers(file.chosen(stage, branch), every=every)
    found = [_audited(chain, ledger, files=files, samples=samples) for chain, ledger in ledgers]
    ok = all(report.ok for _, report in found)
    if as_json:
        names = {each["pipeline"] for each, _ in found}
        top = found[0][0] if len(found) == 1 else {"pipeline": names.pop() if len(names) == 1 else file.name}
        print_json({**top, "ok": ok, "chains": [each for each, _ in found]})
    else:
        for _, report in found:
            _show(report)
    return 0 if ok else EXIT_FAILED


def _audited(chain: Chain, ledger: Ledger, *, files: bool, samples: bool) -> tuple[dict[str, Any], AuditReport]:
    """The report on a ledger in the store of a chain, and its facts. Samples are known of the chain's own ledger."""
    from trainflow.clock import SystemClock
    from trainflow.insight.audit import audit_chain

    report = audit_chain(
        ledger,
        chain.samples if ledger.chain == chain.key else None,
        chain.project.root,
        SystemClock().now(),
        verify_files=files,
        look_at_samples=samples,
        foreign_options=chain.adopt.storage_options if chain.adopt else None,
    )
    return facts(ledger.chain, report), report


def _ledgers(chains: list[Chain], *, every: bool) -> list[tuple[Chain, Ledger]]:
    """Each chain once, however many DAGs of the file train it."""
    from trainflow.checkpoints.actions.prune import chains_of

    found: dict[tuple[str, str], tuple[Chain, Ledger]] = {}
    for chain in chains:
        ledger = chain.ledger()
        found.setdefault((ledger.store.url, str(ledger.chain)), (chain, ledger))
    if every:
        for chain, ledger in list(found.values()):
            for key in chains_of(ledger.store, ledger.chain.pipeline):
                found.setdefault((ledger.store.url, str(key)), (chain, chain.ledger(key)))
    return list(found.values())


def facts(chain: Any, report: AuditReport) -> dict[str, Any]:
    """A report under the keys that the command documents."""
    return {
        "pipeline": chain.pipeline,
        "stage": chain.stage,
        "branch": chain.branch,
        "store": report.store,
        "partitions": report.partitions,
        "gaps": len(report.gaps),
        "duplicates": len(report.duplicates),
        "holes": len(report.holes),
        "gap_list": report.gaps,
        "duplicate_list": report.duplicates,
        "hole_list": report.holes,
        "left_out": report.left_out,
        "arrived": report.arrived,
        "filled": report.filled,
        "skips": report.skips,
        "promoted": report.promoted,
        "rewinds": report.rewinds,
        "start": report.start,
        "entries": report.entries,
        "checkpoints": report.checkpoints,
        "head_id": report.head_id,
        "head_sequence": report.head_sequence,
        "watermark": report.watermark,
        "ledger_ok": report.ledger_ok,
        "artifacts_ok": report.artifacts_ok,
        "republished": report.republished,
        "problems": report.problems,
        "notices": report.notices,
        "ok": report.ok,
    }


def _show(report: AuditReport) -> None:
    from trainflow.checkpoints.audit.timeline import uncovered
    from trainflow.samples.partitions import label

    trained = f"up to {label(report.watermark)}" if report.watermark else "nothing yet"
    typer.echo(f"{report.chain} in {report.store}")
    typer.echo(f"  trained     {counted(report.partitions, 'partition')}, {trained}")
    typer.echo(f"  head        {f'checkpoint {report.head_sequence} ({report.head_id})' if report.head_id else 'none'}")
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
