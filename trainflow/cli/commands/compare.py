"""`trainflow checkpoints compare`: what sets two checkpoints, or two branches, apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from trainflow.cli.arguments import BRANCH, PIPELINE, STAGE
from trainflow.cli.render.output import JSON_OPTION, print_json, print_rows, text
from trainflow.pluralize import counted
from trainflow.workspace.pipelines import Chain, open_pipeline

if TYPE_CHECKING:
    from trainflow.checkpoints.audit.compare import Comparison
    from trainflow.checkpoints.audit.lineage import Diet, Meal
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.ledger.entries import Checkpoint, LedgerEntry

_SHOWN = 20
SIDE = "A branch (its head), a checkpoint's number or id, or BRANCH@NUMBER."


class Side(NamedTuple):
    """One of the two."""

    name: str
    chain: ChainKey
    checkpoint: Checkpoint
    #: those that lead to it
    line: list[Checkpoint]
    diet: Diet
    #: the chain of the checkpoint, where that is what a branch without checkpoints of its own was forked from
    forked_from: ChainKey | None = None


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
    from trainflow.checkpoints.audit.compare import compare as difference

    chain = open_pipeline(pipeline).one_chain(stage, branch)
    reader = _Entries(chain)
    one, other = _side(chain, a, reader), _side(chain, b, reader)
    found = difference(one.line, other.line, one.diet, other.diet)
    if as_json:
        print_json({"a": _facts(one), "b": _facts(other), **_plain(found)})
    else:
        _show(one, other, found)
    return 0


class _Entries:
    """The entries of chains, read once each."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._read: dict[ChainKey, list[LedgerEntry]] = {}

    def __call__(self, key: ChainKey) -> list[LedgerEntry]:
        if key not in self._read:
            self._read[key] = list(self._chain.ledger(key).entries())
        return self._read[key]


def _side(chain: Chain, which: str, entries_of: _Entries) -> Side:
    """Raises InputError."""
    from trainflow.checkpoints.actions.prune import chains_of
    from trainflow.checkpoints.audit.lineage import diet
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.ledger.entries import CheckpointRef, Fork
    from trainflow.cli.commands.lineage import find_ever

    own = chain.key
    store = chain.ledger().store
    branches = {key.branch for key in chains_of(store, own.pipeline) if key.stage == own.stage}
    branch, at, number = which.partition("@")
    if which in branches:
        branch, number = which, "head"
    elif not at:
        branch, number = own.branch, which
    key = ChainKey(own.pipeline, own.stage, branch)
    start = chain.ledger(key).state().start if number == "head" else None
    if isinstance(start, Fork) and chain.ledger(key).state().head is None:
        there = start.origin.chain
        origin = find_ever(chain.ledger(there), start.origin.checkpoint_id, entries_of(there))
        return Side(which, key, origin, [], diet(start.origin, entries_of), there)
    checkpoint = find_ever(chain.ledger(key), number, entries_of(key))
    return Side(
        which, key, checkpoint, _line(checkpoint, entries_of(key)), diet(CheckpointRef(key, checkpoint.id), entries_of)
    )


def _line(checkpoint: Checkpoint, entries: list[LedgerEntry]) -> list[Checkpoint]:
    from trainflow.checkpoints.ledger.entries import Checkpoint as Kind

    by_id = {entry.id: entry for entry in entries if isinstance(entry, Kind)}
    line: list[Checkpoint] = []
    place: Checkpoint | None = checkpoint
    while place is not None:
        line.append(place)
        place = by_id.get(place.parent_id or "")
    return line


def _facts(side: Side) -> dict[str, Any]:
    return {
        "chain": str(side.chain),
        "id": side.checkpoint.id,
        "sequence": side.checkpoint.sequence,
        "watermark": side.checkpoint.watermark,
        "partitions": len(side.diet.meals),
        "forked_from": str(side.forked_from) if side.forked_from else None,
    }


def _plain(found: Comparison) -> dict[str, Any]:
    from trainflow.cli.commands.lineage import as_json

    return {
        "measured": found.measured,
        "scores": found.scores,
        "common": found.common,
        "only_a": [as_json(meal) for meal in found.only_a],
        "only_b": [as_json(meal) for meal in found.only_b],
        "changed": [{"a": as_json(each.a), "b": as_json(each.b)} for each in found.changed],
    }


def _show(one: Side, other: Side, found: Comparison) -> None:
    for name, side in (("A", one), ("B", other)):
        which = f"checkpoint {side.checkpoint.sequence}"
        if side.forked_from:
            which = f"no checkpoint of its own yet: {which} of {side.forked_from}, from which it was forked"
        upto = text(side.checkpoint.watermark)
        typer.echo(f"{name}  {side.chain}  {which}, trained up to {upto}, {counted(len(side.diet.meals), 'partition')}")
    _show_scores(found)
    typer.echo(f"{counted(found.common, 'partition')} in common, {len(found.changed)} with another content")
    _show_meals("only A", found.only_a)
    _show_meals("only B", found.only_b)
    _show_meals("another content", [each.a for each in found.changed])


def _show_scores(found: Comparison) -> None:
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


def _show_meals(what: str, meals: list[Meal]) -> None:
    if not meals:
        return
    typer.echo(f"{what}: {counted(len(meals), 'partition')}")
    for meal in meals[:_SHOWN]:
        where = f"checkpoint {meal.sequence} of {meal.chain}"
        typer.echo(f"  {text(meal.start)} to {text(meal.end)}  {where}  {meal.run_id}")
    if len(meals) > _SHOWN:
        typer.echo(f"  … and {len(meals) - _SHOWN} more (--json shows all)")
