"""A disk that is full at any step: no half checkpoint, and the same work done again comes to its end."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.faults.chain_work import Work, assert_done, assert_sound
from trainflow.errors import StoreFailure
from trainflow.storage.local import LocalStore


class FullDisk:
    """From the n-th call on that needs room, there is none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, calls: int | None) -> None:
        self.left = calls
        self.made = 0
        for owner, name in ((os, "link"), (os, "fsync"), (Path, "mkdir"), (Path, "replace")):
            self._limit(monkeypatch, owner, name)

    def _limit(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def limited(*args: Any, **kwargs: Any) -> Any:
            self.made += 1
            if self.left is not None and self.made > self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, limited)


def room_needed(tmp_path: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        disk = FullDisk(patch, None)
        Work(LocalStore(tmp_path / "rehearsal/store"), tmp_path / "rehearsal").do()
    return disk.made


def test_disk_that_is_full_at_any_step(tmp_path: Path) -> None:
    steps = room_needed(tmp_path)
    assert steps > 60
    said: list[str] = []
    for left in range(0, steps, 2):
        folder = tmp_path / str(left)
        store = LocalStore(folder / "store")
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, left)
            # one that is met after the last entry is written, while a snapshot is saved, is no error
            try:
                Work(store, folder).do()
            except StoreFailure as error:
                said.append(str(error))
        assert_sound(store)

        Work(store, folder).do()

        assert_done(store)
        assert store.temporary("") == []
    assert len(said) >= steps // 2 - 2
    assert all("No space left" in each and "the store is full: free space" in each for each in said)
