"""`trainflow checkpoints`: what a chain has committed, what builds on it, and what sets two checkpoints apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE
from trainflow.cli.commands.checkpoint_decisions import fork, promote, prune, rewind, sweep
from trainflow.cli.commands.checkpoint_files import WHICH, export, path
from trainflow.cli.render.ledger_entries import sentence, superseded
from trainflow.cli.render.output import (
    EXIT_FAILED,
    JSON_OPTION,
    columns_of,
    print_json,
    print_rows,
    said_of,
    text,
)
from trainflow.humanize import bytes_text, counted, number
from trainflow.workspace.names import HEAD, checkpoint_argument
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from datetime import datetime

    from trainflow.checkpoints.audit.lineage import ComparedScore, LineagePartition
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.insight.chains.checkpoints import CheckpointDetail, CheckpointLine, DependentStage, Verification
    from trainflow.insight.chains.lineage import ComparedCheckpoints

checkpoints = typer.Typer(name="checkpoints", help="What a chain has committed.", no_args_is_help=True)

_COLUMNS = {
    "number": "CHECKPOINT",
    "place": "",
    "id": "ID",
    "trained": "TRAINED UP TO",
    "partitions": "PARTITIONS",
    "size": "BYTES",
    "at": "COMMITTED",
    "shown": "METRICS",
}


# -- list ----------------------------------------------------------------------------------------------------------


@checkpoints.command("list")
def list_checkpoints(
    pipeline: str = PIPELINE, stage: str | None = STAGE, branch: str | None = BRANCH, as_json: bool = JSON_OPTION
) -> int:
    """List the checkpoints whose files are kept.

    Oldest first; of a pipeline with stages, stage by stage.

    JSON: [{pipeline, stage, branch, number, id, parent_id, watermark, partitions (trained from the root up to it),
    size, at, run_id, metrics (what the trainer returned), scores (of samples it had not seen), on_line (false: left
    behind by a rewind), head, aliases}].
    """
    from trainflow.insight.chains.checkpoints import checkpoints_of

    with open_pipeline(pipeline) as file:
        chains = file.chosen(stage, branch)
        found = checkpoints_of(chains)
    if as_json:
        print_json(found)
        return 0
    scored = any(each.scores for each in found)
    shown = {"shown": "SCORES ON THE NEXT SPLIT" if scored else "METRICS"}
    columns = {**columns_of([chain.key for chain in chains]), **_COLUMNS, **shown}
    spare = ("id", "size", "at", "partitions")
    print_rows([_row(each, scored=scored) for each in found], columns, empty="no checkpoint yet", spare=spare)
    return 0


def _row(line: CheckpointLine, *, scored: bool) -> dict[str, Any]:
    """Scores and the trainer's own metrics are never mixed: one that was not scored yet has none."""
    import msgspec

    from trainflow.samples.partitions import label

    where = ["head"] if line.head else [] if line.on_line else ["rewound"]
    return {
        **msgspec.structs.asdict(line),
        "place": ", ".join([*where, *line.aliases]),
        "trained": label(line.watermark),
        "shown": _metrics(line.scores if scored else line.metrics),
    }


def _metrics(metrics: dict[str, float]) -> str:
    return " ".join(f"{name} {number(value)}" for name, value in list(metrics.items())[:3])


# -- show ----------------------------------------------------------------------------------------------------------


