"""`trainflow checkpoints compare`: what sets two checkpoints, or two branches, apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE
from trainflow.cli.render.output import JSON_OPTION, print_json, print_rows, text
from trainflow.pluralize import counted
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from trainflow.insight.chains.compare import ComparedCheckpoints
    from trainflow.insight.chains.lineage import LineagePartition

_SHOWN = 20
SIDE = "A branch (its head), a checkpoint's number or id, or BRANCH@NUMBER."


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("compare")(compare)


def compare(
    pipeline: str = PIPELINE,
    a: str = typer.Argument(metavar="A", help=SIDE),
    b: str = typer.Argument(metavar="B", help=SIDE),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Compare two checkpoints or branches.

    Metrics over the watermark side by side, and what they were trained on.

    Metrics are scores on samples not seen before, one row for the end of what was scored; or, where nothing was ever
    evaluated, the trainer's own. A branch that has no checkpoint of its own yet is compared by the one it was forked
    from.

    JSON: {a: {chain, id, sequence, watermark, partitions, forked_from (the chain the checkpoint lies in, where the
    branch has none yet; else null)}, b (as a), measured (evaluation | training), scores:
    [{watermark, a, b}] (null: none there), common, only_a, only_b (partitions: {start, end, fingerprint, rows, chain,
    checkpoint_id, sequence, run_id, at, filled}), changed: [{a, b}]}.
    """
    from trainflow.insight.chains.compare import compare as compare_checkpoints

    with open_pipeline(pipeline) as file:
        found = compare_checkpoints(file.one_chain(stage, branch), a, b)
    if as_json:
        print_json(found)
    else:
        _show(found)
    return 0


def _show(found: ComparedCheckpoints) -> None:
    for name, side in (("A", found.a), ("B", found.b)):
        which = f"checkpoint {side.sequence}"
        if side.forked_from:
            which = f"no checkpoint of its own yet: {which} of {side.forked_from}, from which it was forked"
        upto = text(side.watermark)
        typer.echo(f"{name}  {side.chain}  {which}, trained up to {upto}, {counted(side.partitions, 'partition')}")
    _show_scores(found)
    typer.echo(f"{counted(found.common, 'partition')} in common, {len(found.changed)} with another content")
    _show_partitions("only A", found.only_a)
    _show_partitions("only B", found.only_b)
    _show_partitions("another content", [each.a for each in found.changed])


def _show_scores(found: ComparedCheckpoints) -> None:
    """A table of the scores; a side that has none has no columns, and it is said."""
    scored = found.measured == "evaluation"
    rows = [{"watermark": score.watermark, **_named("a", score.a), **_named("b", score.b)} for score in found.scores]
    sides = [(side, values or {}) for score in found.scores for side, values in (("a", score.a), ("b", score.b))]
    names = sorted({(name, side) for side, values in sides for name in values})
    columns = {"watermark": "SCORED UP TO" if scored else "TRAINED UP TO"}
    columns |= {f"{side} {name}": f"{side.upper()} {name}" for name, side in names}
    if names:
        typer.echo("scores on samples not seen before:" if scored else "the trainer's metrics, nothing was evaluated:")
        print_rows(rows, columns, as_json=False, empty="")
    for side in ("a", "b"):
        if not any(side == each for _, each in names):
            typer.echo(f"{side.upper()} has no {'scores' if scored else 'metrics'} of its own yet to compare")


def _named(side: str, scores: dict[str, float] | None) -> dict[str, float]:
    return {f"{side} {name}": value for name, value in (scores or {}).items()}


def _show_partitions(what: str, partitions: list[LineagePartition]) -> None:
    if not partitions:
        return
    typer.echo(f"{what}: {counted(len(partitions), 'partition')}")
    for each in partitions[:_SHOWN]:
        where = f"checkpoint {each.sequence} of {each.chain}"
        typer.echo(f"  {text(each.start)} to {text(each.end)}  {where}  {each.run_id}")
    if len(partitions) > _SHOWN:
        typer.echo(f"  … and {len(partitions) - _SHOWN} more (--json shows all)")
