from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trainflow.errors import InputError
from trainflow.insight.chains.chain_status import ReadyPartitions, ready_after
from trainflow.insight.chains.partitions import PartitionLine, partition_at, ranges
from trainflow.samples.spec import Samples
from trainflow.samples.table.inventory import open_inventory
from trainflow.testing.chains import day

NOW = datetime(2099, 1, 1, tzinfo=UTC)
HOURS = Samples(path="t/{start:%Y%m%d%H}/", length_seconds=3600, start=day(0), end=day(1))


def line(number: int, state: str, reason: str = "") -> PartitionLine:
    return PartitionLine(day(number), day(number + 1), state, reason, 1, 10)


def test_neighbours_of_one_state_and_reason_are_one_range() -> None:
    lines = [line(0, "trained"), line(1, "trained"), line(2, "not_ready", "a"), line(3, "not_ready", "b")]

    found = [(each.start, each.end, each.partitions, each.bytes) for each in ranges(lines)]

    assert found == [(day(0), day(2), 2, 20), (day(2), day(3), 1, 10), (day(3), day(4), 1, 10)]


def test_partition_is_named_by_its_start() -> None:
    assert partition_at(HOURS, "2013-01-01T05:00") == day(0) + timedelta(hours=5)
    with pytest.raises(InputError, match="inside of 2013-01-01T05:00Z"):
        partition_at(HOURS, "2013-01-01T05:30")
    with pytest.raises(InputError, match="there is no partition 2013-01-02T00:00Z"):
        partition_at(HOURS, "2013-01-02")


@pytest.mark.parametrize(
    ("most", "found"), [(100, (3, False, 4)), (4, (3, False, 4)), (3, (2, True, 4)), (1, (1, True, 4))]
)
def test_so_many_beyond_head_are_counted(tmp_path: Path, most: int, found: tuple[int, bool, int]) -> None:
    """Days 1, 2, 4 are ready, 3 is being written; day 0 is trained."""
    samples = Samples(path="t/{start:%Y%m%d}/", length_seconds=86_400, start=day(0), end=day(5))
    for number in range(5):
        folder = tmp_path / f"t/{day(number):%Y%m%d}"
        folder.mkdir(parents=True)
        (folder / "part.parquet").touch()
        if number != 3:
            (folder / "_SUCCESS").touch()

    ready, more, days = found
    beyond = ready_after(samples, day(1), open_inventory(samples, tmp_path, NOW), most)
    assert beyond == ReadyPartitions(ready, more, days * 86_400.0)


def test_empty_partitions_at_the_end_are_not_behind(tmp_path: Path) -> None:
    """Nothing trains them before something comes after them."""
    samples = Samples(path="t/{start:%Y%m%d}/", length_seconds=86_400, start=day(0), end=day(5))
    for number, name in ((0, ""), (1, "part.parquet"), (2, ""), (3, "")):
        folder = tmp_path / f"t/{day(number):%Y%m%d}"
        folder.mkdir(parents=True)
        for each in filter(None, (name, "_SUCCESS")):
            (folder / each).touch()
            os.utime(folder / each, (0, 0))

    inventory = open_inventory(samples, tmp_path, NOW)
    assert ready_after(samples, day(0), inventory).ready == 2
    assert ready_after(samples, day(2), inventory).ready == 0
