"""What the checkpoint task hands to the others: which chain, where its head was, what the run starts from. JSON, and
free of secrets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import CheckpointRef, HoleRecord, UpstreamSeen
from trainflow.checkpoints.stages.init_from import UpstreamCheckpoint
from trainflow.errors import FailException
from trainflow.samples.partitions import label
from trainflow.samples.splits.split import Split
from trainflow.samples.splits.split_content import Hole


class HeadOfOtherVersion(Exception):
    """A head that another version of trainflow handed over, and that this one cannot read."""


class Head(msgspec.Struct, frozen=True):
    """The head of a chain when the run began. While nothing is committed, `id`, `watermark` and `uri` are None, and
    `number` and `entry` are 0."""

    pipeline: str
    stage: str
    branch: str
    #: as the pipeline names it: a URL, or a path relative to the project
    store: str
    id: str | None
    #: what people call the checkpoint: 1, 2, 3 …
    number: int
    watermark: datetime | None
    uri: str | None = None
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    #: rewinds so far: training a split again is told from training it the first time
    generation: int = 0
    #: of the split that the head was trained on, see `Split.columns`
    columns: tuple[tuple[str, str], ...] = ()
    #: of a stage that starts from another one: what is known of that, for the ledger
    seen: UpstreamSeen | None = None
    #: stretches after the head that the next split steps over and records as holes
    skips: list[HoleRecord] = msgspec.field(default_factory=list)
    #: the chain whose checkpoints the weights come from; None: from the head
    upstream: ChainKey | None = None
    #: the checkpoints of `upstream` that the split may choose between, in the order of their watermarks
    candidates: list[UpstreamCheckpoint] = msgspec.field(default_factory=list)
    #: the newest checkpoint of `upstream` that the run knows of: newer ones are the business of the runs they trigger
    last: UpstreamCheckpoint | None = None
    #: a split ends at or before the watermark of the upstream that it starts from
    bounded: bool = False
    #: the stage triggers itself again while its watermark is before this (None: always)
    retrigger_before: datetime | None = None
    #: number of the head's ledger entry
    entry: int = 0
    #: of that entry: what follows reads that, and looks at the chain only where it adds to it
    digest: str = ""
    #: the trainings of the chain that had saved anything inside a split; None: not looked at
    trainings: tuple[str, ...] | None = None
    #: one request shows all files of the chain
    has_few_files: bool = True
    #: why there is nothing to train on whatever samples there are, for people
    waits: str | None = None

    @property
    def chain(self) -> ChainKey:
        """The chain that it is the head of."""
        return ChainKey(self.pipeline, self.stage, self.branch)

    @property
    def edge(self) -> datetime | None:
        """The exclusive end of what was trained or skipped; None: nothing yet."""
        return self.skips[-1].end if self.skips else self.watermark

    @property
    def bounds(self) -> tuple[datetime, ...]:
        """A split with bounds never crosses one of them after its first partition, and never passes the last."""
        return tuple(each.watermark for each in self.candidates) if self.bounded else ()

    def refuses(self, start: datetime, end: datetime) -> str | None:
        """Why a split from `start` to `end` was decided for another head; None: it may be this one's. Tasks of a run
        can be cleared one by one: what a stage starts from may be another checkpoint then, or none yet."""
        if self.waits is not None:
            return self.waits
        fills = self.id is not None and self.watermark is not None and start < self.watermark
        if self.upstream is None or fills or self.upstream_of(start, end) is not None:
            return None
        return f"no checkpoint of {self.upstream} that it may start from has reached {label(end)}"

    def upstream_of(self, start: datetime, end: datetime) -> UpstreamCheckpoint | None:
        """The checkpoint of the upstream that training on a split from `start` to `end` begins with; None: it goes on
        from the head, as it does when it repairs a hole of what the head was trained on."""
        if self.id is not None and self.watermark is not None and start < self.watermark:
            return None
        return next((each for each in self.candidates if not self.bounded or each.watermark >= end), None)

    def origin_of(self, start: datetime, end: datetime) -> CheckpointRef | None:
        """The same as the ledger records it."""
        upstream = self.upstream_of(start, end)
        return (
            None
            if upstream is None or self.upstream is None
            else CheckpointRef(upstream.chain or self.upstream, upstream.id)
        )

    def retriggers_at(self, watermark: datetime) -> bool:
        """Whether the stage triggers itself again once it has trained up to `watermark`."""
        return self.retrigger_before is None or watermark < self.retrigger_before


def head_to_xcom(head: Head) -> dict[str, Any]:
    """The head as JSON."""
    value: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(head))
    return value


def head_from_xcom(value: Any, task_id: str) -> Head:
    """The inverse. Raises FailException for what no CheckpointOperator pushed, HeadOfOtherVersion for what one of
    another version did."""
    try:
        return msgspec.convert(value, Head)
    except msgspec.ValidationError as error:
        if isinstance(value, dict) and {"pipeline", "stage", "branch"} <= value.keys():
            raise HeadOfOtherVersion(
                f"the head was handed over by another version of trainflow, and cannot be read ({error})"
            ) from None
        raise FailException(
            f"task {task_id!r}: 'checkpoint' is not what a CheckpointOperator hands over ({error}): "
            "give it the output of that task"
        ) from None


def after_skips(split: Split, skips: Sequence[HoleRecord], watermark: datetime | None) -> Split:
    """`split`, which begins where the last skip ends, from the watermark (None: from the first skip) on."""
    if not skips:
        return split
    holes = (*(Hole(skip.start, skip.end, skip.reason) for skip in skips), *split.holes)
    return msgspec.structs.replace(split, start=watermark or skips[0].start, holes=holes)
