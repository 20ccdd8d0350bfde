"""Which checkpoint of its upstream does the next run of a stage start from, and up to where may its split go? The rule.

`same_watermark`, forwards: the upstream has trained up to W, and the stage trains, from that checkpoint, on what lies
between its own watermark and W. With feedback: the upstream comes after the stage in a circle, and the stage goes on
from the upstream's checkpoint at its own watermark, or, where the upstream has stepped over what led there, from the
one before. `latest`, `promoted`: the newest (promoted) one; the split is the stage's own business. What the upstream
was forked from counts as its first checkpoint, number 0: a branch goes on where its stages were forked.

A pin is an upper bound: what the upstream has committed after it is the business of the run that *that* commit
triggers. Answers depend on the two ledgers only, so a run that is killed and asks again gets the same answer, unless a
person has rewound or pruned meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Fork
from trainflow.checkpoints.ledger.state import CheckpointSummary
from trainflow.checkpoints.stages.init_from import InitFrom, Pin, UpstreamCheckpoint
from trainflow.samples.partitions import after_watermark, end_of, label

if TYPE_CHECKING:
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.checkpoints.ledger.state import ChainState
    from trainflow.samples.spec import Samples

#: so many checkpoints of the upstream are offered to a split; the last one allowed is always among them
MOST = 32
_A_MOMENT = timedelta(seconds=1)


class UpstreamChain(msgspec.Struct, frozen=True):
    """What the rule needs to know of the upstream's chain."""

    #: the highest number that a checkpoint of it has or had
    last_number: int
    #: the exclusive end of what was trained or skipped, by it or by who it starts from; None: nothing yet
    edge: datetime | None
    #: not pruned, in the order of their sequence; those a rewind left behind included
    kept: list[CheckpointSummary]
    #: alias → checkpoint
    promoted: dict[str, str] = {}
    #: the chain of the checkpoint it was forked from
    forked_from: ChainKey | None = None

    @property
    def line(self) -> list[CheckpointSummary]:
        """Checkpoints from the root to the head."""
        return [summary for summary in self.kept if summary.on_line]

    def find(self, checkpoint_id: str) -> CheckpointSummary | None:
        """The one of this id or number."""
        return next((found for found in reversed(self.kept) if is_named(found, checkpoint_id)), None)

    def offer(self, summary: CheckpointSummary) -> UpstreamCheckpoint:
        """One of them, to start from."""
        lies_in = None if summary.sequence else self.forked_from
        digest = summary.digest if lies_in is None else ""
        return UpstreamCheckpoint(summary.id, summary.number, summary.watermark, summary.sequence, lies_in, digest)


def is_named(summary: CheckpointSummary, which: str) -> bool:
    """Whether a person means this checkpoint: by its id, or by its number."""
    return which in (summary.id, str(summary.number))


def read_upstream_chain(
    ledger: Ledger, watermark: datetime | None, pin: Pin | None = None, through: Sequence[ChainKey] = ()
) -> UpstreamChain:
    """The upstream's chain as far back as the rule may ask: a stage that is close behind reads its newest lines only.

    An upstream that has to go back itself is taken as it will be then. `through`: see InitFrom. Raises LedgerCorrupt,
    StoreFailure.
    """
    from trainflow.checkpoints.stages.upstream_rewinds import state_after_rewind

    state = state_after_rewind(ledger)
    edge = _passed(ledger, state, through)
    reaches = any(each.on_line and watermark is not None and each.watermark <= watermark for each in state.recent)
    names = {pin.id if pin else None, *state.promoted.values()} - {None}
    recent = {each.id for each in state.recent}
    kept = state.recent if not state.pages or (reaches and names <= recent) else ledger.kept_in(state)
    if not isinstance(state.start, Fork):
        return UpstreamChain(state.last_number, edge, kept, state.promoted)
    kept = [_fork_point(state.start), *kept]
    return UpstreamChain(state.last_number, edge, kept, state.promoted, state.start.origin.chain)


def _passed(ledger: Ledger, state: ChainState, through: Sequence[ChainKey]) -> datetime | None:
    """The exclusive end of what a chain has trained or skipped, and of what it never can train, since the stage it
    starts from has stepped over it: so far no stage need wait for it."""
    from trainflow.checkpoints.stages.upstream_rewinds import state_after_rewind

    if not through:
        return state.edge
    upstream = state_after_rewind(ledger.other(through[0]))
    if upstream.watermark is not None and (state.edge is None or state.edge < upstream.watermark):
        return state.edge
    ends = (state.edge, _passed(ledger, upstream, through[1:]))
    return max((end for end in ends if end is not None), default=None)


