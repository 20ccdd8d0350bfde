"""The partitions of a chain as ranges: what they say, and what they cost."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.gates import Gate
from trainflow.checkpoints.ledger.entries import Author, CheckpointRef, Fork, HoleRecord
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState, LineFill, LineHole
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.errors import ChainStopped
from trainflow.insight.chains import partition_states
from trainflow.insight.chains.partition_states import (
    Layer,
    PartitionStatus,
    Seen,
    checkpoint_borders,
    ledger_stretches,
    looked_at,
    painted,
    partition_ranges,
)
from trainflow.samples.spec import Ready, Republished, Samples
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import START, ChainWriter, day, split_of

NOW = day(30)
PERSON = Author(person="ada")
DAYS = Samples(path="data/{start:%Y%m%d}/", length_seconds=86_400, start=START, ready=Ready(min_files=1))


@pytest.fixture
def writer(tmp_path: Path) -> ChainWriter:
    return ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch", ChainKey("days"))


def ledger_of(writer: ChainWriter) -> Ledger:
    return Ledger(writer.store, writer.chain)


def test_partition_ranges_of_a_chain_without_checkpoints_are_none(writer: ChainWriter) -> None:
    found = partition_ranges(ledger_of(writer), DAYS, NOW)
    assert (found.ranges, found.marks, found.count, found.head) == ([], [], 31, 0)


def test_partition_ranges_of_a_line_with_a_hole_and_a_rewind_show_each(writer: ChainWriter) -> None:
    writer.commit(split=split_of(0, 4, [2]))
    kept = writer.commit(split=split_of(4, 2))
    undone = writer.commit(split=split_of(6, 3))
    rewind(ledger_of(writer), kept.id, expected_head=undone.id, by=PERSON, now=NOW)
    found = partition_ranges(ledger_of(writer), DAYS, NOW)
    assert found.ranges == [(0, 2, "trained"), (2, 1, "hole"), (3, 3, "trained"), (6, 3, "undone")]
    assert [(mark.place, mark.what, mark.checkpoint) for mark in found.marks] == [(5, "head", 2)]


def test_partition_ranges_with_what_was_seen_cover_what_the_ledger_says(writer: ChainWriter) -> None:
    writer.commit(split=split_of(0, 4))
    seen = Seen([(day(1), day(2), PartitionStatus.REPUBLISHED), (day(4), day(6), PartitionStatus.TRAINING)])
    found = partition_ranges(ledger_of(writer), DAYS, NOW, seen)
    assert found.ranges == [(0, 1, "trained"), (1, 1, "republished"), (2, 2, "trained"), (4, 2, "training")]


def test_partition_ranges_with_samples_seen_say_what_became_of_them(writer: ChainWriter) -> None:
    """That they are there is known of what was refused, and of what was undone, too: what became of it is news."""
    kept = writer.commit(split=split_of(0, 4))
    writer.commit(split=split_of(4, 3))
    ledger = ledger_of(writer)
    rewind(ledger, kept.id, expected_head=ledger.checkpoint().id, by=PERSON, now=NOW)
    with pytest.raises(ChainStopped):
        writer.commit(split=split_of(4, 2), metrics={"loss": 2.0}, gates=(Gate("loss <= 1"),))
    seen = [(day(4), day(10), PartitionStatus.ABSENT), (day(4), day(9), PartitionStatus.READY)]
    expected = [(0, 4, "trained"), (4, 2, "refused"), (6, 1, "undone"), (7, 2, "ready"), (9, 1, "absent")]
    assert partition_ranges(ledger_of(writer), DAYS, NOW, Seen(seen)).ranges == expected

    again = [*seen, (day(4), day(6), PartitionStatus.TRAINING)]
    expected[1] = (4, 2, "training")
    assert partition_ranges(ledger_of(writer), DAYS, NOW, Seen(again)).ranges == expected


def test_checkpoint_borders_of_a_stretch_are_those_that_end_in_it(writer: ChainWriter) -> None:
    for first in range(0, 10, 2):
        writer.commit(split=split_of(first, 2))
    found = checkpoint_borders(ledger_of(writer), DAYS, 3, 8)
    assert [(each.place, each.number) for each in found] == [(3, 2), (5, 3), (7, 4)]


def test_looked_at_shows_what_is_beyond_the_end_and_what_has_arrived(writer: ChainWriter, tmp_path: Path) -> None:
    writer.commit(split=split_of(0, 4, [2]))
    samples = msgspec.structs.replace(DAYS, republished=Republished(policy="ignore"), ready=Ready(marker="_SUCCESS"))
    for number, names in ((2, ("a.parquet", "_SUCCESS")), (4, ("a.parquet",)), (6, ("a.parquet", "_SUCCESS"))):
        folder = tmp_path / f"data/{day(number):%Y%m%d}"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes(b"x")
    ledger = ledger_of(writer)
    found = partition_ranges(ledger, samples, NOW, Seen(looked_at(ledger, samples, tmp_path, NOW)))
    beyond = [(4, 1, "arriving"), (5, 1, "absent"), (6, 1, "ready")]
    assert found.ranges == [(0, 2, "trained"), (2, 1, "late"), (3, 1, "trained"), *beyond]


def test_ledger_stretches_of_a_branch_say_what_it_went_on_from() -> None:
    fork = Fork(
        sequence=1, previous="", at=NOW, by=PERSON, origin=CheckpointRef(ChainKey("days"), "x"), watermark=day(5)
    )
    assert list(ledger_stretches(ChainState(start=fork), DAYS)) == [(START, day(5), PartitionStatus.INHERITED)]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12), st.sampled_from("abc")), max_size=12))
def test_painted_layers_equal_cells_painted_one_by_one(drawn: list[tuple[int, int, str]]) -> None:
    layers = [Layer(first, first + length, state) for first, length, state in drawn]
    cells: dict[int, str] = {}
    for layer in layers:
        cells |= dict.fromkeys(range(layer.first, layer.end), layer.state)
    found = list(painted(layers))
    assert {place: state for first, length, state in found for place in range(first, first + length)} == cells
    assert all(one[0] + one[1] < other[0] or one[2] != other[2] for one, other in itertools.pairwise(found))


def test_partition_ranges_of_200_000_partitions_are_small_and_list_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = timedelta(hours=1)
    hours = msgspec.structs.replace(DAYS, length_seconds=3600)
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch", ChainKey("hours"))
    writer.commit(split=split_of(0, 8334))
    ledger = ledger_of(writer)
    holes = [
        LineHole(1, HoleRecord(START + n * 499 * hour, START + (n * 499 + 3) * hour, "missing")) for n in range(400)
    ]
    left_out = [LineFill(1, each.hole.start, each.hole.end) for each in holes[::4]]
    ledger._known = msgspec.structs.replace(ledger.state(), recorded=holes, left_out=left_out)
    again = [START + (n * 1300 + 50) * hour for n in range(150)]
    seen = Seen([(each, each + hour, PartitionStatus.REPUBLISHED) for each in again])
    monkeypatch.setattr(partition_states, "open_inventory", None)
    found = partition_ranges(ledger, hours, START + 200_016 * hour, seen)
    assert sum(length for _, length, _ in found.ranges) == 8334 * 24
    assert len(found.ranges) > 1000
    assert len(msgspec.json.encode(found)) <= 50_000
