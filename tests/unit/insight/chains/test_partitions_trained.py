from __future__ import annotations

from pathlib import Path

import pytest

from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.insight.chains.partitions import holes_of, line_of, trained_by
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, day

BY = Author(hostname="test")


@pytest.fixture
def writer(tmp_path: Path) -> ChainWriter:
    """Days [0, 2), then [2, 4) with day 2 a hole, then day 4."""
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    writer.commit(days=2)
    writer.commit(days=2, skip=[0])
    writer.commit()
    return writer


def test_trained_partition_names_its_checkpoint(writer: ChainWriter) -> None:
    line = line_of(writer.ledger.entries())

    assert {start: found.number for start, found in trained_by(line).items()} == {
        day(0): 1,
        day(1): 1,
        day(3): 2,
        day(4): 3,
    }
    assert [(hole.start, hole.end) for hole in holes_of(line)] == [(day(2), day(3))]


def test_trained_rewound_partition_is_not_listed(writer: ChainWriter) -> None:
    first, _, head = line_of(writer.ledger.entries())
    rewind(writer.ledger, first.id, expected_head=head.id, by=BY, now=day(9))

    line = line_of(writer.ledger.entries())

    assert [each.id for each in line] == [first.id]
    assert holes_of(line) == []


def test_rewound_to_beginning(writer: ChainWriter) -> None:
    head = writer.ledger.checkpoint()
    rewind(writer.ledger, None, expected_head=head.id, by=BY, now=day(9))

    assert line_of(writer.ledger.entries()) == []


def test_trained_pruned_checkpoint_is_listed(writer: ChainWriter) -> None:
    prune(writer.ledger, [KeepLatest(1)], by=BY, now=day(9))

    assert len(trained_by(line_of(writer.ledger.entries()))) == 4
