from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.local_store import LocalStore
from trainflow.engine.plan import begins_at, plan
from trainflow.errors import SampleCheckFailed
from trainflow.samples.pace import Pace
from trainflow.samples.readiness import PartitionState, Presence
from trainflow.samples.spec import GapPolicy, Samples, SplitLimits
from trainflow.samples.split import SampleFile, SplitPartition
from trainflow.serialization.document import ChainDocument, DagDocument, TaskDocument
from trainflow.testing.chains import ChainWriter, day

SAMPLES = Samples(
    path="t/{start:%Y%m%d}/", length_seconds=86_400, start=day(0), end=day(10), gaps=GapPolicy(then="skip")
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Table:
    """The days that are there, ten rows each; `bad` ones fail their checks."""

    def __init__(self, there: set[int], bad: frozenset[int] = frozenset()) -> None:
        self.now = NOW
        self._there = {day(number) for number in there}
        self._bad = {day(number) for number in bad}

    def state(self, start: datetime) -> PartitionState:
        presence = Presence.READY if start in self._there else Presence.MISSING
        return PartitionState(start, presence, changed=day(50))

    def later(self, start: datetime) -> Iterator[datetime]:
        return iter(sorted(each for each in self._there if each > start))

    def newest(self) -> datetime | None:
        return max(self._there, default=None)

    def content(self, start: datetime) -> SplitPartition:
        if start in self._bad:
            raise SampleCheckFailed("too few rows", partition=start, problems=("too few rows",))
        file = SampleFile("f.parquet", 100, 10, "sha256:f")
        return SplitPartition(start, start + timedelta(days=1), (file,), 10, 100, "sha256:p")

    def table_exists(self) -> bool:
        return True



def test_the_runs_tile_what_is_left() -> None:
    made = plan(SAMPLES, SplitLimits(partitions=3), day(2), Table({*range(10)}), most=100, pace=Pace(None, 2.0))

    assert [(run.number, run.start, run.end, run.partitions) for run in made.runs] == [
        (1, day(2), day(5), 3),
        (2, day(5), day(8), 3),
        (3, day(8), day(10), 2),
    ]
    assert (made.outcome, made.partitions, made.rows, made.bytes) == ("caught_up", 8, 80, 800)
    assert made.estimated_seconds == 16.0


def test_holes_are_part_of_the_run_that_steps_over_them() -> None:
    made = plan(SAMPLES, SplitLimits(partitions=3), None, Table({0, 3, 4}), most=100, pace=Pace())

    assert [(run.start, run.end, len(run.holes)) for run in made.runs] == [(day(0), day(5), 1)]
    assert made.runs[0].holes[0].start == day(1)
    assert made.runs[0].holes[0].end == day(3)


@pytest.mark.parametrize(
    ("table", "most", "outcome", "runs"),
    [
        (Table(set()), 5, "caught_up", 0),
        (Table({*range(10)}), 2, "more", 2),
        (Table({0, 1, 2, 3}, bad=frozenset({3})), 5, "stopped", 1),
    ],
)
def test_what_comes_after_the_last_run(table: Table, most: int, outcome: str, runs: int) -> None:
    made = plan(SAMPLES, SplitLimits(partitions=3), None, table, most=most, pace=Pace())

    assert (made.outcome, len(made.runs)) == (outcome, runs)
    assert made.reason
    assert made.estimated_seconds is None or runs == 0


def test_a_table_that_is_being_written_is_waited_for() -> None:
    class Writing(Table):
        def state(self, start: datetime) -> PartitionState:
            return PartitionState(start, Presence.NOT_READY, "it has no _SUCCESS")

    made = plan(SAMPLES, None, None, Writing({0}), most=5, pace=Pace())

    assert (made.outcome, made.runs) == ("waiting", [])
    assert "_SUCCESS" in made.reason


def document(start_from: str | None) -> DagDocument:
    fields = {"start_from": start_from} if start_from else {}
    return DagDocument(
        dag_id="d",
        tasks=[TaskDocument("checkpoint", "CheckpointOperator", role="checkpoint", template_fields=fields)],
        chain=ChainDocument("flights", "main", "b", ""),
    )


@pytest.mark.parametrize(
    ("start_from", "begins"),
    [
        ("flights/main/main", day(2)),  # another branch of the stage: over the same samples
        ("other/main/main", None),
        ("{{ params.start }}", None),
        ("nowhere/main/main", None),
        (None, None),
    ],
)
def test_a_fork_begins_where_it_was_forked_off(tmp_path: Path, start_from: str | None, begins: datetime | None) -> None:
    store = LocalStore(tmp_path / "store")
    ChainWriter(store, tmp_path / "scratch").commit(days=2)
    ChainWriter(store, tmp_path / "scratch", ChainKey("other")).commit(days=2)
    branch = ChainWriter(store, tmp_path / "scratch", ChainKey("flights", "main", "b"))

    assert begins_at(document(start_from), branch.ledger) == begins


def test_a_chain_with_a_head_goes_on_from_it(tmp_path: Path) -> None:
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    writer.commit(days=2)

    assert begins_at(document("other/main/main"), writer.ledger) == day(2)
