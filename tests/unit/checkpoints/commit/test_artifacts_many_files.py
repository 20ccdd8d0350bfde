"""A checkpoint of many files takes no longer than its disk does, and one on a full disk no more of it."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

from trainflow.checkpoints import file_progress, transfers, verified_artifacts
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit import artifacts
from trainflow.checkpoints.commit.artifacts import output_folder, seal
from trainflow.checkpoints.verified_artifacts import fetch, verify
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store
from trainflow.testing.chains import ChainWriter, attempt_id

CHAIN = ChainKey("flights")


def forty_files(root: Path) -> tuple[Store, Path]:
    """A store, and the output of an attempt with forty small files in it."""
    store = open_store("store", root=root)
    folder = output_folder(store, CHAIN, attempt_id(1), root / "scratch")
    for number in range(40):
        (folder / f"{number:02}").write_text(str(number))
    return store, folder


def test_many_files_are_made_durable_side_by_side_and_listed_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder = forty_files(tmp_path)
    others = threading.Barrier(2, timeout=30)

    def met(path: Path) -> None:
        if path.name in ("00", "01"):
            others.wait()

    monkeypatch.setattr("trainflow.checkpoints.commit.artifacts.fsync_file", met)

    sealed = seal(store, CHAIN, attempt_id(1), folder)
    assert [file.path for file in sealed.files] == [f"{number:02}" for number in range(40)]


def test_file_that_cannot_be_copied_on_a_full_disk_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("store", root=tmp_path)
    folder = output_folder(store, CHAIN, attempt_id(1), tmp_path / "scratch")
    (folder / "model").write_text("weights")

    def full(_source: Path, target: Path) -> None:
        target.write_text("wei")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("trainflow.checkpoints.commit.artifacts.clone", lambda _source, _target: False)
    monkeypatch.setattr(shutil, "copyfile", full)

    sealed = seal(store, CHAIN, attempt_id(1), folder)
    assert [(file.path, file.size) for file in sealed.files] == [("model", 7)]
    assert store.read(f"{sealed.path}/model") == b"weights"
    assert not list(folder.iterdir())


def test_clone_is_not_tried_for_each_file_of_a_disk_that_knows_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder = forty_files(tmp_path)
    tried: list[str] = []

    def refused(source: Path, _target: Path) -> bool:
        tried.append(source.name)
        return False

    monkeypatch.setattr("trainflow.checkpoints.commit.artifacts.clone", refused)

    sealed = seal(store, CHAIN, attempt_id(1), folder)
    assert len(sealed.files) == 40
    assert tried == [f"{number:02}" for number in range(8)]


@pytest.mark.parametrize("url", ["store", "memory://many-files"])
def test_files_of_a_checkpoint_say_how_far_they_are_on_every_way(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_progress, "TOLD_FILES", 10)
    monkeypatch.setattr(verified_artifacts, "TOLD_FILES", 10)
    store = open_store(url, root=tmp_path)
    chain = ChainWriter(store, tmp_path / "scratch")
    told: list[str | None] = []
    file_progress.tell_files(told.append)
    try:
        made = chain.commit(files={f"{number:02}": b"1" for number in range(21)})
        verify(store, made.artifacts)
        fetch(store, made, tmp_path / "copies")
        fetch(store, made, tmp_path / "copies")
    finally:
        file_progress.tell_files(None)
        store.delete_folder("")

    sealed = ["uploading the files"] if url != "store" else ["taking over the files", "making the files durable"]
    ways = [*sealed, "verifying the files", "fetching the files", "verifying the copies of the files"]
    assert {f"{way}: 20 of 21 files" for way in ways} <= set(told)
    assert told[-1] is None


def test_more_files_than_are_copied_are_moved_but_for_those_with_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "COPIED_FILES", 2)
    monkeypatch.setattr(artifacts, "clone", lambda _source, _target: False)
    store = open_store("store", root=tmp_path)
    folder = output_folder(store, CHAIN, attempt_id(1), tmp_path / "scratch")
    for number in range(5):
        (folder / f"{number}").write_text("weights")
    os.link(folder / "3", tmp_path / "by another name")

    sealed = seal(store, CHAIN, attempt_id(1), folder)
    assert sorted(os.listdir(folder)) == ["0", "1", "3"]
    (tmp_path / "by another name").write_text("changed")
    assert verify(store, sealed) == []


def test_checkpoint_of_many_files_is_used_where_it_is_and_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified_artifacts, "FEW_FILES", 2)
    store = open_store("store", root=tmp_path)
    chain = ChainWriter(store, tmp_path / "scratch")
    made = chain.commit(files={f"{number}": b"1" for number in range(3)})

    assert fetch(store, made, tmp_path / "copies") == store.local_path(made.artifacts.path)
    monkeypatch.setattr(transfers, "digest_of", lambda _chunks: pytest.fail("a file is read"))
    monkeypatch.setattr(verified_artifacts, "digest_of", lambda _chunks: pytest.fail("a file is read"))
    fetch(store, made, tmp_path / "copies")
