"""`trainflow checkpoints`: what a chain has committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE
from trainflow.cli.commands import compare, dependents, fork, promote, prune, rewind
from trainflow.cli.exit_codes import EXIT_FAILED
from trainflow.cli.render.chain_columns import columns_of, said_of
from trainflow.cli.render.ledger_entries import sentence
from trainflow.cli.render.output import JSON_OPTION, print_json, print_rows, text
from trainflow.pluralize import counted
from trainflow.workspace.names import HEAD
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.ledger.entries import Checkpoint
    from trainflow.insight.chains.checkpoints import CheckpointLine, Verification

WHICH = typer.Argument(HEAD, metavar="[SEQUENCE|head|ID]", help="The checkpoint's number, its id, or the head.")
_COLUMNS = {
    "sequence": "SEQUENCE",
    "place": "",
    "id": "ID",
    "trained": "TRAINED UP TO",
    "partitions": "PARTITIONS",
    "size": "BYTES",
    "at": "COMMITTED",
    "shown": "METRICS",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(name="checkpoints", help="What a chain has committed.", no_args_is_help=True)
    group.command("list")(list_checkpoints)
    group.command("show")(show)
    group.command("verify")(verify)
    group.command("ledger")(ledger)
    promote.register(group)
    prune.register(group)
    rewind.register(group)
    fork.register(group)
    dependents.register(group)
    compare.register(group)
    app.add_typer(group)


# -- list ----------------------------------------------------------------------------------------------------------


def list_checkpoints(
    pipeline: str = PIPELINE, stage: str | None = STAGE, branch: str | None = BRANCH, as_json: bool = JSON_OPTION
) -> int:
    """List the checkpoints whose files are kept.

    Oldest first; of a pipeline with stages, stage by stage.

    JSON: [{pipeline, stage, branch, sequence, id, parent_id, watermark, partitions (trained from the root up to it),
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
    columns = {**columns_of([chain.key for chain in chains]), **_COLUMNS}
    print_rows([_row(each, scored=scored) for each in found], columns, as_json=False, empty="no checkpoint yet")
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
    return " ".join(f"{name} {value:.4g}" for name, value in list(metrics.items())[:3])


# -- show ----------------------------------------------------------------------------------------------------------


def show(
    pipeline: str = PIPELINE,
    which: str = WHICH,
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Show a checkpoint: its split, its files, its metrics.

    And by whom it was trained.

    JSON: its entry in the ledger, and uri: {kind, sequence, previous (digest of the entry before it), at, by, format,
    seal (digest of this one), id, parent_id, watermark, split, artifacts, metrics, evaluation (scores of its parent on
    its split), not_finite (metrics that have no form in JSON), params, origin (where its weights came from, if not from
    the parent), base, seconds, accepted (who accepted it although gates refused it), grid (path, start and length
    of its samples), recovered (its number in a ledger that was lost; 0: none), uri (where its files are)}.
    """
    import msgspec

    from trainflow.insight.chains.checkpoints import checkpoint_detail

    with open_pipeline(pipeline) as file:
        found = checkpoint_detail(file.one_chain(stage, branch), which)
    if as_json:
        print_json({**msgspec.to_builtins(found.checkpoint), "uri": found.uri})
    else:
        _show(found.checkpoint, found.uri)
    return 0


def _show(checkpoint: Checkpoint, uri: str) -> None:
    from trainflow.samples.partitions import label

    split = checkpoint.split
    rows = f", {counted(split.rows, 'row')}" if split.rows is not None else ""
    facts = {
        "checkpoint": f"{checkpoint.sequence}  {checkpoint.id}",
        "parent": checkpoint.parent_id or "none",
        "weights from": f"{checkpoint.origin.chain}@{checkpoint.origin.checkpoint_id}" if checkpoint.origin else "",
        "trained up to": label(checkpoint.watermark),
        "split": f"{label(split.start)} to {label(split.end)}: {counted(len(split.partitions), 'partition')}{rows}",
        "holes": ", ".join(f"{label(hole.start)} to {label(hole.end)}" for hole in split.holes),
        "metrics": _all(checkpoint.metrics),
        "parent's score": _all(checkpoint.evaluation),
        "params": ", ".join(f"{name}={value}" for name, value in checkpoint.params.items()),
        "committed": f"{text(checkpoint.at)}",
        "by": " ".join(filter(None, (checkpoint.by.dag_id, checkpoint.by.run_id, checkpoint.by.hostname))),
        "files": uri,
    }
    for name, value in facts.items():
        if value:
            typer.echo(f"{name:<15} {value}")
    for file in checkpoint.artifacts.files:
        typer.echo(f"{'':<15} {file.path}  {counted(file.size, 'byte')}  {file.sha256[:19]}…")


def _all(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


# -- verify --------------------------------------------------------------------------------------------------------


def verify(
    pipeline: str = PIPELINE,
    which: str = WHICH,
    every: bool = typer.Option(False, "--all", help="Every checkpoint whose files are kept."),
    stage: str | None = STAGE,
    branch: str | None = BRANCH,
    as_json: bool = JSON_OPTION,
) -> int:
    """Read a checkpoint's files: are they what was committed?

    Of a pipeline with stages the heads of all, or with --all every kept checkpoint of each. Exit code 1 when one is
    broken.

    JSON: {ok, checkpoints: [{pipeline, stage, branch, sequence, id, ok, files, bytes, problems}]}.
    """
    from trainflow.insight.chains import checkpoints

    with open_pipeline(pipeline) as file:
        several = every or which == HEAD
        chains = file.chosen(stage, branch) if several else [file.one_chain(stage, branch)]
        found = checkpoints.verify(chains, which, every=every)
    if as_json:
        print_json(found)
    else:
        _show_verified(found, [chain.key for chain in chains])
    return 0 if found.ok else EXIT_FAILED


def _show_verified(found: Verification, keys: list[ChainKey]) -> None:
    for each in found.checkpoints:
        outcome = "intact" if each.ok else "BROKEN"
        typer.echo(
            f"{said_of(each.chain, keys)}checkpoint {each.sequence}  {outcome}  {counted(each.files, 'file')}, "
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

    JSON: [{pipeline, stage, branch, sequence, location, entry (null when it cannot be read), problem}].
    """
    from trainflow.insight.chains.checkpoints import ledger_lines

    with open_pipeline(pipeline) as file:
        chains = file.chosen(stage, branch)
        lines = ledger_lines(chains)
    keys = [chain.key for chain in chains]
    if as_json:
        print_json(lines)
    elif not lines:
        typer.echo("no entry yet")
    for line in [] if as_json else lines:
        named = said_of(line.chain, keys)
        if line.entry is None:
            typer.secho(f"{named}{line.sequence:>6}  {line.problem}", fg=typer.colors.RED)
        else:
            typer.echo(f"{named}{line.sequence:>6}  {text(line.entry.at)}  {sentence(line.entry)}")
    return EXIT_FAILED if any(line.problem for line in lines) else 0
