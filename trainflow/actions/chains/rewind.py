"""Go back in a chain, and in the stages that went on from what is undone."""

from __future__ import annotations

from datetime import datetime

import msgspec

from trainflow.actions.chains.promote import have_moved_aliases_delivered
from trainflow.checkpoints.ledger.ancestors import line_from_head
from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.rewind import ChainRewind, cascading_rewinds
from trainflow.checkpoints.ledger_changes.rewind import rewind as move_back
from trainflow.checkpoints.upkeep.changed_samples import vanished
from trainflow.errors import InputError, SampleError
from trainflow.workspace.branches import dags_of
from trainflow.workspace.names import checkpoint_named
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain

#: what a person calls the place before the first checkpoint
BEGINNING = "beginning"


class RewoundChain(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """One chain: from which checkpoint to which (0, None: before the first). `undone`: how many checkpoints;
    `checkpoints`: their numbers, oldest first; `pruned_up_to`: the end of what was asked for, where its files
    were pruned and it goes back further; `aliases`: alias → number of the checkpoint that has it again, or
    None; `missing`: starts of partitions that what is undone was trained on and that are not there any more, so that
    they cannot be trained on again, oldest first (None: not known, of a chain that goes back with the one that was
    named, or where its samples cannot be read)."""

    chain: str
    from_: int
    from_id: str
    to: int
    to_id: str | None
    watermark: datetime | None
    undone: int
    checkpoints: list[int]
    pruned_up_to: datetime | None
    aliases: dict[str, int | None]
    missing: list[datetime] | None


class RewindDone(msgspec.Struct, frozen=True):
    """What was rewound, or with `dry_run` would be; whatever depends on another chain comes first."""

    rewound: list[RewoundChain]
    dry_run: bool = False


class RewindPlan(msgspec.Struct, frozen=True):
    """What would be rewound; the chain that was named comes last."""

    undoings: list[ChainRewind]
    #: of the chain that was named; see `RewoundChain`
    missing: list[datetime] | None

    def outcome(self, *, dry_run: bool) -> RewindDone:
        """What people and programs are told of it."""
        return RewindDone(
            [_rewound(each, self.missing if each is self.undoings[-1] else None) for each in self.undoings], dry_run
        )


def plan_rewind(
    chain: PipelineChain, *, to: str | None, before: datetime | None, now: datetime, cascade: bool = False
) -> RewindPlan:
    """What a rewind to a checkpoint (its number, its id, or `beginning`), or to the newest one that is trained up to
    `before` or less, comes to. Raises InputError where a later stage went on from what would be undone and `cascade` is
    not said."""
    ledger = chain.ledger()
    found = cascading_rewinds(ledger, _target(ledger, to, before))
    if len(found) > 1 and not cascade:
        others = ", ".join(f"{each.chain} (checkpoint {each.head_number})" for each in found[:-1])
        raise InputError(
            f"{others} went on from checkpoints of {ledger.chain} that would be undone; nothing was rewound. "
            "--cascade rewinds them as well, --cascade --dry-run shows how far"
        )
    return RewindPlan(found, _gone(chain, ledger, found[-1].to_id, now))


def _gone(chain: PipelineChain, ledger: Ledger, to: str | None, now: datetime) -> list[datetime] | None:
    """What could not be trained on again; None where that cannot be found out: going back does not depend on it."""
    if chain.samples is None:
        return None
    try:
        return vanished(line_from_head(ledger, ledger.state()), chain.samples, chain.workspace.project.root, now, to)
    except (SampleError, InputError):
        return None


def rewind(
    file: OpenedPipeline, chain: PipelineChain, plan: RewindPlan, *, who: Author, now: datetime, reason: str = ""
) -> RewindDone:
    """Move the heads back, one ledger after the other, who depends on another first: cut short, it may be done again.

    A chain that is there already, and has no skip to take back, is left alone. Raises InputError while a run of one of
    the chains has not ended, ChainMoved where one has moved on since the plan.
    """
    _check_that_nothing_runs(file, plan.undoings)
    for each in plan.undoings:
        ledger = chain.ledger(each.chain)
        if each.to_id == each.head_id and not ledger.state().skips:
            continue  # it is there already
        move_back(ledger, each.to_id, expected_head=each.head_id, by=chain.by(who), now=now, reason=reason)
        have_moved_aliases_delivered(chain, ledger, now)
    return plan.outcome(dry_run=False)


def _rewound(undoing: ChainRewind, missing: list[datetime] | None) -> RewoundChain:
    return RewoundChain(
        str(undoing.chain),
        undoing.head_number,
        undoing.head_id,
        undoing.to_number,
        undoing.to_id,
        undoing.watermark,
        len(undoing.checkpoints),
        undoing.checkpoints,
        undoing.pruned_up_to,
        undoing.aliases,
        missing,
    )


def _target(ledger: Ledger, to: str | None, before: datetime | None) -> str | None:
    """The id of the checkpoint to rewind to; None: to before the first. Raises InputError."""
    if to is not None and before is None:
        return None if to == BEGINNING else checkpoint_named(ledger, to).id
    if to is not None or before is None:
        raise InputError("say where to: either --to NUMBER|ID|@ALIAS|beginning or --before DATE")
    return next((each.id for each in line_from_head(ledger, ledger.state()) if each.watermark <= before), None)


def _check_that_nothing_runs(file: OpenedPipeline, plan: list[ChainRewind]) -> None:
    for dag_id in sorted({dag_id for each in plan for dag_id in dags_of(file, each.chain)}):
        runs = file.workspace.active_runs(dag_id)
        if runs:
            raise InputError(
                f"run {runs[0]} of {dag_id} has not ended: what it trains would not fit the chain any more. Nothing "
                f"was rewound; end it with 'trainflow runs cancel {dag_id} {runs[0]}', or wait for it"
            )
