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
from trainflow.workspace.names import HEAD, checkpoint_named
from trainflow.workspace.pipelines import open_pipeline

if TYPE_CHECKING:
    from trainflow.checkpoints.ledger.entries import Checkpoint, LedgerEntry
    from trainflow.checkpoints.ledger.ledger import Ledger
    from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary

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


def _ledgers(pipeline: str, stage: str | None, branch: str | None) -> list[Ledger]:
    return [chain.ledger() for chain in open_pipeline(pipeline).chosen(stage, branch)]


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
    ledgers = _ledgers(pipeline, stage, branch)
    found = [(ledger.chain, each, ledger.state()) for ledger in ledgers for each in ledger.kept()]
    if as_json:
        print_json([{**key.names, **_line(summary, state)} for key, summary, state in found])
        return 0
    scored = any(summary.scores for _, summary, _ in found)
    rows = [
        {**key.names, **_line(summary, state), **_shown(summary, state, scored=scored)} for key, summary, state in found
    ]
    columns = {**columns_of([ledger.chain for ledger in ledgers]), **_COLUMNS}
    print_rows(rows, columns, as_json=False, empty="no checkpoint yet")
    return 0


def _shown(summary: CheckpointSummary, state: ChainState, *, scored: bool) -> dict[str, str]:
    """Scores and the trainer's own metrics are never mixed: one that was not scored yet has none."""
    from trainflow.samples.partitions import label

    return {
        "place": _place(summary, state),
        "trained": label(summary.watermark),
        "shown": _metrics(summary.scores if scored else summary.metrics),
    }


def _line(summary: CheckpointSummary, state: ChainState) -> dict[str, Any]:
    names = ("sequence", "id", "parent_id", "watermark", "partitions", "size", "at", "run_id", "metrics", "scores")
    return {
        **{name: getattr(summary, name) for name in names},
        "on_line": summary.on_line,
        "head": _is_head(summary, state),
        "aliases": _aliases(summary, state),
    }


def _place(summary: CheckpointSummary, state: ChainState) -> str:
    where = ["head"] if _is_head(summary, state) else [] if summary.on_line else ["rewound"]
    return ", ".join([*where, *_aliases(summary, state)])


def _aliases(summary: CheckpointSummary, state: ChainState) -> list[str]:
    return sorted(alias for alias, checkpoint_id in state.promoted.items() if checkpoint_id == summary.id)


def _is_head(summary: CheckpointSummary, state: ChainState) -> bool:
    return state.head is not None and state.head.id == summary.id


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
    of its samples), uri (where its files are)}.
    """
    import msgspec

    found = open_pipeline(pipeline).one_chain(stage, branch).ledger()
    checkpoint = checkpoint_named(found, which)
    if as_json:
        print_json({**msgspec.to_builtins(checkpoint), "uri": found.store.uri(checkpoint.artifacts.path)})
    else:
        _show(checkpoint, found)
    return 0


def _show(checkpoint: Checkpoint, ledger: Ledger) -> None:
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
        "files": ledger.store.uri(checkpoint.artifacts.path),
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
    file = open_pipeline(pipeline)
    several = every or which == HEAD
    chains = file.chosen(stage, branch) if several else [file.one_chain(stage, branch)]
    from trainflow.checkpoints.chain import ChainKey

    ledgers = [chain.ledger() for chain in chains]
    results = [each for ledger in ledgers for each in _verified(ledger, _to_verify(ledger, which, every=every))]
    ok = all(result["ok"] for result in results)
    if as_json:
        print_json({"ok": ok, "checkpoints": results})
        return 0 if ok else EXIT_FAILED
    keys = [ledger.chain for ledger in ledgers]
    for result in results:
        named = said_of(ChainKey(result["pipeline"], result["stage"], result["branch"]), keys)
        outcome = "intact" if result["ok"] else "BROKEN"
        typer.echo(
            f"{named}checkpoint {result['sequence']}  {outcome}  {counted(result['files'], 'file')}, "
            f"{counted(result['bytes'], 'byte')}"
        )
        for problem in result["problems"]:
            typer.secho(f"  {problem}", fg=typer.colors.RED)
    if not results:
        typer.echo("no checkpoint yet")
    return 0 if ok else EXIT_FAILED


def _to_verify(ledger: Ledger, which: str, *, every: bool) -> list[Checkpoint]:
    from trainflow.checkpoints.ledger.entries import Checkpoint as Kind

    kept = {each.id for each in ledger.kept()}
    if every:
        return [entry for entry in ledger.entries() if isinstance(entry, Kind) and entry.id in kept]
    return [checkpoint_named(ledger, which)] if kept else []


def _verified(ledger: Ledger, checkpoints: list[Checkpoint]) -> list[dict[str, Any]]:
    from trainflow.checkpoints.commit.artifacts import verify_many

    found = verify_many(ledger.store, [checkpoint.artifacts for checkpoint in checkpoints])
    return [
        {
            **ledger.chain.names,
            "sequence": checkpoint.sequence,
            "id": checkpoint.id,
            "ok": not problems,
            "files": len(checkpoint.artifacts.files),
            "bytes": checkpoint.artifacts.size,
            "problems": problems,
        }
        for checkpoint, problems in zip(checkpoints, found, strict=True)
    ]


# -- ledger --------------------------------------------------------------------------------------------------------


def ledger(
    pipeline: str = PIPELINE, stage: str | None = STAGE, branch: str | None = BRANCH, as_json: bool = JSON_OPTION
) -> int:
    """Print the entries of the ledger, one line each.

    As they are; of a pipeline with stages, ledger by ledger. Exit code 1 when one cannot be read.

    JSON: [{pipeline, stage, branch, sequence, location, entry (null when it cannot be read), problem}].
    """
    import msgspec

    ledgers = _ledgers(pipeline, stage, branch)
    keys, lines = [each.chain for each in ledgers], []
    for found in ledgers:
        named = said_of(found.chain, keys)
        for sequence, location, entry, problem in _raw(found):
            raw = msgspec.to_builtins(entry) if entry is not None else None
            line = {"sequence": sequence, "location": location, "entry": raw, "problem": problem}
            lines.append({**found.chain.names, **line})
            if as_json:
                continue
            if entry is None:
                typer.secho(f"{named}{sequence:>6}  {problem}", fg=typer.colors.RED)
            else:
                typer.echo(f"{named}{sequence:>6}  {text(entry.at)}  {sentence(entry)}")
    if as_json:
        print_json(lines)
    elif not lines:
        typer.echo("no entry yet")
    return EXIT_FAILED if any(line["problem"] for line in lines) else 0


def _raw(ledger: Ledger) -> list[tuple[int, str, LedgerEntry | None, str | None]]:
    """(number, location, entry, problem) of every entry there is: what the ledger itself would stop at is shown."""
    from trainflow.checkpoints.ledger.entries import decode_entry
    from trainflow.errors import LedgerCorrupt

    found: list[tuple[int, str, LedgerEntry | None, str | None]] = []
    for file in ledger.store.files(ledger.chain.ledger):
        name = file.path.rpartition("/")[2].removesuffix(".json")
        if not name.isdecimal():
            continue
        location = ledger.store.uri(file.path)
        try:
            found.append((int(name), location, decode_entry(ledger.store.read(file.path), location=location), None))
        except LedgerCorrupt as error:
            found.append((int(name), location, None, str(error)))
    return found
