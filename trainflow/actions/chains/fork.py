"""Begin a branch: a chain beside each of a pipeline's chains, over the same samples, from checkpoints of theirs."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, CheckpointRef, Fork, ForkedStage
from trainflow.checkpoints.ledger_changes.fork import LineCheckpoint, fork_points, line_checkpoints
from trainflow.checkpoints.ledger_changes.fork import fork as begin
from trainflow.errors import CheckpointError, InputError
from trainflow.failpoint import hit
from trainflow.identifiers import check_name
from trainflow.observability.redaction import check_no_secrets
from trainflow.samples.partitions import label
from trainflow.workspace.names import checkpoint_named
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain, read_pipeline


class BranchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks for. `overrides`: what the branch does otherwise; `origin`: a checkpoint of the one chain that
    is forked; `before`: each chain from its newest checkpoint that has trained nothing from then on; `source`: the
    branch that is forked, by default the file's."""

    branch: str
    overrides: dict[str, str] = {}
    origin: str | None = None
    before: datetime | None = None
    stage: str | None = None
    source: str | None = None

    @property
    def words(self) -> str:
        """The command as the ledger records it."""
        return f"--before {self.before.isoformat()}" if self.before else ""


class Origin(msgspec.Struct, frozen=True):
    """The checkpoint that a chain of the branch goes on from."""

    chain: str
    id: str
    number: int


class ForkedChain(msgspec.Struct, frozen=True):
    """A chain of the branch. `origin`: None where it begins with nothing."""

    chain: str
    origin: Origin | None
    watermark: datetime | None
    overrides: dict[str, str]


class ForkDone(msgspec.Struct, frozen=True):
    """The chains that were forked, or with `dry_run` would be."""

    forked: list[ForkedChain]
    dry_run: bool = False


class _Forked(NamedTuple):
    """A chain, its branch, and where that goes on; None: it begins with nothing."""

    chain: PipelineChain
    key: ChainKey
    place: LineCheckpoint | None


class ForkPlan(NamedTuple):
    """What would be forked. `stages`: as each of the chains records it, where there are several."""

    asked: BranchRequest
    forked: list[_Forked]
    stages: list[ForkedStage]

    def outcome(self, *, dry_run: bool) -> ForkDone:
        """What people and programs are told of it."""
        return ForkDone([_described(each, self.asked) for each in self.forked], dry_run)

    @property
    def complete(self) -> list[str]:
        """Chains of the branch that have nothing to train: their table ends where they begin."""
        return [
            str(each.key) for each in self.forked if each.place is not None and _is_complete(each.chain, each.place)
        ]


def plan_fork(file: OpenedPipeline, asked: BranchRequest) -> ForkPlan:
    """What the branch would go on from. A command that was cut short is completed by the same command.

    The overrides of a branch are written into its ledger, to be used by every start, so they hold no secrets. Raises
    InputError.
    """
    if asked.origin is not None and asked.before is not None:
        raise InputError("say --from, a checkpoint of one chain, or --before, a date for all of them")
    check_name(asked.branch, "branch")
    check_no_secrets(asked.overrides, "--set")
    chains = _chains(file, asked)
    keys = _branch_of(file, chains, asked)
    if len(chains) == 1:
        return ForkPlan(asked, [_Forked(chains[0], keys[0], _one(chains[0], asked.origin, asked.before))], [])
    found = _all(chains, keys, asked)
    return ForkPlan(asked, found, _recorded(found))


def fork(plan: ForkPlan, *, who: Author, now: datetime) -> ForkDone:
    """Begin the chains of the branch. Raises ChainMoved, StoreFailure; CheckpointError where what a chain was to go on
    from was pruned at the same moment."""
    for each in plan.forked:
        _begin(each, plan.asked, plan.stages, who, now)
    return plan.outcome(dry_run=False)


def _chains(file: OpenedPipeline, asked: BranchRequest) -> list[PipelineChain]:
    """The chains that are forked. Raises InputError."""
    stage, source, origin = asked.stage, asked.source, asked.origin
    if stage is not None or len(file.some_chains()) == 1:
        return [file.one_chain(stage, source)]
    if origin not in (None, "head"):
        raise InputError(
            f"--from {origin} names a checkpoint of one chain, and {file.name} trains {len(file.chains)}: choose with "
            "--stage, or say --before DATE for all of them"
        )
    return [file.one_chain(chain.key.stage, source or chain.key.branch) for chain in file.chains]


