from __future__ import annotations

import threading
from pathlib import Path

import pytest

from trainflow.checkpoints import transfers
from trainflow.checkpoints.transfers import put_files
from trainflow.storage.local import LocalStore

_WAITS_SECONDS = 20


class SlowStore(LocalStore):
    """Takes files; each call waits until there are `at_once` of them. `most`: that were under way at a time."""

    requests_at_once = 16

    def __init__(self, root: Path, at_once: int) -> None:
        super().__init__(root)
        self._together = threading.Barrier(at_once, timeout=_WAITS_SECONDS)
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0
        self.taken: list[str] = []

    def put_file(self, source: Path, path: str) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self._together.wait()
        with self._lock:
            self._now -= 1
            self.taken.append(path)


@pytest.mark.parametrize(("size", "at_once"), [(4, 4), (5, 2)])
def test_put_files_large_ones_go_two_at_a_time_and_small_ones_together(
    size: int, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "SMALL_FILE_BYTES", 4)
    names = [f"{number}.bin" for number in range(4)]
    for name in names:
        (tmp_path / name).write_bytes(bytes(size))
    # with fewer at a time no call would ever end
    store = SlowStore(tmp_path / "store", at_once)

    put_files(store, tmp_path, "there", names)

    assert sorted(store.taken) == [f"there/{name}" for name in names]
    assert store.most == at_once
