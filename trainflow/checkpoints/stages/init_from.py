"""Where a stage's weights come from, as a pipeline says it, from either end; and which checkpoint a run was told of."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from trainflow.checkpoints.chain import ChainKey

At = Literal["same_watermark", "latest", "promoted"]


class InitFrom(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stage's upstream: the chain whose checkpoints its runs start from.

    `once`: only the first run does, and the stage goes on from its own checkpoints. `feedback`: the upstream comes
    after this stage in a circle, so that day D starts from the upstream's day D-1; `through`: the upstream's own
    upstream in that circle, the upstream of that, and so on, as far as each trains on what the next one has.
    `checkpoint_id`: this one, and no other. `alias`: the promotion that is meant (None: the newest, whatever its
    alias).
    """

    chain: ChainKey
    at: At = "latest"
    once: bool = False
    feedback: bool = False
    through: tuple[ChainKey, ...] = ()
    checkpoint_id: str | None = None
    alias: str | None = None


class Pin(msgspec.Struct, frozen=True):
    """The checkpoint of the upstream that a run was triggered with: nothing newer is used. `number`: what people
    call it, None where only its id was given; `id`: None stands for the head."""

    chain: ChainKey
    id: str | None
    number: int | None = None


class UpstreamCheckpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """A checkpoint that may be started from."""

    id: str
    number: int
    watermark: datetime
    #: number of its entry in the upstream's ledger; 0: it is what the upstream was forked from
    entry: int = 0
    #: the chain it lies in, where that is not the upstream itself but the one it was forked from
    chain: ChainKey | None = None
    #: of its ledger entry; empty: not known
    digest: str = ""


class Dependent(msgspec.Struct, frozen=True):
    """A chain whose runs start from checkpoints of this one. `once`: only its first run does."""

    chain: ChainKey
    at: Literal["same_watermark", "latest", "promoted"] = "latest"
    once: bool = False
    #: it comes before this chain in a circle
    feedback: bool = False