def _branch_of(file: OpenedPipeline, chains: list[PipelineChain], asked: BranchRequest) -> list[ChainKey]:
    """The chains of the branch, the file read with the overrides: what is wrong with them is said before it begins."""
    if any(chain.key.branch == asked.branch for chain in chains):
        raise InputError(f"{asked.branch!r} is the branch that would be forked: name another one")
    keys = [ChainKey(chain.key.pipeline, chain.key.stage, asked.branch) for chain in chains]
    branch = read_pipeline(file.workspace, file.path, {**asked.overrides, "branch": asked.branch})
    there = [each.key for each in branch.some_chains()]
    if not set(keys) <= set(there):
        raise InputError(
            f"{file.name} has no 'branch' that --set can change, so no branch of it can be trained: a Python pipeline "
            "takes it from its overrides and gives it to CheckpointOperator"
        )
    return keys


# -- where ---------------------------------------------------------------------------------------------------------


def _one(chain: PipelineChain, origin: str | None, before: datetime | None) -> LineCheckpoint:
    """What one chain goes on from. Raises InputError."""
    ledger = chain.ledger()
    if before is None:
        found = checkpoint_named(ledger, origin or "head")
        return LineCheckpoint(found.id, found.number, found.watermark)
    newest = next((each for each in ledger.back() if each.on_line and each.watermark <= before), None)
    if newest is None:
        raise InputError(
            f"chain {ledger.chain} in {ledger.store.url} keeps no checkpoint that is trained up to {label(before)} or "
            f"less: 'trainflow checkpoints list {ledger.chain.arguments}' shows what there is"
        )
    return LineCheckpoint(newest.id, newest.number, newest.watermark)


def _all(chains: list[PipelineChain], keys: list[ChainKey], asked: BranchRequest) -> list[_Forked]:
    """What several chains go on from: as it was recorded where the command was cut short. Raises InputError."""
    lines = {chain.key: line_checkpoints(chain.ledger()) for chain in chains}
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
        upto = f" that is trained up to {label(asked.before)} or less" if asked.before else ""
        raise InputError(f"no stage has a checkpoint{upto}: there is nothing to fork")
    return [_Forked(chain, key, points[chain.key]) for chain, key in zip(chains, keys, strict=True)]


def _check_same(recorded: Fork, asked: BranchRequest) -> None:
    if (recorded.asked, recorded.overrides) == (asked.words, asked.overrides):
        return
    options = [recorded.asked, *(f"--set {name}={value}" for name, value in recorded.overrides.items())]
    raise InputError(
        f"branch {asked.branch!r} was forked otherwise ({' '.join(filter(None, options)) or 'without options'}): to "
        "complete it give that command again, or name another branch"
    )


def _as_recorded(
    key: ChainKey, recorded: Fork, begun: Fork | None, line: list[LineCheckpoint]
) -> LineCheckpoint | None:
    """Where a stage goes on, as the first of its branch has written it down. Raises InputError."""
    where = next((each.checkpoint_id for each in recorded.stages if each.stage == key.stage), None)
    if where is None:
        return None
    found = next((each for each in line if each.id == where), None)
    if begun is not None:
        return found or LineCheckpoint(begun.origin.checkpoint_id, begun.number, begun.watermark)
    if found is None or not found.kept:
        why = "its files were pruned" if found else "the chain was rewound"
        raise InputError(
            f"stage {key.stage} was to be forked from checkpoint {where} of {key}, and cannot be any more: "
            f"{why} since. Name another branch"
        )
    return found


def _recorded(found: list[_Forked]) -> list[ForkedStage]:
    return [ForkedStage(each.key.stage, each.place.id if each.place else None) for each in found]


# -- begin ---------------------------------------------------------------------------------------------------------


def _begin(forked: _Forked, asked: BranchRequest, stages: list[ForkedStage], who: Author, now: datetime) -> None:
    chain, key, place = forked
    if place is None:
        return
    begin(
        chain.ledger(key),
        CheckpointRef(chain.key, place.id),
        place.watermark,
        number=place.number,
        overrides=asked.overrides,
        stages=stages,
        asked=asked.words if stages else "",
        by=chain.by(who),
        now=now,
    )
    hit(f"fork: {key.stage}")
    # the branch is registered by now: what is pruned from here on keeps it
    if chain.ledger().find(place.id) is None:
        raise CheckpointError(
            f"checkpoint {place.number} of {chain.key} was pruned while {key} was forked from it: fork another branch, "
            f"from a checkpoint that 'trainflow checkpoints list {chain.key.arguments}' shows"
        )


def _described(forked: _Forked, asked: BranchRequest) -> ForkedChain:
    chain, key, place = forked
    origin = Origin(str(chain.key), place.id, place.number) if place else None
    return ForkedChain(str(key), origin, place.watermark if place else None, asked.overrides)


def _is_complete(chain: PipelineChain, place: LineCheckpoint) -> bool:
    """Whether the samples end where the branch begins."""
    samples = chain.document.samples
    end = samples.end if samples is not None else None
    return end is not None and place.watermark >= end
