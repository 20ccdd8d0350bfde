from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from trainflow.errors import SampleCheckFailed
from trainflow.insight.chains.next_run import NextRun
from trainflow.insight.chains.plan import plan
from trainflow.samples.spec import GapPolicy, Samples, SplitLimits
from trainflow.samples.splits.split_content import Columns, SampleFile, SplitPartition
from trainflow.samples.table.readiness import PartitionState, Readiness
from trainflow.samples.throughput import Throughput
from trainflow.testing.chains import NoColumnUnifier, day

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
        presence = Readiness.READY if start in self._there else Readiness.MISSING
        return PartitionState(start, presence, changed=day(50))

    def later(self, start: datetime) -> Iterator[datetime]:
        return iter(sorted(each for each in self._there if each > start))

    def newest(self, after: datetime, upto: datetime | None = None) -> datetime | None:
        return max((each for each in self._there if each >= after and (upto is None or each <= upto)), default=None)

    def content(self, start: datetime) -> SplitPartition:
        if start in self._bad:
            raise SampleCheckFailed("too few rows", partition=start, problems=("too few rows",))
        file = SampleFile("f.parquet", 100, 10, "sha256:f")
        return SplitPartition(start, start + timedelta(days=1), (file,), 10, 100, "sha256:p")

    def unified(self, chain: Columns) -> NoColumnUnifier:
        return NoColumnUnifier()

    def table_exists(self) -> bool:
        return True


def test_runs_tile_what_is_left() -> None:
    table, pace = Table({*range(10)}), Throughput(None, 2.0)
    made = plan(SAMPLES, SplitLimits(partitions=3), NextRun(day(2)), table, most=100, pace=pace)

    assert [(run.number, run.start, run.end, run.partitions) for run in made.runs] == [
        (1, day(2), day(5), 3),
        (2, day(5), day(8), 3),
        (3, day(8), day(10), 2),
    ]
    assert (made.outcome, made.partitions, made.rows, made.bytes) == ("caught_up", 8, 80, 800)
    assert made.estimated_seconds == 16.0


def test_holes_are_part_of_run_that_steps_over_them() -> None:
    made = plan(SAMPLES, SplitLimits(partitions=3), NextRun(None), Table({0, 3, 4}), most=100, pace=Throughput())

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
def test_plan_begins_after_last_run(table: Table, most: int, outcome: str, runs: int) -> None:
    made = plan(SAMPLES, SplitLimits(partitions=3), NextRun(None), table, most=most, pace=Throughput())

    assert (made.outcome, len(made.runs)) == (outcome, runs)
    assert made.reason
    assert made.estimated_seconds is None or runs == 0


def test_table_that_is_being_written_is_waited_for() -> None:
    class Writing(Table):
        def state(self, start: datetime) -> PartitionState:
            return PartitionState(start, Readiness.NOT_READY, "it has no _SUCCESS")

    made = plan(SAMPLES, None, NextRun(None), Writing({0}), most=5, pace=Throughput())

    assert (made.outcome, made.runs) == ("waiting", [])
    assert "_SUCCESS" in made.reason


def test_split_ends_where_base_has_come_to_and_waits_there() -> None:
    ahead = NextRun(day(1), bounds=(day(3), day(4), day(8)))
    made = plan(SAMPLES, SplitLimits(partitions=3), ahead, Table({*range(10)}), most=100, pace=Throughput())

    assert [run.end for run in made.runs] == [day(3), day(4), day(7), day(8)]
    assert (made.outcome, made.reason) == (
        "caught_up",
        "the upstream has come to 2013-01-09T00:00Z, and there is nothing more to train on before that",
    )


def test_stage_that_has_nothing_to_start_from_waits() -> None:
    made = plan(SAMPLES, None, NextRun(None, waits="waits for stage base"), Table({0}), most=5, pace=Throughput())

    assert (made.outcome, made.runs, made.reason) == ("waiting", [], "waits for stage base")
