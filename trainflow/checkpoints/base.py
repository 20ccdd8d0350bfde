"""Which checkpoint of its base does the next run of a stage start from, and up to where may its split go? The rule.

`same_watermark`, forwards: the base has trained up to W, and the stage trains, from that checkpoint, on what lies
between its own watermark and W. With feedback: the base comes after the stage in a circle, and the stage goes on from
the base's checkpoint at its own watermark. `latest`, `promoted`: the newest (promoted) one; the split is the stage's
own business.

A pin is an upper bound: what the base has committed after it is the business of the run that *that* commit triggers.
Answers depend on the two ledgers only, so a run that is killed and asks again gets the same answer, unless somebody
has rewound or pruned meanwhile.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from trainflow.checkpoints.init_from import Base, InitFrom, Pin
from trainflow.samples.partitions import label

if TYPE_CHECKING:
    from trainflow.checkpoints.ledger import Ledger
    from trainflow.checkpoints.state import CheckpointSummary

#: so many checkpoints of the base are offered to a split; the last one allowed is always among them
MOST = 32
_A_MOMENT = timedelta(seconds=1)


class BaseChain(msgspec.Struct, frozen=True):
    """What the rule needs to know of the base's chain."""

    #: the number of its newest entry
    sequence: int
    watermark: datetime | None
    #: not pruned, in the order of their sequence; those a rewind left behind included
    kept: list[CheckpointSummary]
    #: alias → checkpoint
    promoted: dict[str, str] = {}

    @property
    def line(self) -> list[CheckpointSummary]:
        """Those from the root to the head."""
        return [summary for summary in self.kept if summary.on_line]

    def find(self, checkpoint_id: str) -> CheckpointSummary | None:
        """The one of this id."""
        return next((found for found in reversed(self.kept) if found.id == checkpoint_id), None)


def base_chain(ledger: Ledger, watermark: datetime | None, pin: Pin | None = None) -> BaseChain:
    """The base's chain as far back as the rule may ask: a stage that is close behind reads its newest lines only.

    Raises LedgerCorrupt, StoreFailure.
    """
    state = ledger.state()
    reaches = any(each.on_line and watermark is not None and each.watermark <= watermark for each in state.recent)
    names = {pin.id if pin else None, *state.promoted.values()} - {None}
    recent = {each.id for each in state.recent}
    kept = state.recent if not state.pages or (reaches and names <= recent) else ledger.kept()
    return BaseChain(state.sequence, state.watermark, kept, state.promoted)


class StartFrom(msgspec.Struct, frozen=True):
    """The run starts from one of `bases`, in the order of their watermarks.

    `bounded`: it is the first of them that has reached the end of the split, and no split goes beyond the last one.
    Otherwise there is one, and it bounds nothing. `last`: the newest one the pin allows; `again_before`: as long as the
    stage's own watermark is before this moment, there is more to start from (None: always).
    """

    bases: list[Base]
    last: Base
    bounded: bool = False
    again_before: datetime | None = None


class FromNothing(msgspec.Struct, frozen=True):
    """The first run of a stage that begins a circle: there is nothing to start from."""


class Wait(msgspec.Struct, frozen=True):
    """Nothing to start from now: a commit of the base changes that, and triggers. `reason`: a clause for people."""

    reason: str


class Refusal(msgspec.Struct, frozen=True):
    """The run can never start from what it was told. `reason`: a sentence for people."""

    reason: str


Choice = StartFrom | FromNothing | Wait | Refusal


def choose(
    init: InitFrom, base: BaseChain, watermark: datetime | None, needed: datetime | None, pin: Pin | None = None
) -> Choice:
    """What the next run of a stage starts from.

    `base` is the base's chain, `watermark` the stage's own (None: it has trained nothing), `needed` the
    end of the next partition it would train on (None: not known, any later watermark of the base will do).
    """
    allowed = _allowed(init, base, pin)
    if isinstance(allowed, Refusal):
        return allowed
    if init.checkpoint_id is not None:
        return _named(init, allowed)
    if init.at != "same_watermark":
        return _newest(init, base, allowed, watermark, pin)
    if init.feedback:
        return _one_round_back(init, base, allowed, watermark)
    return _ahead(init, allowed, watermark, needed)


