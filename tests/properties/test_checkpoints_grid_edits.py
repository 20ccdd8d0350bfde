"""Whatever is edited about the samples of a living chain, and whenever: time is trained once, or it is a recorded hole.

The reckoning is by hour and knows nothing of grids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainflow.checkpoints.commit.commit_decision import summary_of
from trainflow.checkpoints.ledger.entries import (
    ArtifactFile,
    Artifacts,
    Author,
    Checkpoint,
    HoleFilled,
    HoleRecord,
    LedgerEntry,
    Regrid,
    Rewind,
)
from trainflow.checkpoints.ledger.fold import SealedEntry, fold
from trainflow.checkpoints.ledger.rules import change_of, refusal
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary
from trainflow.checkpoints.upkeep.changed_samples import open_holes
from trainflow.samples.grid import Grid, grid_of
from trainflow.samples.partitions import end_of, is_boundary
from trainflow.samples.spec import GapPolicy, Samples, SplitLimits
from trainflow.samples.splits.late_partitions import next_repair
from trainflow.samples.splits.next_split import SplitFound, decide
from trainflow.samples.splits.split import Split
from trainflow.samples.splits.split_content import Columns, SampleFile, SplitPartition, partition_of
from trainflow.samples.table.readiness import PartitionState, Readiness
from trainflow.storage.store import StoreFile
from trainflow.testing.chains import NoColumnUnifier

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
BY = Author(person="ada@host")
#: hours that the tables reach to, from and up to
FIRST, LAST = -12, 60


def hour(number: int) -> datetime:
    return BEGIN + number * HOUR


@dataclass
class Table:
    """Partitions of any grid, of which those that begin at a missing hour are not there."""

    samples: Samples
    missing: frozenset[int]
    now: datetime = NOW

    def _there(self, start: datetime) -> bool:
        return hour(FIRST) <= start < hour(LAST) and (start - BEGIN) // HOUR not in self.missing

    def state(self, start: datetime) -> PartitionState:
        there = self._there(start)
        files = (StoreFile("a.parquet", 10),) if there else ()
        return PartitionState(start, Readiness.READY if there else Readiness.MISSING, files=files, changed=hour(LAST))

    def later(self, start: datetime) -> Iterator[datetime]:
        every = (hour(number) for number in range(FIRST, LAST))
        return (each for each in every if each > start and self._there(each) and is_boundary(self.samples, each))

    def content(self, start: datetime) -> SplitPartition:
        return partition_of(start, end_of(self.samples, start), (SampleFile("f", 1, 1, start.isoformat()),))

    def newest(self, after: datetime, upto: datetime | None = None) -> datetime | None:
        return None

    def unified(self, chain: Columns) -> NoColumnUnifier:
        return NoColumnUnifier()

    def table_exists(self) -> bool:
        return True


@dataclass
class EntrySource:
    """Finds the checkpoint of a summary."""

    entries: list[SealedEntry]

    def checkpoint(self, summary: CheckpointSummary) -> Any:
        return self.entries[summary.sequence - 1].entry

    page = put = None


@dataclass
class Living:
    """A chain, and the samples as its pipeline file has them."""

    samples: Samples
    missing: frozenset[int] = frozenset()
    entries: list[SealedEntry] = field(default_factory=list)
    state: ChainState = field(default_factory=ChainState)
    #: asks whether the samples are those that the chain was trained on
    compare: Callable[[ChainState, Grid], Any] = change_of

    @property
    def page_source(self) -> Any:
        return EntrySource(self.entries)

    def add(self, entry: LedgerEntry) -> None:
        problem = refusal(self.state, entry, self.page_source)
        assert problem is None, problem
        sealed = SealedEntry(entry, f"d{len(self.entries)}", "")
        self.entries.append(sealed)
        self.state = fold(self.state, [sealed], self.page_source)

    def commit(self, kind: type[Any], split: Split, watermark: datetime) -> None:
        self.add(
            kind(
                **self.state.header(BY, NOW),
                id=f"c{len(self.entries)}",
                parent_id=self.state.head.id if self.state.head else None,
                watermark=watermark,
                split=summary_of(split),
                artifacts=Artifacts("a", [ArtifactFile("m", 1, "sha256:0")]),
                grid=grid_of(self.samples),
            )
        )

    # -- what people and runs do ---------------------------------------------------------------------------------

    def edit(self, length: int, start: int) -> None:
        self.samples = table(length, start)

    def run(self, count: int) -> None:
        if self.compare(self.state, grid_of(self.samples)) is not None:
            return
        found = decide(
            self.samples, self.state.edge, SplitLimits(partitions=count), Table(self.samples, self.missing)  # type: ignore[arg-type]
        )  # fmt: skip
        if isinstance(found, SplitFound):
            self.commit(Checkpoint, found.split, found.split.end)

    def regrid(self) -> None:
        change = change_of(self.state, grid_of(self.samples))
        if change is None or not change.fits:
            return
        hole = change.untrained
        self.add(
            Regrid(
                **self.state.header(BY, NOW),
                parent_id=self.state.head.id if self.state.head else None,
                grid=change.new,
                watermark=change.edge,
                holes=[HoleRecord(hole.start, hole.end, hole.reason)] if hole else [],
            )
        )

    def repair(self) -> None:
        if self.compare(self.state, grid_of(self.samples)) is not None or self.state.head is None:
            return
        seen = Table(self.samples, frozenset())
        split = next_repair(self.samples, open_holes(self.state), SplitLimits(partitions=2), seen)  # type: ignore[arg-type]
        if split is not None:
            self.commit(HoleFilled, split, self.state.head.watermark)

    def rewind(self, back: int) -> None:
        line = [each for each in self.state.recent if each.on_line]
        if line:
            target = line[-1 - back] if back < len(line) else None
            self.add(Rewind(**self.state.header(BY, NOW), to_checkpoint_id=target.id if target else None))

    # -- what must hold ------------------------------------------------------------------------------------------

    def line(self) -> list[Checkpoint]:
        found: list[Checkpoint] = []
        for each in self.entries:
            match each.entry:
                case Checkpoint() as checkpoint:
                    found.append(checkpoint)
                case Rewind(to_checkpoint_id=target):
                    while found and found[-1].id != target:
                        found.pop()
        return found

    def check(self) -> None:
        """Each hour from where the chain began up to its end is trained once, or is a hole, and not both."""
        line = self.line()
        times: dict[datetime, int] = {}
        for each in (partition for entry in line for partition in entry.split.partitions):
            for moment in hours_of(each.start, each.end):
                times[moment] = times.get(moment, 0) + 1
        assert max(times.values(), default=1) == 1, "trained twice"
        holes = {moment for each in self.state.holes for moment in hours_of(each.hole.start, each.hole.end)}
        assert not holes & times.keys(), "a hole that was trained"
        if not line:
            return
        end = max(entry.watermark for entry in line)
        # what the file says now is only what must be trained where nothing refuses it
        started = self.samples.start if self.compare(self.state, grid_of(self.samples)) is None else end
        begin = min(started, *times)
        assert {moment for moment in hours_of(begin, end) if moment not in times} <= holes, "left out"


def hours_of(start: datetime, end: datetime) -> list[datetime]:
    return [start + number * HOUR for number in range((end - start) // HOUR)]


def table(length: int, start: int) -> Samples:
    return Samples(
        path="t/{start:%Y-%m-%dT%H}/", length_seconds=length * 3600, start=hour(start), gaps=GapPolicy(60, "skip")
    )


lengths, starts = st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(FIRST, 20)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), lengths, starts),
        st.tuples(st.just("run"), st.integers(1, 4)),
        st.tuples(st.just("run"), st.integers(1, 4)),
        st.tuples(st.just("regrid")),
        st.tuples(st.just("repair")),
        st.tuples(st.just("rewind"), st.integers(1, 3)),
    ),
    max_size=25,
)
Step = tuple[Any, ...]


@given(lengths, starts, st.frozensets(st.integers(FIRST, LAST), max_size=20), steps)
def test_grid_edits_and_runs_tile_time_once(length: int, start: int, missing: frozenset[int], told: list[Step]) -> None:
    chain = Living(table(length, start), missing)
    for name, *arguments in told:
        getattr(chain, name)(*arguments)
        chain.check()


@pytest.mark.parametrize(
    ("told", "what"),
    [
        ([("edit", 1, 2), ("run", 3), ("edit", 2, 2), ("run", 1)], "inside the partition"),
        ([("edit", 1, 2), ("run", 3), ("edit", 1, 0), ("run", 1)], "left out"),
        ([("edit", 1, 0), ("run", 2), ("edit", 2, 0), ("run", 1)], "was 1h long and is 2h, and no entry says so"),
    ],
)
def test_run_that_does_not_compare_is_found_out(told: list[Step], what: str) -> None:
    """The planted bug: the samples are taken as they are."""
    chain = Living(table(1, 0), compare=lambda _state, _grid: None)
    with pytest.raises(Exception, match=what):
        for name, *arguments in told:
            getattr(chain, name)(*arguments)
            chain.check()
