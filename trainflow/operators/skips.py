"""A split that begins after what was skipped: it records that as holes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from trainflow.checkpoints.ledger.entries import HoleRecord
from trainflow.samples.splits.split import Split
from trainflow.samples.splits.split_content import Hole


def after_skips(split: Split, skips: Sequence[HoleRecord], watermark: datetime | None) -> Split:
    """`split`, which begins where the last skip ends, from the watermark (None: from the first skip) on."""
    if not skips:
        return split
    holes = (*(Hole(skip.start, skip.end, skip.reason) for skip in skips), *split.holes)
    return msgspec.structs.replace(split, start=watermark or skips[0].start, holes=holes)
