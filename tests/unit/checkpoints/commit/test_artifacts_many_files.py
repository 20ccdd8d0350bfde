"""A checkpoint of many files takes no longer than its disk does, and one on a full disk no more of it."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.artifacts import output_folder, seal
from trainflow.storage.urls import open_store
from trainflow.testing.chains import attempt_id

CHAIN = ChainKey("flights")


def test_many_files_are_made_durable_side_by_side_and_listed_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store("store", root=tmp_path)
    folder = output_folder(store, CHAIN, attempt_id(1), tmp_path / "scratch")
    for number in range(40):
        (folder / f"{number:02}").write_text(str(number))
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