def _fork_point(fork: Fork) -> CheckpointSummary:
    """What a branch was forked from, as if it were a checkpoint of its own."""
    return CheckpointSummary(
        id=fork.origin.checkpoint_id,
        sequence=0,
        parent_id=None,
        watermark=fork.watermark,
        run_id="",
        number=fork.number,
        place=0,
        partitions=0,
        size=0,
        at=fork.at,
        digest="",
        on_line=True,
        metrics={},
        scores={},
    )


class StartFrom(msgspec.Struct, frozen=True):
    """The run starts from one of `candidates`, in the order of their watermarks.

    `bounded`: it is the first of them that has reached the end of the split, and no split goes beyond the last one.
    Otherwise there is one, and it bounds nothing. `last`: the newest one the pin allows, promoted or not;
    `retrigger_before`: as long as the stage's own watermark is before this moment, there is more to start from (None:
    always).
    """

    candidates: list[UpstreamCheckpoint]
    last: UpstreamCheckpoint
    bounded: bool = False
    retrigger_before: datetime | None = None


class StartFromOwn(msgspec.Struct, frozen=True):
    """A stage that begins a circle, and nothing to start from: its first run, or all that its upstream was to train on
    up to here was skipped. Then it goes on from its own checkpoint. `retrigger_before`: see StartFrom (None: never)."""

    retrigger_before: datetime | None = None


class WaitForUpstream(msgspec.Struct, frozen=True):
    """A wait, with nothing to start from now: a commit of the upstream changes that, and triggers. `reason`: a clause
    for people."""

    reason: str


class StartRefused(msgspec.Struct, frozen=True):
    """The run can never start from what it was told. `reason`: a sentence for people."""

    reason: str


StartDecision = StartFrom | StartFromOwn | WaitForUpstream | StartRefused


def choose_for(
    init: InitFrom,
    upstream: UpstreamChain,
    watermark: datetime | None,
    edge: datetime | None,
    samples: Samples | None,
    pin: Pin | None = None,
) -> StartDecision:
    """The rule, for a stage that has trained up to `watermark` and goes on with the partition of `samples` after
    `edge`, which is later where something was skipped."""
    needed = None if samples is None else end_of(samples, after_watermark(samples, edge))
    return choose_start(init, upstream, watermark, needed, pin)


def choose_start(
    init: InitFrom, upstream: UpstreamChain, watermark: datetime | None, needed: datetime | None, pin: Pin | None = None
) -> StartDecision:
    """What the next run of a stage starts from.

    `upstream` is the upstream's chain, `watermark` the stage's own (None: it has trained nothing), `needed` the
    end of the next partition it would train on (None: not known, any later watermark of the upstream will do).
    """
    allowed = _allowed(init, upstream, pin)
    if isinstance(allowed, StartRefused | WaitForUpstream):
        return allowed
    if init.checkpoint_id is not None:
        return _named(init, upstream, allowed)
    if init.at != "same_watermark":
        return _newest(init, upstream, allowed, watermark, pin)
    if init.feedback:
        return _one_round_back(init, upstream, allowed, watermark)
    return _ahead(init, upstream, allowed, watermark, needed)


def _allowed(
    init: InitFrom, upstream: UpstreamChain, pin: Pin | None
) -> list[CheckpointSummary] | StartRefused | WaitForUpstream:
    """The kept checkpoints on the upstream's line, up to the pin. Where a rewind took that off the line, what is left
    before it: the checkpoints that are trained instead trigger runs of their own. One that starts once waits for all of
    them."""
    if pin is None or pin.id is None:
        return upstream.line
    found = upstream.find(pin.id)
    if init.once and found is not None and not found.on_line:
        return WaitForUpstream(f"waits for {_who(init)}, which was rewound and has not caught up yet")
    number = pin.number if found is None else found.number
    if number is None or number > upstream.last_number:
        return StartRefused(
            f"this run was told to start from checkpoint {pin.id} of {init.chain}, and there is none: it was never "
            "committed in this store, or its files were pruned"
        )
    return [summary for summary in upstream.line if summary.number <= number]


