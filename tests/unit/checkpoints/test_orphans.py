from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trainflow.checkpoints.artifacts import output_folder
from trainflow.checkpoints.entries import Author
from trainflow.checkpoints.local_store import LocalStore
from trainflow.checkpoints.orphans import attempt_time, sweep_orphans
from trainflow.checkpoints.prune import prune
from trainflow.checkpoints.retention import KeepLatest
from trainflow.errors import LedgerCorrupt
from trainflow.identifiers import new_attempt_id
from trainflow.testing.chains import ChainWriter, attempt_id, day

NOW = day(100)
LONG_AGO = day(20)


@pytest.fixture
def writer(tmp_path: Path) -> ChainWriter:
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    writer.commit_many(3)
    return writer


def leave_behind(writer: ChainWriter, name: str, modified: datetime = LONG_AGO) -> Path:
    folder = output_folder(writer.store, writer.chain, name, writer.scratch)
    (folder / "model.bin").write_bytes(b"12345")
    os.utime(folder / "model.bin", (modified.timestamp(), modified.timestamp()))
    return folder


def test_a_dead_attempts_files_are_found_and_only_then_deleted(writer: ChainWriter) -> None:
    folder = leave_behind(writer, attempt_id(10))

    (orphan,) = sweep_orphans(writer.ledger, NOW)
    assert (orphan.path, orphan.files, orphan.size) == (writer.chain.attempt(attempt_id(10)), 1, 5)
    assert orphan.modified == LONG_AGO
    assert folder.exists()

    assert sweep_orphans(writer.ledger, NOW, dry_run=False) == [orphan]
    assert not folder.exists()
    assert len(writer.store.folders(writer.chain.artifacts)) == 3


@pytest.mark.parametrize("reason", ["young file", "young attempt", "alive", "not parseable", "committed", "empty"])
def test_what_may_still_be_needed_stays(writer: ChainWriter, reason: str) -> None:
    living: set[str] = set()
    match reason:
        case "young file":
            leave_behind(writer, attempt_id(10), modified=NOW - timedelta(days=6))
        case "young attempt":
            leave_behind(writer, attempt_id(99))
        case "alive":
            leave_behind(writer, attempt_id(10))
            living = {attempt_id(10)}
        case "not parseable":
            leave_behind(writer, "keep-this-please")
            leave_behind(writer, attempt_id(10)[:-1] + "u")
        case "committed":
            pass
        case "empty":
            output_folder(writer.store, writer.chain, attempt_id(99), writer.scratch)

    before = writer.store.folders(writer.chain.artifacts)
    assert sweep_orphans(writer.ledger, NOW, living=living, dry_run=False) == []
    assert writer.store.folders(writer.chain.artifacts) == before


def test_what_a_killed_prune_left_goes_without_grace(writer: ChainWriter) -> None:
    (gone, _) = prune(writer.ledger, [KeepLatest(1)], by=Author(), now=day(5))
    leave_behind(writer, gone, modified=NOW)

    assert [orphan.path for orphan in sweep_orphans(writer.ledger, NOW)] == [writer.chain.attempt(gone)]


def test_a_ledger_that_cannot_be_read_stops_the_sweep(writer: ChainWriter) -> None:
    folder = leave_behind(writer, attempt_id(10))
    path = writer.store.local_path(writer.chain.entry(2))
    assert path is not None
    path.write_text("{")

    with pytest.raises(LedgerCorrupt):
        sweep_orphans(writer.ledger, NOW, dry_run=False)

    assert folder.exists()


def test_an_attempt_id_tells_when_it_was_made() -> None:
    moment = datetime(2024, 2, 29, 12, 30, 15, 123000, UTC)

    assert attempt_time(new_attempt_id(moment)) == moment
    assert [attempt_time(name) for name in ("", "latest", "I" * 26, "z" * 26)] == [None] * 4
