"""A store that fails at any call, a process killed at any step: no half checkpoint, no lost head, nothing twice."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.commit.commit import STEPS, commit
from trainflow.checkpoints.commit.commit_decision import CommitRequest
from trainflow.checkpoints.ledger import snapshots
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.errors import StoreFailure
from trainflow.samples.spec import Samples
from trainflow.storage.errors import failure
from trainflow.storage.local import LocalStore
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store
from trainflow.testing.chains import START, ChainWriter, day
from trainflow.testing.faulty_store import FaultyStore

SAMPLES = Samples(path="{start:%Y%m%d}/", length_seconds=86_400, start=START)
MOST_CALLS = 16


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "local":
        yield LocalStore(tmp_path / "store")
        return
    store = open_store(f"memory://{uuid.uuid4().hex}")
    yield store
    store.delete_folder("")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("earlier", [2, snapshots.SNAPSHOT_INTERVAL - 1], ids=["plain", "with a snapshot"])
def test_store_that_fails_at_any_call_of_commit(store: Store, tmp_path: Path, earlier: int, when: str) -> None:
    writer = ChainWriter(store, tmp_path / "scratch")
    writer.commit_many(earlier)
    failed: list[str] = []
    for fail_at in range(1, MOST_CALLS):
        parent = Ledger(store, writer.chain).checkpoint()
        request = writer.request(parent=parent)
        faulty = FaultyStore(store, fail_at=fail_at, when=when)  # type: ignore[arg-type]
        try:
            made = commit(faulty, request, day(8))
            assert Ledger(store, writer.chain).checkpoint() == made
        except StoreFailure:
            failed.append(faulty.calls[fail_at - 1])
            assert Ledger(store, writer.chain).checkpoint().id in (parent.id, request.checkpoint_id)

        made = commit(store, request, day(9))

        assert made.parent_id == parent.id
        assert Ledger(store, writer.chain).checkpoint() == made
    report = audit(Ledger(store, writer.chain), SAMPLES)
    assert report.problems == []
    assert report.partitions == report.head_number == earlier + MOST_CALLS - 1
    # a lost reply to the creation is no failure at all; a refused one is
    assert ("create_exclusive" in failed) is (when == "before")
    assert "read_many" in failed


class FullAtTheEntry(FaultyStore):
    """A disk that is full when the entry is created."""

    def create_exclusive(self, path: str, data: bytes) -> None:
        raise failure("create", self.uri(path), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def test_full_disk_is_named_and_chain_goes_on_when_there_is_room(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    writer = ChainWriter(store, tmp_path / "scratch")
    parent = commit(store, writer.request(), day(2))
    request = writer.request(parent=parent)
    full = FullAtTheEntry(store)

    with pytest.raises(
        StoreFailure, match=r"cannot be created: .*No space left.*the store is full: free space"
    ) as caught:
        commit(full, request, day(3))

    assert caught.value.location == store.uri(writer.chain.entry(2))
    assert Ledger(store, writer.chain).checkpoint() == parent
    assert commit(store, request, day(4)).sequence == 2


@pytest.mark.slow
@pytest.mark.parametrize("last", [*(name for name, _ in STEPS), "before link", "after link"])
def test_process_killed_at_any_step_commits_once(
    tmp_path: Path, commit_and_die: Callable[[LocalStore, CommitRequest, str], None], last: str
) -> None:
    store = LocalStore(tmp_path / "store")
    writer = ChainWriter(store, tmp_path / "scratch")
    parent = writer.commit()
    request: CommitRequest = writer.request(parent=parent)

    commit_and_die(store, request, last)

    committed = last in ("append", "seal", "promote", "after link")
    assert Ledger(store, writer.chain).state().sequence == (2 if committed else 1)
    made = commit(store, request, day(6))
    assert (made.sequence, made.at) == (2, day(5) if committed else day(6))
    assert commit(store, writer.request(parent=parent, run_id=request.by.run_id), day(7)) == made
    report = audit(Ledger(store, writer.chain), SAMPLES)
    assert (report.problems, report.partitions, report.notices) == ([], 2, [])