def _named(init: InitFrom, upstream: UpstreamChain, allowed: list[CheckpointSummary]) -> StartDecision:
    found = [summary for summary in allowed if is_named(summary, init.checkpoint_id or "")]
    if not found:
        return StartRefused(
            f"init_from names checkpoint {init.checkpoint_id} of {init.chain}, which is not on its line: it was never "
            "committed there, its files were pruned, or the chain was rewound to before it"
        )
    return StartFrom([upstream.offer(found[0])], upstream.offer(found[0]))


def _newest(
    init: InitFrom,
    upstream: UpstreamChain,
    allowed: list[CheckpointSummary],
    watermark: datetime | None,
    pin: Pin | None,
) -> StartDecision:
    newer = upstream.line[-1].number if upstream.line else 0
    if pin is not None and not init.once and allowed and newer > allowed[-1].number:
        return WaitForUpstream(f"checkpoint {newer} of {_who(init)} is newer: the run it triggers takes over")
    newest = allowed[-1:]
    if init.at == "promoted":
        names = {init.alias: upstream.promoted.get(init.alias)} if init.alias else upstream.promoted
        allowed = [summary for summary in allowed if summary.id in names.values()]
    if allowed:
        return StartFrom([upstream.offer(allowed[-1])], upstream.offer(newest[0]))
    if init.feedback and (watermark is None or (upstream.edge is not None and not upstream.line)):
        return StartFromOwn()
    what = "has promoted no checkpoint" if init.at == "promoted" else "has no checkpoint"
    return WaitForUpstream(f"waits for {_who(init)}, which {what} yet")


def _one_round_back(
    init: InitFrom, upstream: UpstreamChain, allowed: list[CheckpointSummary], watermark: datetime | None
) -> StartDecision:
    reached = _reached(upstream, allowed)
    # a round that ends where the upstream has been already may be followed by the next one at once
    retrigger_before = None if reached is None else reached + _A_MOMENT
    if watermark is None:
        return StartFromOwn(retrigger_before)
    if reached is None or reached < watermark:
        return WaitForUpstream(f"waits for {_who(init)}, which has not reached {label(watermark)} yet")
    found = [summary for summary in allowed if summary.watermark <= watermark][-1:]
    if not _is_last_before(watermark, found, allowed):
        return StartRefused(
            f"the checkpoint of {_who(init)} at {label(watermark)} was pruned, and it has gone on to {label(reached)}: "
            "rewind it to a checkpoint at a watermark of this stage, or rewind this one"
        )
    if not found:
        return StartFromOwn(retrigger_before)
    return StartFrom([upstream.offer(found[0])], upstream.offer(allowed[-1]), retrigger_before=retrigger_before)


def _reached(upstream: UpstreamChain, allowed: list[CheckpointSummary]) -> datetime | None:
    """How far the upstream has come. What it skipped after its head counts, unless a pin says that this is later
    news."""
    if allowed == upstream.line:
        return upstream.edge
    return allowed[-1].watermark if allowed else None


def _is_last_before(watermark: datetime, found: list[CheckpointSummary], allowed: list[CheckpointSummary]) -> bool:
    """Whether the upstream has committed nothing between `found` (the last one kept, if any) and `watermark`: it
    stepped over what is there. Else that was pruned."""
    if found and found[0].watermark == watermark:
        return True
    later = next((summary for summary in allowed if summary.watermark > watermark), None)
    return later is None or later.place == (found[0].place if found else 0) + 1


def _ahead(
    init: InitFrom,
    upstream: UpstreamChain,
    allowed: list[CheckpointSummary],
    watermark: datetime | None,
    needed: datetime | None,
) -> StartDecision:
    by_watermark = {each.watermark: upstream.offer(each) for each in allowed if _reaches(each, watermark, needed)}
    candidates = list(by_watermark.values())
    if not candidates:
        upto = f" beyond {label(watermark)}" if watermark else ""
        return WaitForUpstream(f"waits for {_who(init)}, which has no checkpoint{upto} yet")
    last = candidates[-1]
    offered = candidates if len(candidates) <= MOST else [*candidates[: MOST - 1], last]
    return StartFrom(offered, last, bounded=True, retrigger_before=last.watermark)


def _reaches(summary: CheckpointSummary, watermark: datetime | None, needed: datetime | None) -> bool:
    if needed is not None:
        return summary.watermark >= needed
    return watermark is None or summary.watermark > watermark


def _who(init: InitFrom) -> str:
    return f"stage {init.chain.stage}" if init.chain.branch == "main" else f"stage {init.chain}"