def _allowed(init: InitFrom, base: BaseChain, pin: Pin | None) -> list[CheckpointSummary] | Refusal:
    """The kept checkpoints on the base's line, up to the pin."""
    if pin is None or pin.id is None:
        return base.line
    found = base.find(pin.id)
    if found is not None and not found.on_line:
        return Refusal(
            f"this run was told to start from checkpoint {found.sequence} ({pin.id}) of {init.chain}, and that chain "
            "was rewound to before it since: the checkpoints that are trained instead trigger runs of their own"
        )
    sequence = pin.sequence if found is None else found.sequence
    if sequence is None or sequence > base.sequence:
        return Refusal(
            f"this run was told to start from checkpoint {pin.id} of {init.chain}, and there is none: it was never "
            "committed in this store, or its files were pruned"
        )
    return [summary for summary in base.line if summary.sequence <= sequence]


def _named(init: InitFrom, allowed: list[CheckpointSummary]) -> Choice:
    found = [summary for summary in allowed if summary.id == init.checkpoint_id]
    if not found:
        return Refusal(
            f"init_from names checkpoint {init.checkpoint_id} of {init.chain}, which is not on its line: it was never "
            "committed there, its files were pruned, or the chain was rewound to before it"
        )
    return StartFrom([_base(found[0])], _base(found[0]))


def _newest(
    init: InitFrom,
    base: BaseChain,
    allowed: list[CheckpointSummary],
    watermark: datetime | None,
    pin: Pin | None,
) -> Choice:
    newer = base.line[-1].sequence if base.line else 0
    if pin is not None and not init.once and allowed and newer > allowed[-1].sequence:
        return Wait(f"checkpoint {newer} of {_who(init)} is newer: the run it triggers takes over")
    if init.at == "promoted":
        names = {init.alias: base.promoted.get(init.alias)} if init.alias else base.promoted
        allowed = [summary for summary in allowed if summary.id in names.values()]
    if allowed:
        return StartFrom([_base(allowed[-1])], _base(allowed[-1]))
    if init.feedback and watermark is None:
        return FromNothing()
    what = "has promoted no checkpoint" if init.at == "promoted" else "has no checkpoint"
    return Wait(f"waits for {_who(init)}, which {what} yet")


def _one_round_back(
    init: InitFrom, base: BaseChain, allowed: list[CheckpointSummary], watermark: datetime | None
) -> Choice:
    if watermark is None:
        return FromNothing()
    found = [summary for summary in allowed if summary.watermark == watermark]
    if found:
        # a round that ends where the base has been already may be followed by the next one at once
        return StartFrom([_base(found[-1])], _base(allowed[-1]), again_before=allowed[-1].watermark + _A_MOMENT)
    if base.watermark is not None and base.watermark > watermark and base.line == allowed:
        return Refusal(
            f"{_who(init)} has no checkpoint at {label(watermark)} (any more) and has gone on to "
            f"{label(base.watermark)}: rewind it to a checkpoint at a watermark of this stage, or rewind this one"
        )
    return Wait(f"waits for {_who(init)}, which has not reached {label(watermark)} yet")


def _ahead(
    init: InitFrom, allowed: list[CheckpointSummary], watermark: datetime | None, needed: datetime | None
) -> Choice:
    by_watermark = {summary.watermark: _base(summary) for summary in allowed if _reaches(summary, watermark, needed)}
    bases = list(by_watermark.values())
    if not bases:
        upto = f" beyond {label(watermark)}" if watermark else ""
        return Wait(f"waits for {_who(init)}, which has no checkpoint{upto} yet")
    last = bases[-1]
    offered = bases if len(bases) <= MOST else [*bases[: MOST - 1], last]
    return StartFrom(offered, last, bounded=True, again_before=last.watermark)


def _reaches(summary: CheckpointSummary, watermark: datetime | None, needed: datetime | None) -> bool:
    if needed is not None:
        return summary.watermark >= needed
    return watermark is None or summary.watermark > watermark


def _base(summary: CheckpointSummary) -> Base:
    return Base(summary.id, summary.sequence, summary.watermark)


def _who(init: InitFrom) -> str:
    return f"stage {init.chain.stage}" if init.chain.branch == "main" else f"stage {init.chain}"
