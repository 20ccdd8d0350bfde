"""Whatever comes late, again or never, and whenever a person repairs, skips or replays: the chain tiles time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.memory_store import MemoryStore
from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.commit import CommitRequest, commit
from trainflow.checkpoints.commit.commit_decision import summary_of
from trainflow.checkpoints.ledger.ancestors import line_from_head, rewinds_from_newest, trained_since
from trainflow.checkpoints.ledger.entries import ArtifactFile, Artifacts, Author, HoleRecord
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.rewind import rewind, skip
from trainflow.checkpoints.upkeep.changed_samples import (
    Replay,
    changed,
    comparison_start,
    open_holes,
    replay_of,
    replayed_partitions,
)
from trainflow.identifiers import digest
from trainflow.samples.spec import GapPolicy, Republished, Samples, SplitLimits
from trainflow.samples.splits.late_partitions import next_repair
from trainflow.samples.splits.next_split import SplitFound, decide
from trainflow.samples.splits.split import Split
from trainflow.samples.splits.split_content import Columns, Hole, SampleFile, SplitPartition, partition_of
from trainflow.samples.table.readiness import PartitionState, Readiness
from trainflow.storage.store import StoreFile
from trainflow.testing.chains import NoColumnUnifier

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS = 12
SAMPLES = Samples(
    path="t/{start:%Y-%m-%dT%H}",
    length_seconds=3600,
    start=START,
    gaps=GapPolicy(0, "skip"),
    republished=Republished("replay"),
)
BY = Author(run_id="run")


class Table:
    """Hourly; per partition how often it was written."""

    now = START + timedelta(days=100)

    def __init__(self) -> None:
        self.versions: dict[int, int] = {}

    def state(self, start: datetime) -> PartitionState:
        there = (start - START) // HOUR in self.versions
        files = (StoreFile("a.parquet", 10),) if there else ()
        return PartitionState(start, Readiness.READY if there else Readiness.MISSING, files=files, changed=START)

    def later(self, start: datetime) -> Iterator[datetime]:
        return iter([each for each in (START + n * HOUR for n in sorted(self.versions)) if each > start])

    def newest(self, after: datetime, upto: datetime | None = None) -> datetime | None:
        ready = (START + number * HOUR for number in self.versions)
        return max((each for each in ready if each >= after and (upto is None or each <= upto)), default=None)

    def content(self, start: datetime) -> SplitPartition:
        number = (start - START) // HOUR
        # two contents that take turns: what was there before comes again
        file = SampleFile(f"t/{number}/a.parquet", 10, 1, f"{number} {self.versions[number] % 2}")
        return partition_of(start, start + HOUR, (file,))

    def fingerprint(self, start: datetime, _known: object = None) -> str | None:
        return self.content(start).fingerprint if (start - START) // HOUR in self.versions else None

    def unified(self, chain: Columns) -> NoColumnUnifier:
        return NoColumnUnifier()

    def table_exists(self) -> bool:
        return True


@dataclass
class World:
    """A chain and its samples; each method is what one run, or a person, does."""

    table: Table = field(default_factory=Table)
    ledger: Ledger = field(default_factory=lambda: Ledger(MemoryStore(), ChainKey("late")))
    commits: int = 0
    replays: int = 0

    def train(self, partitions: int) -> None:
        state = self.ledger.state()
        found = decide(SAMPLES, state.edge, SplitLimits(partitions=partitions), self.table)
        if isinstance(found, SplitFound):
            skipped = tuple(Hole(each.start, each.end, each.reason) for each in state.skips)
            split = found.split
            self._commit(
                Split(
                    start=skipped[0].start if skipped else split.start,
                    end=split.end,
                    length_seconds=split.length_seconds,
                    partitions=split.partitions,
                    holes=(*skipped, *split.holes),
                )
            )

    def repair(self, partitions: int, *, skipped: bool) -> bool:
        holes = open_holes(self.ledger.state(), skipped=skipped)
        split = next_repair(SAMPLES, holes, SplitLimits(partitions=partitions), self.table)
        if split is not None:
            self._commit(split, fills=True)
        return split is not None

    def skip(self) -> None:
        state = self.ledger.state()
        start = state.edge or START
        head = state.head.id if state.head else None
        skip(
            self.ledger,
            start,
            start + HOUR,
            expected_head=head,
            by=Author(person="ada"),
            now=self.table.now,
            reason="gate",
        )

    def replay(self) -> bool:
        state = self.ledger.state()
        if state.head is None:
            return False
        trained = trained_since(line_from_head(self.ledger, state), comparison_start(SAMPLES, state.head.watermark))
        found = list(changed(trained, self.table.fingerprint))
        if not found:
            return False
        parents = {entry.id: entry.parent_id for entry in line_from_head(self.ledger, state)}
        # a day passes between two looks: what limits a partition that is written for ever has a test of its own
        self.replays += 1
        now = self.table.now + self.replays * timedelta(days=2)
        earlier = list(rewinds_from_newest(self.ledger, state, 1000))
        decision = replay_of(found, self.ledger.kept(), parents.__getitem__, earlier, now, lambda _to: [])
        assert isinstance(decision, Replay), decision
        rewind(
            self.ledger, decision.to, expected_head=state.head.id, by=BY, now=now,
            cause="replay", replayed=replayed_partitions(decision.partitions),
        )  # fmt: skip
        return True

    def _commit(self, split: Split, *, fills: bool = False) -> None:
        self.commits += 1
        head = self.ledger.state().head
        path = self.ledger.chain.attempt(f"{self.commits:026d}")
        artifacts = Artifacts(path, [ArtifactFile("model", 1, digest(b"x"))])
        self.ledger.store.replace(f"{path}/model", b"x")
        commit(
            self.ledger.store,
            CommitRequest(
                chain=self.ledger.chain,
                parent_id=head.id if head else None,
                split=summary_of(split),
                artifacts=artifacts,
                by=Author(run_id=f"run-{self.commits}"),
                fills=fills,
            ),
            self.table.now,
        )

    def check(self) -> set[int]:
        """The partitions of the line, its holes and its skips tile time; returns the numbers of those trained."""
        report = audit(self.ledger, SAMPLES, verify_files=False)
        assert (report.problems, report.gaps, report.duplicates) == ([], [], [])
        state = self.ledger.state()
        trained = [each for entry in line_from_head(self.ledger, state) for each in entry.split.partitions]
        holes: list[HoleRecord] = [each.hole for each in state.holes]
        pieces = sorted((each.start, each.end) for each in [*trained, *holes, *state.skips])
        if pieces:
            assert [START, *(end for _, end in pieces)] == [*(start for start, _ in pieces), state.edge]
        return {(each.start - START) // HOUR for each in trained}


numbers = st.integers(0, HOURS - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), numbers),
        st.tuples(st.just("train"), st.integers(1, 4)),
        st.tuples(st.just("repair"), st.integers(1, 3)),
        st.tuples(st.just("repair skipped"), st.integers(1, 3)),
        st.tuples(st.just("skip"), st.just(0)),
        st.tuples(st.just("look"), st.just(0)),
    ),
    max_size=40,
)


def take(world: World, step: tuple[str, int]) -> None:
    match step:
        case "write", number:
            world.table.versions[number] = world.table.versions.get(number, 0) + 1
        case "train", partitions:
            world.train(partitions)
        case "repair", partitions:
            world.repair(partitions, skipped=False)
        case "repair skipped", partitions:
            world.repair(partitions, skipped=True)
        case "skip", _:
            world.skip()
        case "look", _:
            world.replay()


@settings(max_examples=150)
@given(steps)
def test_chain_tiles_time_and_ends_with_everything_that_is_there(history: list[tuple[str, int]]) -> None:
    world = World()
    for step in history:
        take(world, step)
        world.check()
    # everything comes, and the chain is left to itself
    for number in range(HOURS + len(history)):
        world.table.versions.setdefault(number, 1)
    for _ in range(100):
        if not (world.replay() or world.repair(3, skipped=True)):
            world.train(3)
        if (trained := world.check()) == set(world.table.versions):
            break
    assert trained == set(world.table.versions)
    line = [each for entry in line_from_head(world.ledger, world.ledger.state()) for each in entry.split.partitions]
    assert all(each.fingerprint == world.table.fingerprint(each.start) for each in line)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=12))
def test_content_that_was_there_before_is_trained_again(history: list[tuple[int, int]]) -> None:
    """Two contents take turns, in one of three partitions, sometimes between the rewind and the training."""
    world = World()
    world.table.versions = dict.fromkeys(range(3), 0)
    world.train(3)
    for number, while_replayed in history:
        world.table.versions[number] += 1
        assert world.replay()
        world.table.versions[number] += while_replayed
        world.train(3)
        line = [each for entry in line_from_head(world.ledger, world.ledger.state()) for each in entry.split.partitions]
        assert {each.start: each.fingerprint for each in line} == {
            each.start: world.table.fingerprint(each.start) for each in line
        }
    world.check()
