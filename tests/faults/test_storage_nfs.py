"""Checkpoints on a disk in the network: answers are lost, handles stale, listings old. One wins, and knows it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest

from tests.support.nfs_disk import NFSDisk
from trainflow.checkpoints.audit.audit import audit
from trainflow.errors import StoreFailure
from trainflow.storage import atomic_files
from trainflow.storage.exclusive_creation import created
from trainflow.storage.local import LocalStore
from trainflow.storage.store import Store
from trainflow.testing.chains import ChainWriter
from trainflow.testing.store_contract import StoreContract

T = TypeVar("T")
_TRIES = 60


def until_answered(call: Callable[[], T]) -> T:
    """What `call` returns, asked again as a task is tried again."""
    for _ in range(_TRIES):
        try:
            return call()
        except StoreFailure:
            continue
    raise AssertionError("no answer")


@pytest.mark.parametrize("seed", range(40))
def test_of_creators_on_disk_in_network_one_wins_and_each_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random = Random(seed)
    NFSDisk(random, lost=0.3, broken=0.2, stale=0.2, remembered=0.3).install(monkeypatch)
    for number in range(10):
        path, contents = f"ledger/{number}.json", [b"%d" % each * 1000 for each in range(3)]
        random.shuffle(contents)
        stores = {content: LocalStore(tmp_path) for content in contents}
        won = {content: until_answered(lambda: created(stores[content], path, content)) for content in contents}  # noqa: B023
        assert [content for content in contents if won[content]] == [(tmp_path / path).read_bytes()]
    assert all(atomic_files.is_temporary(name) or name.endswith(".json") for name in os.listdir(tmp_path / "ledger"))


@pytest.mark.parametrize("seed", range(6))
def test_chain_on_disk_in_network_has_each_commit_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    NFSDisk(Random(seed), lost=0.1, broken=0.05, stale=0.1, remembered=0.2).install(monkeypatch)
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    made = [until_answered(writer.commit) for _ in range(8)]
    monkeypatch.undo()

    again = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    line = again.ledger.line()
    report = audit(again.ledger, None)
    assert (report.problems, report.gaps, report.duplicates) == ([], [], [])
    assert {each.id for each in made} <= {each.id for each in line}
    watermarks = [each.watermark for each in line]
    assert watermarks == sorted(set(watermarks))


class TestLocalStoreInTheNetwork(StoreContract):
    """What is asked again is answered with what the first try has done, and handles become stale: none of it shows."""

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        NFSDisk(Random(3), lost=0.3, stale=0.3).install(monkeypatch)
        return LocalStore(tmp_path / "checkpoints")


def test_creation_whose_answer_is_lost_is_known_by_its_inode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    with monkeypatch.context() as patch:
        NFSDisk(Random(0), lost=1.0).install(patch)
        patch.setattr(atomic_files, "open", open, raising=False)  # an exclusive open that is always lost ends nothing
        store.create_exclusive("1.json", b"mine")
        with pytest.raises(FileExistsError):
            store.create_exclusive("1.json", b"mine")
    assert store.read("1.json") == b"mine"


def test_temporary_name_that_is_always_taken_is_failure_of_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    NFSDisk(Random(0), lost=1.0).install(monkeypatch)
    with pytest.raises(StoreFailure, match="each new name is said to be taken"):
        LocalStore(tmp_path).create_exclusive("1.json", b"mine")


def test_file_that_a_process_has_open_is_deleted_as_far_as_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    store.create_exclusive("a/b/1", b"")
    deleted = tmp_path / "a" / "b" / ".nfs0000000000c0ffee00000001"
    deleted.touch()
    assert [file.path for file in store.files("a")] == ["a/b/1"]
    assert [file.path for file in store.listing("a", recursive=True) or ()] == ["b/1"]
    assert store.temporary("") == []
    assert store.names("a/b") == ["1"]

    real = os.unlink

    def busy(path: str, **words: object) -> None:
        if not str(path).endswith(deleted.name):
            real(path, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "unlink", busy)
    store.delete_folder("a")
    assert store.files("") == []
    assert deleted.exists()