def show(
    pipeline: str = PIPELINE,
    which: str | None = WHICH,
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Show a checkpoint: its split, its files, its metrics.

    And by whom it was trained.

    JSON: its entry in the ledger, and uri: {kind, number, sequence (of the entry), previous (digest of the entry before
    it), at, by, format, seal (digest of this one), id, parent_id, watermark, split, artifacts, metrics, evaluation
    (scores of its parent on its split), not_finite (metrics that have no form in JSON), params, origin (where its
    weights came from, if not from the parent), upstream, seconds, accepted (who accepted it although gates refused it),
    grid (path, start and length of its samples), superseded (attempts at its training and commit that began before
    those that count), recovered (of its entry in a ledger that was lost; 0: none), uri (where its files are)}.
    """
    from trainflow.insight.chains.checkpoints import checkpoint_detail

    pipeline, named = checkpoint_argument(pipeline, which)
    with open_pipeline(pipeline) as file:
        found = checkpoint_detail(file.one_chain(stage, branch), named)
    if as_json:
        print_json(found.document)
    else:
        _show(found)
    return 0


def _show(found: CheckpointDetail) -> None:
    from trainflow.samples.partitions import label

    checkpoint = found.checkpoint
    split = checkpoint.split
    rows = f", {counted(split.rows, 'row')}" if split.rows is not None else ""
    facts = {
        "checkpoint": f"{checkpoint.number} of {found.of}  {checkpoint.id}",
        "parent": f"{found.parent or 'pruned'}  {checkpoint.parent_id}" if checkpoint.parent_id else "none",
        "weights from": f"{checkpoint.origin.chain}@{checkpoint.origin.checkpoint_id}" if checkpoint.origin else "",
        "trained up to": label(checkpoint.watermark),
        "split": f"{label(split.start)} to {label(split.end)}: {counted(len(split.partitions), 'partition')}{rows}",
        "holes": ", ".join(f"{label(hole.start)} to {label(hole.end)}" for hole in split.holes),
        "metrics": _all(checkpoint.metrics),
        "parent's score": _all(checkpoint.evaluation),
        "params": ", ".join(f"{name}={value}" for name, value in checkpoint.params.items()),
        "committed": f"{text(checkpoint.at)}",
        "by": " ".join(filter(None, (checkpoint.by.dag_id, checkpoint.by.run_id, checkpoint.by.hostname))),
        "after": superseded(checkpoint, between=""),
        "files": found.uri,
    }
    for name, value in facts.items():
        if value:
            typer.echo(f"{name:<15} {value}")
    files = checkpoint.artifacts.files
    for file in files[:_FILES_SHOWN]:
        elsewhere = f"  in {file.source}" if file.source else ""
        typer.echo(f"{'':<15} {file.path}  {counted(file.size, 'byte')}  {file.sha256[:19]}…{elsewhere}")
    if len(files) > _FILES_SHOWN:
        size = bytes_text(sum(each.size for each in files))
        more = counted(len(files) - _FILES_SHOWN, "file")
        typer.echo(f"{'':<15} … and {more} more, {size} in all (--json shows all)")


#: a checkpoint in shards may have a hundred thousand
_FILES_SHOWN = 200


def _all(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {number(value)}" for name, value in metrics.items())


# -- verify --------------------------------------------------------------------------------------------------------


def verify(
    pipeline: str = PIPELINE,
    which: str | None = WHICH,
    every: bool = typer.Option(False, "--all", help="Every checkpoint whose files are kept."),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Read a checkpoint's files: are they what was committed?

    Of a pipeline with stages the heads of all, or with --all every kept checkpoint of each. Exit code 1 when one is
    broken.

    JSON: {ok, checkpoints: [{pipeline, stage, branch, number, id, ok, files, bytes, problems}]}.
    """
    from trainflow.cli.render.file_progress import showing_files
    from trainflow.insight.chains import checkpoints

    pipeline, named = checkpoint_argument(pipeline, which)
    with open_pipeline(pipeline) as file, showing_files():
        several = every or named == HEAD
        chains = file.chosen(stage, branch) if several else [file.one_chain(stage, branch)]
        found = checkpoints.verify(chains, named, every=every)
    if as_json:
        print_json(found)
    else:
        _show_verified(found, [chain.key for chain in chains])
    return 0 if found.ok else EXIT_FAILED


def _show_verified(found: Verification, keys: list[ChainKey]) -> None:
    for each in found.checkpoints:
        outcome = "intact" if each.ok else "BROKEN"
        typer.echo(
            f"{said_of(each.chain, keys)}checkpoint {each.number}  {outcome}  {counted(each.files, 'file')}, "
            f"{counted(each.bytes, 'byte')}"
        )
        for problem in each.problems:
            typer.secho(f"  {problem}", fg=typer.colors.RED)
    if not found.checkpoints:
        typer.echo("no checkpoint yet")


# -- ledger --------------------------------------------------------------------------------------------------------


def ledger(
    pipeline: str = PIPELINE, stage: str | None = STAGE, branch: str | None = BRANCH, as_json: bool = JSON_OPTION
) -> int:
    """Print the entries of the ledger, one line each.

    As they are; of a pipeline with stages, ledger by ledger. Exit code 1 when one cannot be read.

    JSON: [{pipeline, stage, branch, entry (its number), location, content (null when it cannot be read), problem}].
    """
    from trainflow.insight.chains.checkpoints import ledger_lines, numbers_by_id

    with open_pipeline(pipeline) as file:
        chains = file.chosen(stage, branch)
        lines = ledger_lines(chains)
    keys = [chain.key for chain in chains]
    if as_json:
        print_json(lines)
    elif not lines:
        typer.echo("no entry yet")
    numbers = numbers_by_id(lines)
    for line in [] if as_json else lines:
        named = said_of(line.chain, keys)
        if line.content is None:
            typer.secho(f"{named}{line.entry:>6}  {line.problem}", fg=typer.colors.RED)
        else:
            typer.echo(f"{named}{line.entry:>6}  {text(line.content.at)}  {sentence(line.content, numbers)}")
    return EXIT_FAILED if any(line.problem for line in lines) else 0


def dependents(
    pipeline: str = PIPELINE,
    forget: str | None = typer.Option(
        None, "--forget", metavar="PIPELINE/STAGE/BRANCH", help="Keep nothing more for this one: it is no more."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="With --forget: only say what is kept for it."),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """List the stages of other pipelines that build on a chain.

    They start from checkpoints of it: what they have not passed yet is kept.

    A stage is listed from its first run on. One whose pipeline is no more holds checkpoints for ever, unless --forget
    says so; its next run lists it again. What its chain went on from stays.

    JSON: {dependents: [{chain, at, once, held (checkpoints of this chain that are kept for it)}]}.
    """
    import msgspec

    from trainflow.actions.chains import prune as action
    from trainflow.insight.chains.checkpoints import dependents_of

    with open_pipeline(pipeline) as file:
        chain = file.one_chain(stage, branch)
        if forget is not None:
            gone = (action.plan_forget_dependent if dry_run else action.forget_dependent)(chain, forget)
            _say_forgotten(gone, dry_run=dry_run)
        found = dependents_of(chain)
    if as_json:
        print_json(found)
        return 0
    rows = [msgspec.structs.asdict(each) for each in found.dependents]
    columns = {"chain": "CHAIN", "at": "STARTS FROM", "once": "ONCE", "held": "CHECKPOINTS KEPT FOR IT"}
    print_rows(rows, columns, empty="no stage of another pipeline follows")
    return 0


_SHOWN = 20
SIDE = "A branch (its head), a checkpoint's number, id or @ALIAS, or BRANCH@NUMBER."


def _say_forgotten(stage: DependentStage, *, dry_run: bool) -> None:
    would, kept = ("would be", "are") if dry_run else ("is", "were")
    typer.echo(f"{stage.chain} {would} forgotten: {counted(stage.held, 'checkpoint')} {kept} kept for it", err=True)


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
    evaluated, the trainer's own. Rows of one side alone are shown from where the two parted. A branch that has no
    checkpoint of its own yet is compared by the one it was forked from.

    JSON: {a: {chain, id, number, watermark, partitions, forked_from (the chain the checkpoint lies in, where the
    branch has none yet; else null)}, b (as a), measured (evaluation | training), scores:
    [{watermark, a, b}] (null: none there), parted_at (the end of what both learnt from the same checkpoints, or null),
    common, only_a, only_b (partitions: {start, end, fingerprint, rows, chain,
    checkpoint_id, number, run_id, at, filled}), changed: [{a, b}]}.
    """
    from trainflow.insight.chains.lineage import compare as compare_checkpoints

    with open_pipeline(pipeline) as file:
        found = compare_checkpoints(file.one_chain(stage, branch), a, b)
    if as_json:
        print_json(found)
    else:
        _show_compared(found)
    return 0


def _show_compared(found: ComparedCheckpoints) -> None:
    for name, side in (("A", found.a), ("B", found.b)):
        which = f"checkpoint {side.number}"
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
    """A table of the scores, one side under the other; where one has none it is said."""
    scored = found.measured == "evaluation"
    scores = [each for each in found.scores if not _is_earlier(each, found.parted_at)]
    sides = [(side, score, values) for score in scores for side, values in (("A", score.a), ("B", score.b)) if values]
    names = sorted({name for _, _, values in sides for name in values})
    rows = [{**values, "upto": score.watermark, "side": side} for side, score, values in sides]
    columns = {"upto": "SCORED UP TO" if scored else "TRAINED UP TO", "side": ""} | {name: name for name in names}
    if names:
        typer.echo("scores on samples not seen before:" if scored else "the trainer's metrics, nothing was evaluated:")
        print_rows(rows, columns, empty="")
    if earlier := len(found.scores) - len(scores):
        typer.echo(f"… and {counted(earlier, 'row')} up to {text(found.parted_at)}, where they part (--json shows all)")
    for side in ("A", "B"):
        if not any(side == each for each, _, _ in sides):
            typer.echo(f"{side} has no {'scores' if scored else 'metrics'} of its own yet to compare")


def _is_earlier(score: ComparedScore, parted_at: datetime | None) -> bool:
    """Whether one side alone was scored, before the two parted: it is the past of both."""
    return parted_at is not None and score.watermark <= parted_at and None in (score.a, score.b)


def _show_partitions(what: str, partitions: list[LineagePartition]) -> None:
    if not partitions:
        return
    typer.echo(f"{what}: {counted(len(partitions), 'partition')}")
    for each in partitions[:_SHOWN]:
        where = f"checkpoint {each.number} of {each.chain}"
        typer.echo(f"  {text(each.start)} to {text(each.end)}  {where}  {each.run_id}")
    if len(partitions) > _SHOWN:
        typer.echo(f"  … and {len(partitions) - _SHOWN} more (--json shows all)")


for _command in (show, path, export, verify, ledger, promote, prune, sweep, rewind, fork, dependents, compare):
    checkpoints.command(_command.__name__)(_command)
