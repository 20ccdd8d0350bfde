from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from trainflow.errors import SampleUnreadable
from trainflow.samples.grid import Grid
from trainflow.samples.splits.split import Split
from trainflow.samples.splits.split_content import Hole, SampleFile, partition_of
from trainflow.samples.splits.split_xcom import (
    INLINE_BYTES,
    SplitOfOtherVersion,
    grid_of_xcom,
    is_repair,
    seconds_since,
    split_from_xcom,
    split_to_xcom,
    with_context,
)
from trainflow.samples.throughput import Lag

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def split_of(days: int, rows: int | None = 10) -> Split:
    def day(number: int):
        start = START + (number + 1) * DAY
        groups = () if rows is None else (4, rows - 4)
        facts = (99, rows, "sha256:" + "0" * 64, groups)
        files = tuple(SampleFile(f"t/{start:%F}/{name}", *facts, hint=f"etag {name}") for name in "ab")
        return partition_of(start, start + DAY, files, fingerprint=f"sha256:{number}", hint=f"{number:x}")

    partitions = tuple(day(number) for number in range(days))
    return Split(START, partitions[-1].end, 86400, partitions, (Hole(START, START + DAY, "missing"),))


def test_small_splits_go_inline(tmp_path: Path) -> None:
    value = json.loads(json.dumps(split_to_xcom(split_of(3), spill_url=str(tmp_path))))
    assert "uri" not in value
    assert (value["partitions"], value["rows"], value["files"], value["holes"]) == (3, 60, 6, 1)
    assert split_from_xcom(value) == split_of(3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rows", [10, None])
@pytest.mark.parametrize("where", ["spill", "memory://spill/x"])
def test_large_splits_go_by_reference(tmp_path: Path, rows: int | None, where: str) -> None:
    split = split_of(1000, rows)
    value = json.loads(json.dumps(split_to_xcom(split, spill_url=where, root=tmp_path)))
    assert len(json.dumps(value)) < 1000
    assert value["uri"].endswith(f"{value['document'].removeprefix('sha256:')}.parquet")
    assert split_from_xcom(value, root=tmp_path) == split
    assert split_to_xcom(split, spill_url=where, root=tmp_path) == value


def test_large_split_keeps_its_empty_partitions(tmp_path: Path) -> None:
    split = split_of(1000)
    empty = [partition_of(each.start, each.end, ()) for each in split.partitions]
    kept = tuple(empty[number] if number in (0, 1, 500, 999) else each for number, each in enumerate(split.partitions))
    split = msgspec.structs.replace(split, partitions=kept)
    value = split_to_xcom(split, spill_url=str(tmp_path))
    assert "uri" in value
    assert split_from_xcom(value) == split


def test_limit_is_on_whole_value(tmp_path: Path) -> None:
    inline = [len(json.dumps(split_to_xcom(split_of(days), spill_url=str(tmp_path)))) for days in range(1, 200)]
    assert max(inline) <= INLINE_BYTES * 1.2
    assert min(inline[100:]) < 1000


def test_manifest_that_is_not_what_was_handed_over(tmp_path: Path) -> None:
    value = split_to_xcom(split_of(1000), spill_url=str(tmp_path))
    other = split_to_xcom(split_of(999), spill_url=str(tmp_path))
    Path(value["uri"]).write_bytes(Path(other["uri"]).read_bytes())
    with pytest.raises(SampleUnreadable, match="is not what was handed over: expected sha256"):
        split_from_xcom(value)


def test_manifest_that_is_damaged_or_gone(tmp_path: Path) -> None:
    value = split_to_xcom(split_of(1000), spill_url=str(tmp_path))
    Path(value["uri"]).write_bytes(b"PAR1")
    with pytest.raises(SampleUnreadable, match=r"the manifest .* cannot be read"):
        split_from_xcom(value)
    Path(value["uri"]).unlink()
    with pytest.raises(SampleUnreadable, match="No such file"):
        split_from_xcom(value)


def test_inline_split_that_was_changed(tmp_path: Path) -> None:
    value = split_to_xcom(split_of(2), spill_url=str(tmp_path))
    value["split"]["end"] = "2024-01-09T00:00:00Z"
    with pytest.raises(SampleUnreadable, match="the split in the XCom is not what was handed over"):
        split_from_xcom(value)


@pytest.mark.parametrize("days", [2, 1000])
def test_split_with_fields_of_another_version_is_told_from_one_that_was_changed(tmp_path: Path, days: int) -> None:
    class NewerSplit(Split, frozen=True):
        sampled: float = 0.5

    split = split_of(days)
    newer = NewerSplit(**{name: getattr(split, name) for name in Split.__struct_fields__}, sampled=0.25)
    value = split_to_xcom(newer, spill_url=str(tmp_path))

    with pytest.raises(SplitOfOtherVersion, match="by another version of trainflow, and cannot be read"):
        split_from_xcom(value)


def test_handoff_of_no_split_is_refused() -> None:
    with pytest.raises(SampleUnreadable, match="this is no split"):
        split_from_xcom({"caught_up": True})


def test_context_of_split_xcom_reads_back_beside_split() -> None:
    grid = Grid("t/{start:%Y%m%d}/", START, 86400)
    lag = Lag(2, 172800.0)
    value = json.loads(
        json.dumps(with_context(split_to_xcom(split_of(3), spill_url="s"), START, lag, repair=True, grid=grid))
    )

    assert split_from_xcom(value) == split_of(3)
    assert (value["lag_partitions"], value["lag_seconds"]) == (2, 172800.0)
    assert (grid_of_xcom(value), is_repair(value), seconds_since(value, START + DAY)) == (grid, True, 86400.0)


@pytest.mark.parametrize(
    "value", [{}, {"handed_over_at": None}, {"handed_over_at": "soon"}, {"handed_over_at": (START + DAY).isoformat()}]
)
def test_seconds_since_unknown_time_or_later_one_is_none(value: dict[str, object]) -> None:
    assert seconds_since(value, START) is None
    assert (grid_of_xcom(value), is_repair(value)) == (None, False)
