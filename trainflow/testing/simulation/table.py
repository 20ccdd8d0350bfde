"""The simulated sample table: partitions of an hour that arrive when they arrive, or never."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from trainflow.clock import Clock
from trainflow.identifiers import digest
from trainflow.samples.next_split import CaughtUp, NextSplit, decide
from trainflow.samples.readiness import PartitionState, Presence
from trainflow.samples.spec import GapPolicy, Samples, SplitLimits
from trainflow.samples.split import SampleFile, SplitPartition

START = datetime(2013, 1, 1, tzinfo=UTC)
LENGTH = timedelta(hours=1)
#: how long a missing partition is waited for while a later one is ready
GAP_WAIT_SECONDS = 25.0


class SampleTable:
    """A table of `size` partitions. The product's own rule chooses splits of it."""

    def __init__(self, clock: Clock, size: int, limits: SplitLimits) -> None:
        self._clock = clock
        #: what the rule takes for the present
        self.now = clock.now()
        self.size = size
        self.limits = limits
        #: partition number → when it was written
        self.arrived: dict[int, datetime] = {}
        self.samples = Samples(
            path="table/{start:%Y-%m-%dT%H}/",
            length_seconds=int(LENGTH.total_seconds()),
            start=START,
            end=START + size * LENGTH,
            gaps=GapPolicy(wait_seconds=GAP_WAIT_SECONDS, then="skip"),
        )

    @property
    def end(self) -> datetime:
        """The exclusive end of the last partition."""
        return START + self.size * LENGTH

    def arrive(self, number: int) -> None:
        """Write a partition."""
        self.arrived.setdefault(number, self._clock.now())

    def next_split(self, watermark: datetime | None) -> NextSplit:
        """What the product says comes after `watermark`."""
        self.now = self._clock.now()
        return decide(self.samples, watermark, self.limits, self)

    def is_over(self, partition_start: datetime, check_again_at: datetime | None) -> bool:
        """What a trigger sees: the partition has come, or time alone may have changed the answer."""
        if check_again_at is not None and check_again_at <= self._clock.now():
            return True
        return not isinstance(self.next_split(partition_start), CaughtUp) and self._ready(partition_start)

    def _ready(self, start: datetime) -> bool:
        return (start - START) // LENGTH in self.arrived

    # -- what the rule looks at: `trainflow.samples.next_split.Seen` -----------------------------------------------

    def state(self, start: datetime) -> PartitionState:
        """One partition as it is now."""
        changed = self.arrived.get((start - START) // LENGTH)
        if changed is None:
            return PartitionState(start, Presence.MISSING, "nothing is there")
        return PartitionState(start, Presence.READY, changed=changed)

    def later(self, start: datetime) -> Iterator[datetime]:
        """Starts of the partitions after `start` that are there."""
        first = (start - START) // LENGTH
        return (START + number * LENGTH for number in sorted(self.arrived) if number > first)

    def newest(self) -> datetime | None:
        """Start of the last partition that is there."""
        return START + max(self.arrived) * LENGTH if self.arrived else None

    def content(self, start: datetime) -> SplitPartition:
        """What is in a partition."""
        fingerprint = digest(start.isoformat().encode())
        file = SampleFile(f"table/{start:%Y-%m-%dT%H}/part.parquet", 100, 10, fingerprint)
        return SplitPartition(start, start + LENGTH, (file,), 10, 100, fingerprint)

    def table_exists(self) -> bool:
        """The folder is there."""
        return True
