"""`trainflow checkpoints fork`: begin a branch, a chain beside each of a pipeline's chains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from trainflow.cli.arguments import PIPELINE, STAGE
from trainflow.cli.person import person
from trainflow.cli.render.output import JSON_OPTION, print_json, text
from trainflow.errors import InputError
from trainflow.workspace.pipelines import Chain, PipelineFile, open_pipeline, read_pipeline

if TYPE_CHECKING:
    from datetime import datetime

    from trainflow.checkpoints.actions.branch_points import Place
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.ledger.entries import Fork, ForkedStage


class _Forked(NamedTuple):
    """A chain, its branch, and where that goes on; None: it begins with nothing."""

    chain: Chain
    key: ChainKey
    place: Place | None


class _Asked(NamedTuple):
    """What the command line says. `overrides`: what the branch does otherwise."""

    branch: str
    overrides: dict[str, str]
    before: datetime | None

    @property
    def words(self) -> str:
        """As the ledger records it."""
        return f"--before {self.before.isoformat()}" if self.before else ""


def register(group: typer.Typer) -> None:
    """Add the command."""
    group.command("fork")(fork)


def fork(
    pipeline: str = PIPELINE,
    origin: str | None = typer.Option(
        None, "--from", metavar="SEQUENCE|head|ID", help="The checkpoint to go on from, where one chain is forked."
    ),
    before: str | None = typer.Option(
        None,
        "--before",
        metavar="DATE",
        help="Each chain from its newest checkpoint that has trained nothing from then on.",
    ),
    name: str = typer.Option(..., "--branch", metavar="NAME", help="The new branch."),
    overrides: list[str] = typer.Option(
        [], "--set", metavar="NAME=VALUE", help="What the branch does otherwise, e.g. --set params.rate=0.1."
    ),
    stage: str | None = STAGE,
    source: str | None = typer.Option(None, "--of", metavar="BRANCH", help="The branch to fork; default: the file's."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be forked."),
    as_json: bool = JSON_OPTION,
) -> int:
    """Begin a branch beside the chains of a file.

    Over the same samples, from checkpoints of theirs.

    Every stage begins the branch, or the one that --stage names: at its head, or at its newest checkpoint before DATE.
    A stage whose weights came from a checkpoint of another one that is not in the branch begins further back, so that
    they fit together; one that has no checkpoint there begins with nothing. A command that was cut short is completed
    by the same command. What a branch was forked from is kept for as long as it is there. `trainflow start PIPELINE
    --branch NAME` trains it.

    JSON: {forked: [{chain, origin: {chain, id, sequence} (null: it begins with nothing), watermark, overrides}],
    dry_run}.
    """
    from trainflow.cli.arguments import parse_overrides
    from trainflow.cli.commands.rewind import moment
    from trainflow.identifiers import check_name

    if origin is not None and before is not None:
        raise InputError("say --from, a checkpoint of one chain, or --before, a date for all of them")
    asked = _Asked(check_name(name, "branch"), parse_overrides(overrides), moment(before) if before else None)
    _refuse_secrets(asked)
    file = open_pipeline(pipeline)
    chains = _chains(file, stage, source, origin)
    keys = _branch_of(file, chains, asked)
    if len(chains) == 1:
        found = [_Forked(chains[0], keys[0], _one(chains[0], origin, asked.before))]
        stages: list[ForkedStage] = []
    else:
        found = _all(chains, keys, asked)
        stages = _recorded(found)
    forked = [_describe(each, asked) if dry_run else _begin(each, asked, stages) for each in found]
    if as_json:
        print_json({"forked": forked, "dry_run": dry_run})
    else:
        _show(found, pipeline, name, dry_run=dry_run)
    return 0


def _refuse_secrets(asked: _Asked) -> None:
    """The overrides of a branch are written into its ledger, to be used by every start."""
    from trainflow.observability.redaction import check_no_secrets

    check_no_secrets(asked.overrides, "--set")


def _chains(file: PipelineFile, stage: str | None, source: str | None, origin: str | None) -> list[Chain]:
    """The chains that are forked. Raises InputError."""
    if stage is not None or len(file.some_chains()) == 1:
        return [file.one_chain(stage, source)]
    if origin not in (None, "head"):
        raise InputError(
            f"--from {origin} names a checkpoint of one chain, and {file.name} trains {len(file.chains)}: choose with "
            "--stage, or say --before DATE for all of them"
        )
    return [file.one_chain(chain.key.stage, source or chain.key.branch) for chain in file.chains]


def _branch_of(file: PipelineFile, chains: list[Chain], asked: _Asked) -> list[ChainKey]:
    """The chains of the branch, the file read with the overrides: what is wrong with them is said before it begins."""
    from trainflow.checkpoints.chain import ChainKey

    if any(chain.key.branch == asked.branch for chain in chains):
        raise InputError(f"{asked.branch!r} is the branch that would be forked: name another one")
    keys = [ChainKey(chain.key.pipeline, chain.key.stage, asked.branch) for chain in chains]
    there = [each.key for each in read_pipeline(file.path, {**asked.overrides, "branch": asked.branch}).some_chains()]
    if not set(keys) <= set(there):
        raise InputError(
            f"{file.name} has no 'branch' that --set can change, so no branch of it can be trained: a Python pipeline "
            "takes it from its overrides and gives it to CheckpointOperator"
        )
    return keys


# -- where ---------------------------------------------------------------------------------------------------------


def _one(chain: Chain, origin: str | None, before: datetime | None) -> Place:
    """What one chain goes on from. Raises InputError."""
    from trainflow.checkpoints.actions.branch_points import Place
    from trainflow.workspace.names import checkpoint_named

    ledger = chain.ledger()
    if before is None:
        found = checkpoint_named(ledger, origin or "head")
        return Place(found.id, found.sequence, found.watermark)
    newest = next((each for each in ledger.back() if each.on_line and each.watermark <= before), None)
    if newest is None:
        raise InputError(
            f"chain {ledger.chain} in {ledger.store.url} keeps no checkpoint that is trained up to {text(before)} or "
            "less: 'trainflow checkpoints list' shows what there is"
        )
    return Place(newest.id, newest.sequence, newest.watermark)


def _all(chains: list[Chain], keys: list[ChainKey], asked: _Asked) -> list[_Forked]:
    """What several chains go on from: as it was recorded where the command was cut short. Raises InputError."""
    from trainflow.checkpoints.actions.branch_points import fork_points, places_of
    from trainflow.checkpoints.ledger.entries import Fork

    lines = {chain.key: places_of(chain.ledger()) for chain in chains}
    starts = {chain.key: chain.ledger(key).state().start for chain, key in zip(chains, keys, strict=True)}
    forks = {key: start for key, start in starts.items() if isinstance(start, Fork)}
    recorded = next((start for start in forks.values() if start.stages), None)
    if recorded is not None:
        _check_same(recorded, asked)
        points = {key: _as_recorded(key, recorded, forks.get(key), line) for key, line in lines.items()}
    else:
        begun = {key: start.origin.checkpoint_id for key, start in forks.items() if start.origin.chain == key}
        points = fork_points(lines, asked.before, begun)
    if not any(points.values()):
        upto = f" that is trained up to {text(asked.before)} or less" if asked.before else ""
        raise InputError(f"no stage has a checkpoint{upto}: there is nothing to fork")
    return [_Forked(chain, key, points[chain.key]) for chain, key in zip(chains, keys, strict=True)]


def _check_same(recorded: Fork, asked: _Asked) -> None:
    if (recorded.asked, recorded.overrides) == (asked.words, asked.overrides):
        return
    options = [recorded.asked, *(f"--set {name}={value}" for name, value in recorded.overrides.items())]
    raise InputError(
        f"branch {asked.branch!r} was forked otherwise ({' '.join(filter(None, options)) or 'without options'}): to "
        "complete it give that command again, or name another branch"
    )


def _as_recorded(key: ChainKey, recorded: Fork, begun: Fork | None, line: list[Place]) -> Place | None:
    """Where a stage goes on, as the first of its branch has written it down. Raises InputError."""
    from trainflow.checkpoints.actions.branch_points import Place

    where = next((each.checkpoint_id for each in recorded.stages if each.stage == key.stage), None)
    if where is None:
        return None
    found = next((each for each in line if each.id == where), None)
    if begun is not None:
        return found or Place(begun.origin.checkpoint_id, 0, begun.watermark)
    if found is None or not found.kept:
        why = "its files were pruned" if found else "the chain was rewound"
        raise InputError(
            f"stage {key.stage} was to be forked from checkpoint {where} of {key}, and cannot be any more: "
            f"{why} since. Name another branch"
        )
    return found


def _recorded(found: list[_Forked]) -> list[ForkedStage]:
    from trainflow.checkpoints.ledger.entries import ForkedStage

    return [ForkedStage(each.key.stage, each.place.id if each.place else None) for each in found]


# -- begin ---------------------------------------------------------------------------------------------------------


def _begin(forked: _Forked, asked: _Asked, stages: list[ForkedStage]) -> dict[str, Any]:
    from trainflow.checkpoints.actions.fork import fork as begin
    from trainflow.checkpoints.ledger.entries import CheckpointRef
    from trainflow.clock import SystemClock
    from trainflow.failpoint import hit

    chain, key, place = forked
    if place is not None:
        begin(
            chain.ledger(key),
            CheckpointRef(chain.key, place.id),
            place.watermark,
            overrides=asked.overrides,
            stages=stages,
            asked=asked.words if stages else "",
            by=person(chain.dag_id),
            now=SystemClock().now(),
        )
        hit(f"fork: {key.stage}")
    return _describe(forked, asked)


def _describe(forked: _Forked, asked: _Asked) -> dict[str, Any]:
    chain, key, place = forked
    return {
        "chain": str(key),
        "origin": place and {"chain": str(chain.key), "id": place.id, "sequence": place.sequence},
        "watermark": place and place.watermark,
        "overrides": asked.overrides,
    }


def _show(found: list[_Forked], pipeline: str, name: str, *, dry_run: bool) -> None:
    for chain, key, place in found:
        if place is None:
            typer.echo(f"{key} {'would begin' if dry_run else 'begins'} with nothing")
            continue
        goes_on = "would go on" if dry_run else "goes on"
        upto = text(place.watermark)
        typer.echo(f"{key} {goes_on} from checkpoint {place.sequence} of {chain.key}, trained up to {upto}")
        if _is_complete(chain, place):
            typer.echo(
                f"{key} has nothing to train: the table ends there. '--before DATE' or '--from CHECKPOINT' with "
                "another --branch forks where samples come after"
            )
    if not dry_run:
        typer.echo(f"train it: trainflow start {pipeline} --branch {name}")


def _is_complete(chain: Chain, place: Place) -> bool:
    """Whether the samples end where the branch begins."""
    samples = chain.document.samples
    end = samples.end if samples is not None else None
    return end is not None and place.watermark >= end
