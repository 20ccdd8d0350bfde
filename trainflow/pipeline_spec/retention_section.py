"""Which checkpoints keep their files."""

from __future__ import annotations

from typing import Literal

from trainflow.checkpoints.upkeep.retention import KeepBest, KeepDaily, KeepEvery, KeepLatest, KeepWeekly, Policy
from trainflow.pipeline_spec.fields import Count
from trainflow.pipeline_spec.section import Section


class KeepBestSection(Section):
    """Keep the best checkpoints by one metric."""

    metric: str
    """Name of the metric."""
    mode: Literal["max", "min"] = "max"
    """Whether larger or smaller is better."""
    count: Count = 1
    """How many to keep."""


class RetentionSection(Section):
    """Which checkpoints keep their files: whatever any line keeps stays. The ledger itself is never shortened, and the
    head always stays."""

    keep_latest: Count | None = None
    """The newest ones, this many."""
    keep_every: Count | None = None
    """Every n-th one, counted from the first."""
    keep_daily: Count | None = None
    """One for each of the newest days that were trained, this many: the last of the day."""
    keep_weekly: Count | None = None
    """One for each of the newest weeks that were trained, this many."""
    keep_best: KeepBestSection | None = None
    """The best ones by a metric."""


def policies_of(section: RetentionSection | None) -> tuple[Policy, ...]:
    """The retention policies a section describes."""
    if section is None:
        return ()
    best = section.keep_best
    policies = (
        KeepLatest(section.keep_latest) if section.keep_latest else None,
        KeepEvery(section.keep_every) if section.keep_every else None,
        KeepDaily(section.keep_daily) if section.keep_daily else None,
        KeepWeekly(section.keep_weekly) if section.keep_weekly else None,
        KeepBest(best.metric, best.mode, best.count) if best else None,
    )
    return tuple(policy for policy in policies if policy)
