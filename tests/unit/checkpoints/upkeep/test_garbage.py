from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.artifacts import output_folder
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.checkpoints.saves.training_identity import training_name
from trainflow.checkpoints.stages.dependents import register_origin
from trainflow.checkpoints.upkeep.garbage import sweep_garbage
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.checkpoints.verified_artifacts import verify
from trainflow.errors import LedgerCorrupt, StoreFailure
from trainflow.identifiers import attempt_time, new_attempt_id
from trainflow.storage.local import LocalStore
from trainflow.storage.store import StoreFile
from trainflow.testing.chains import ChainWriter, attempt_id, day
from trainflow.testing.faulty_store import FaultyStore

NOW = day(100)
LONG_AGO = day(20)


@pytest.fixture
def writer(tmp_path: Path) -> ChainWriter:
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    writer.commit_many(3)
    return writer


def leave_behind(writer: ChainWriter, name: str, modified: datetime = LONG_AGO) -> Path:
    folder = writer.store.local_path(writer.chain.attempt(name))
    assert folder is not None
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"12345")
    os.utime(folder / "model.bin", (modified.timestamp(), modified.timestamp()))
    return folder


def test_dead_attempts_files_are_found_and_only_then_deleted(writer: ChainWriter) -> None:
    folder = leave_behind(writer, attempt_id(10))

    (orphan,) = sweep_garbage(writer.ledger, NOW, dry_run=True)
    assert (orphan.path, orphan.files, orphan.size) == (writer.chain.attempt(attempt_id(10)), 1, 5)
    assert orphan.modified == LONG_AGO
    assert folder.exists()

    assert sweep_garbage(writer.ledger, NOW) == [orphan]
    assert not folder.exists()
    assert len(writer.store.folders(writer.chain.artifacts)) == 3


@pytest.mark.parametrize("reason", ["young file", "young attempt", "alive", "not parseable", "committed", "empty"])
def test_garbage_keeps_what_may_be_needed(writer: ChainWriter, reason: str) -> None:
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
    assert sweep_garbage(writer.ledger, NOW, living=living) == []
    assert writer.store.folders(writer.chain.artifacts) == before


def test_garbage_keeps_artifacts_that_another_attempt_may_commit_and_no_output(writer: ChainWriter) -> None:
    """It had trained, and was lost before all of it was in the store: the next one puts it there under its name."""
    folder = leave_behind(writer, attempt_id(10))
    output = output_folder(writer.store, writer.chain, attempt_id(11), writer.scratch)

    (found,) = sweep_garbage(writer.ledger, NOW, ended={attempt_id(10), attempt_id(11)})

    assert found.path == f"{writer.chain.outputs}/{attempt_id(11)}"
    assert (folder.exists(), output.exists()) == (True, False)


def test_garbage_of_killed_prune_goes_without_grace(writer: ChainWriter) -> None:
    (gone, _) = prune(writer.ledger, [KeepLatest(1)], by=Author(), now=day(5))
    leave_behind(writer, gone, modified=NOW)

    assert [orphan.path for orphan in sweep_garbage(writer.ledger, NOW, dry_run=True)] == [writer.chain.attempt(gone)]


def test_sweep_keeps_files_of_checkpoints_alone_for_chain_that_is_about_to_begin(writer: ChainWriter) -> None:
    (gone, _) = prune(writer.ledger, [KeepLatest(1)], by=Author(), now=day(5))
    folders = {name: leave_behind(writer, name) for name in (gone, attempt_id(10))}
    # it has no entry yet, and may begin with what was pruned meanwhile
    register_origin(writer.store, writer.chain, ChainKey("flights", "mobile"))

    swept = [each.path for each in sweep_garbage(writer.ledger, NOW)]

    assert swept == [writer.chain.attempt(attempt_id(10))]
    assert [name for name, folder in folders.items() if folder.exists()] == [gone]


def test_files_that_writer_had_begun_go_after_grace(writer: ChainWriter) -> None:
    store = writer.store
    left = [
        f"{writer.chain.ledger}/.tmp-04.json-00112233445566ab",
        f"{writer.chain.pages}/.tmp-x.json-00112233445566cd",
    ]
    for path, modified in zip(left, (LONG_AGO, NOW), strict=True):
        store.replace(path.replace(".tmp-", "tmp-"), b"12")
        file = store.local_path(path)
        assert file is not None
        file.with_name(file.name.replace(".tmp-", "tmp-")).rename(file)
        os.utime(file, (modified.timestamp(), modified.timestamp()))
    assert all("tmp" not in file.path for file in store.files(""))

    (found,) = sweep_garbage(writer.ledger, NOW)

    assert (found.kind, found.path, found.size) == ("temporary", left[0], 2)
    assert [file.path for file in store.temporary("")] == [left[1]]
    assert sweep_garbage(writer.ledger, NOW, grace=timedelta(0))[0].path == left[1]


