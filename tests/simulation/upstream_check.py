"""Look whether the weights of a checkpoint come from the chain, and from where on it, that the pipeline says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from tests.simulation.committed import CommittedCheckpoint, Entry, origin, time_of
from tests.simulation.expected import Expected, UpstreamRule
from tests.simulation.violation import Violation
from trainflow.checkpoints.chain import ChainKey


class UpstreamCheck:
    """Knows the checkpoints of all chains."""

    def __init__(self, all_committed: Mapping[str, CommittedCheckpoint], expected: Expected) -> None:
        self._all_committed = all_committed
        self._expected = expected
        #: what its chain was forked from
        self.forked_from: str | None = None

    def check(self, chain: ChainKey, entry: Entry, watermark: datetime | None) -> None:
        """The weights come from where the pipeline says."""
        came_from, rule = origin(entry), self._expected.base
        base = self._all_committed.get(came_from) if came_from is not None else None
        start, end = time_of(entry["split"]["start"]), time_of(entry["split"]["end"])
        match rule:
            case None:
                begins = entry["parent_id"] is None
                right = came_from == (self.forked_from if begins else None)
            case UpstreamRule.ANY_OR_NONE:
                right = True
            case UpstreamRule.FIRST_ONLY:
                right = (came_from is None) == (entry["parent_id"] is not None)
            case UpstreamRule.AT_BEGINNING:
                right = self._is_last_before(start, base, watermark)
            case UpstreamRule.REACHES_END:
                right = base is not None and base.line.watermark is not None and base.line.watermark >= end
                before = self._one_watermark_before(base) if base is not None else None
                right = right and (before is None or before.line.watermark is None or before.line.watermark < end)
            case UpstreamRule.PROMOTED:
                right = base is not None and base.promoted
            case UpstreamRule.ANY:
                right = base is not None
        if not right:
            raise Violation("the base is the right one", f"{entry['id']} of {chain}: {came_from} is not '{rule}'")

    def _one_watermark_before(self, kept: CommittedCheckpoint) -> CommittedCheckpoint | None:
        """The checkpoint that it went on from; what has only filled a hole stands where the one before it stood."""
        before: CommittedCheckpoint | None = kept
        while before is not None and before.line.watermark == kept.line.watermark:
            before = self._all_committed.get(before.entry["parent_id"] or "")
        return before

    def _is_last_before(self, start: datetime, base: CommittedCheckpoint | None, watermark: datetime | None) -> bool:
        """Whether the base's chain went on from `base` (None: from nothing) to beyond `start`, or did not go on."""
        if base is not None and (base.line.watermark is None or base.line.watermark > start):
            return False
        parent = base.entry["id"] if base is not None else None
        all_committed = [each for each in self._all_committed.values() if not each.undone]
        others = [each for each in all_committed if each.entry["artifacts"]["path"].startswith(self._expected.follows)]
        after = [each.line.watermark for each in others if each.entry["parent_id"] == parent]
        return watermark is None or all(moment is not None and moment > start for moment in after)
