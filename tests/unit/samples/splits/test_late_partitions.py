from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import pytest

from trainflow.errors import SampleDamaged, SampleUnreadable
from trainflow.samples.spec import Checks, SplitLimits
from trainflow.samples.splits.late_partitions import arrived, merged, next_repair
from trainflow.samples.splits.split_content import Hole, SplitPartition
from trainflow.samples.table.inventory import Inventory, list_partitions, open_inventory
from trainflow.storage.urls import open_storage

DAY = timedelta(days=1)


def hole(table, first: int, end: int, reason: str = "missing") -> Hole:
    return Hole(table.start(first), table.start(end), reason)


@pytest.mark.parametrize(
    ("there", "limits", "expected"),
    [
        ([], {}, None),
        ([1], {}, None),  # was never stepped over
        ([2], {}, [2]),
        ([3, 4], {}, [3, 4]),
        ([2, 4], {}, [2]),
        ([2, 3, 4, 5], {}, [2, 3, 4]),
        ([2, 3, 4], {"partitions": 2}, [2, 3]),
        ([2, 3, 4], {"rows": 15}, [2]),
        ([8, 9], {}, [8, 9]),  # neighbours, stepped over for two reasons
    ],
)
def test_repair_takes_first_arrived_stretch(daily, now, there, limits, expected) -> None:
    daily.write(*there)
    holes = [hole(daily, 8, 9), hole(daily, 2, 5), hole(daily, 9, 10, "not ready: it has no _SUCCESS")]
    seen = open_inventory(daily.samples, daily.root, now)
    found = next_repair(daily.samples, holes, SplitLimits(**limits), seen)
    assert (found and [partition.start for partition in found.partitions]) == (
        expected and [daily.start(number) for number in expected]
    )
    if found:
        assert (found.start, found.end, found.holes) == (daily.start(expected[0]), daily.start(expected[-1] + 1), ())


def test_repair_refused_by_check_stays_hole(daily, now) -> None:
    daily.write(2, 4, rows=1)
    daily.write(3, 5, rows=10)
    samples = msgspec.structs.replace(daily.samples, checks=Checks(min_rows=5))
    found = next_repair(samples, [hole(daily, 2, 6)], SplitLimits(), open_inventory(samples, daily.root, now))
    assert found is not None
    assert (found.start, found.end) == (daily.start(3), daily.start(4))


def test_repair_of_empty_partition_waits_for_rows(daily, now) -> None:
    daily.write(2, 4, 5, at=now - DAY)
    for number in (2, 5):
        (daily.folder(number) / "a.parquet").unlink()
    found = next_repair(
        daily.samples, [hole(daily, 2, 6)], SplitLimits(), open_inventory(daily.samples, daily.root, now)
    )
    assert found is not None
    assert [partition.start for partition in found.partitions] == [daily.start(4)]
    left = [hole(daily, 2, 4), hole(daily, 5, 6)]
    assert next_repair(daily.samples, left, SplitLimits(), open_inventory(daily.samples, daily.root, now)) is None
    lines = list_partitions(daily.samples, daily.start(2), daily.start(6), daily.root, now, left)
    assert [line.state for line in lines] == ["hole", "hole", "ready", "hole"]


def test_repair_that_could_not_read_says_so_unless_another_has_arrived(daily, now) -> None:
    daily.write(2, 4)
    holes = [hole(daily, 2, 5)]
    found = next_repair(daily.samples, holes, SplitLimits(), Unreadable(daily, now, 2))
    assert found is not None
    assert found.start == daily.start(4)
    with pytest.raises(SampleUnreadable, match="no answer"):
        next_repair(daily.samples, holes, SplitLimits(), Unreadable(daily, now, 2, 4))
    damaged = SampleDamaged("cut", problem="cut")
    assert next_repair(daily.samples, holes, SplitLimits(), Unreadable(daily, now, 2, 4, error=damaged)) is None


class Unreadable(Inventory):
    """A table of which some partitions cannot be read."""

    def __init__(self, table, now, *days: int, error: SampleUnreadable | None = None) -> None:
        super().__init__(table.samples, open_storage(table.samples.path, {}, table.root), now)
        self._starts = {table.start(each) for each in days}
        self._error = error or SampleUnreadable("no answer")

    def content(self, start: datetime) -> SplitPartition:
        if start in self._starts:
            raise self._error
        return super().content(start)


def test_partition_that_reaches_out_of_hole_is_left_alone(daily, now) -> None:
    daily.write(2)
    half = Hole(daily.start(2), daily.start(2) + DAY / 2, "missing")
    assert list(arrived(daily.samples, [half], open_inventory(daily.samples, daily.root, now))) == []


def test_neighbours_are_one(daily) -> None:
    holes = [hole(daily, 5, 6), hole(daily, 1, 3), hole(daily, 3, 4, "late")]
    assert merged(holes) == [hole(daily, 1, 4), hole(daily, 5, 6)]