def test_garbage_unused_saves_go_after_grace(writer: ChainWriter) -> None:
    head = writer.ledger.checkpoint().id
    names = [training_name(parent, "x") for parent in (head, attempt_id(1))]
    for name in names:
        path = writer.store.local_path(
            f"{writer.chain.partials}/{name}/{attempt_id(9)}-00000001/manifest.{10:020d}.json"
        )
        assert path is not None
        path.parent.mkdir(parents=True)
        path.write_bytes(b"12")
        os.utime(path, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))

    (found,) = sweep_garbage(writer.ledger, NOW)

    assert (found.kind, found.path, found.size) == ("partial", f"{writer.chain.partials}/{names[1]}", 2)
    assert writer.store.folders(writer.chain.partials) == [names[0]]


def test_attempt_that_commits_while_it_is_swept_keeps_its_files(writer: ChainWriter) -> None:
    parent = writer.ledger.checkpoint()
    late = writer.request(parent=parent)
    for file in writer.store.files(late.artifacts.path):
        path = writer.store.local_path(file.path)
        assert path is not None
        os.utime(path, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))

    class Slow(FaultyStore):
        def temporary(self, folder: str) -> list[StoreFile]:
            commit(writer.store, late, NOW)
            return super().temporary(folder)

    (found,) = sweep_garbage(Ledger(Slow(writer.store), writer.chain), NOW)

    assert found.path == late.artifacts.path
    assert verify(writer.store, writer.ledger.checkpoint().artifacts) == []
    with pytest.raises(ValueError, match="negative"):
        sweep_garbage(writer.ledger, NOW, grace=timedelta(days=-1))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fail_at", range(1, 16))
def test_sweep_killed_anywhere_is_finished_by_next(writer: ChainWriter, fail_at: int, when: Any) -> None:
    (gone, _) = prune(writer.ledger, [KeepLatest(1)], by=Author(), now=day(5))
    leave_behind(writer, gone, modified=NOW)
    leave_behind(writer, attempt_id(10))
    leave_behind(writer, attempt_id(99), modified=NOW)
    temporary = writer.store.local_path(f"{writer.chain.ledger}/.tmp-4.json-00112233445566ab")
    assert temporary is not None
    temporary.write_bytes(b"")
    os.utime(temporary, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))
    faulty = FaultyStore(writer.store, fail_at=fail_at, when=when)
    with suppress(StoreFailure):
        sweep_garbage(Ledger(faulty, writer.chain), NOW)

    sweep_garbage(Ledger(writer.store, writer.chain), NOW)

    kept = writer.ledger.checkpoint().id
    assert writer.store.folders(writer.chain.artifacts) == sorted([kept, attempt_id(99)])
    assert writer.store.temporary("") == []
    assert sweep_garbage(writer.ledger, NOW) == []
    assert audit(writer.ledger, None).ok
    assert len(faulty.calls) <= 15, "raise the range: faults at the last calls are not tried"


def test_ledger_that_cannot_be_read_stops_sweep(writer: ChainWriter) -> None:
    folder = leave_behind(writer, attempt_id(10))
    path = writer.store.local_path(writer.chain.entry(2))
    assert path is not None
    path.write_text("{")

    with pytest.raises(LedgerCorrupt):
        sweep_garbage(writer.ledger, NOW)

    assert folder.exists()


def test_attempt_id_tells_when_it_was_made() -> None:
    moment = datetime(2024, 2, 29, 12, 30, 15, 123000, UTC)

    assert attempt_time(new_attempt_id(moment)) == moment
    assert [attempt_time(name) for name in ("", "latest", "I" * 26, "z" * 26)] == [None] * 4


def spill(writer: ChainWriter, name: str, modified: datetime) -> Path:
    path = writer.store.local_path(f"{writer.chain.splits}/{name}")
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"12")
    os.utime(path, (modified.timestamp(), modified.timestamp()))
    return path


def test_garbage_splits_handed_over_before_head_go(writer: ChainWriter) -> None:
    committed_at = writer.ledger.checkpoint().at
    spent, current, young = (f"split-{digit * 64}.parquet" for digit in "abc")
    path = spill(writer, spent, committed_at - timedelta(days=1))
    spill(writer, current, committed_at + timedelta(seconds=1))
    spill(writer, young, NOW)
    spill(writer, "of-another-attempt.parquet", committed_at - timedelta(days=1))

    (found,) = sweep_garbage(writer.ledger, NOW, dry_run=True)

    assert (found.kind, found.path, found.size) == ("split", f"{writer.chain.splits}/{spent}", 2)
    assert path.exists()
    assert sweep_garbage(writer.ledger, NOW) == [found]
    assert sorted(each.name for each in path.parent.iterdir()) == ["of-another-attempt.parquet", current, young]
    assert sweep_garbage(writer.ledger, committed_at + timedelta(days=2)) == []


def test_garbage_splits_after_rewind_since_new_head_stay(writer: ChainWriter) -> None:
    first, second, third = writer.ledger.line()
    kept = spill(writer, f"split-{'a' * 64}.parquet", second.at + timedelta(hours=1))
    spill(writer, f"split-{'b' * 64}.parquet", first.at + timedelta(hours=1))
    rewind(writer.ledger, second.id, expected_head=third.id, by=Author(), now=day(5))

    assert [each.kind for each in sweep_garbage(writer.ledger, NOW)] == ["split"]
    assert kept.exists()
