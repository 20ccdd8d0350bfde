"""What a run wants to commit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from trainflow.checkpoints.actions.promote import Promote
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.gates import Gate
from trainflow.checkpoints.commit.metric_names import NamedMetric
from trainflow.checkpoints.ledger.entries import Artifacts, Author, CheckpointRef, SplitSummary, UpstreamSeen
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.samples.grid import Grid


class CommitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`parent_id` is the head it trained from (None: the chain was empty). `evaluation` is the parent's score on this
    split; None when there was nothing to evaluate. `evaluated`: the run has a task that evaluates, although that has
    nothing to score before the first checkpoint. `fills`: the split trains holes of the line that have arrived, the
    watermark stays where it is. `origin`: the weights came from that checkpoint of another chain, not from the parent.
    `base`: of a stage that starts from another one, what was known of that.
    `generation`: how often the chain had been rewound when the run began; after one more, what it trained is out of
    date although its parent is the head again. None: not known. `grid`: of the table that was trained on. `named`: the
    metrics that gates, promotions and the retention name.
    """

    chain: ChainKey
    parent_id: str | None
    split: SplitSummary
    artifacts: Artifacts
    by: Author
    metrics: Mapping[str, float] = {}
    evaluation: Mapping[str, float] | None = None
    evaluated: bool = False
    params: dict[str, Any] = {}
    gates: tuple[Gate, ...] = ()
    promotes: tuple[Promote, ...] = ()
    named: tuple[NamedMetric, ...] = ()
    origin: CheckpointRef | None = None
    base: UpstreamSeen | None = None
    fills: bool = False
    #: from when the split was handed over
    seconds: float | None = None
    generation: int | None = None
    grid: Grid | None = None

    @property
    def checkpoint_id(self) -> str:
        """The id of the attempt that wrote the artifacts."""
        return self.artifacts.path.rsplit("/", 1)[-1]

    def due(self, state: ChainState) -> datetime | None:
        """Where its split has to start on a chain in this state; None: anywhere."""
        return None if self.fills else state.watermark
