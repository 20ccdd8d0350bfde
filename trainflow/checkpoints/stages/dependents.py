"""Stages that start from the checkpoints of another stage, and which of its checkpoints they still need. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary


class Dependent(msgspec.Struct, frozen=True):
    """A chain whose runs start from checkpoints of this one. `once`: only its first run does."""

    chain: ChainKey
    at: Literal["same_watermark", "latest", "promoted"] = "latest"
    once: bool = False
    #: it comes before this chain in a circle
    feedback: bool = False


def still_needed(dependent: Dependent, state: ChainState, kept: Sequence[CheckpointSummary]) -> set[str]:
    """Find those of the `kept` checkpoints of a chain that a run of the follower, whose chain is in `state`, may start
    from.

    One that has trained nothing may need every one. At the same watermark it is those that the follower has not passed
    yet; in a circle the one before, too: what came after that may have been stepped over. Otherwise its run began after
    its head was committed, with what was the newest then or has come since.
    """
    line = [each for each in kept if each.on_line]
    if state.head is None:
        return {each.id for each in line}
    if dependent.once:
        return set()
    if dependent.at == "same_watermark":
        ahead = {each.id for each in line if each.watermark >= state.head.watermark}
        behind = [each.id for each in line if each.watermark <= state.head.watermark]
        return ahead.union(behind[-1:] if dependent.feedback else [])
    return _newest_since(line, state.head.at)


def _newest_since(line: Sequence[CheckpointSummary], at: datetime) -> set[str]:
    since = [each.id for each in line if each.at >= at]
    before = [each.id for each in line if each.at < at]
    return {*since, *before[-1:]}
