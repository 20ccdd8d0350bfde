"""Many questions to a store: several at a time, and never more than it says."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.verified_artifacts import verify_many
from trainflow.concurrent_map import AHEAD, concurrent_map
from trainflow.errors import StoreFailure
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter
from trainflow.testing.faulty_store import FaultyStore

PATIENCE = 30


class Remote(FaultyStore):
    """Each read waits until as many are under way as may be."""

    requests_at_once = 4

    def __init__(self, root: Path) -> None:
        super().__init__(LocalStore(root))
        self.barrier = threading.Barrier(4)
        self.most = self._under_way = 0
        self._lock = threading.Lock()

    def read(self, path: str) -> bytes:
        with self._lock:
            self._under_way += 1
            self.most = max(self.most, self._under_way)
        self.barrier.wait(PATIENCE)
        with self._lock:
            self._under_way -= 1
        return self.inner.read(path)


def test_concurrent_map_runs_as_many_as_store_takes_in_order(tmp_path: Path) -> None:
    store = Remote(tmp_path)
    for number in range(12):
        store.replace(f"{number}", b"%d" % number)

    names = [f"{number}" for number in range(12)]
    assert list(concurrent_map(store.requests_at_once, store.read, names)) == [name.encode() for name in names]
    assert store.most == 4


def test_concurrent_map_without_latency_runs_one_by_one(tmp_path: Path) -> None:
    threads = concurrent_map(LocalStore(tmp_path).requests_at_once, lambda _: threading.current_thread(), range(8))
    assert set(threads) == {threading.current_thread()}


def test_error_comes_where_it_happened_and_ends_it(tmp_path: Path) -> None:
    asked: list[int] = []

    def ask(number: int) -> int:
        asked.append(number)
        if number == 2:
            raise StoreFailure("no", location="2")
        return number

    store = Remote(tmp_path)
    answers = concurrent_map(store.requests_at_once, ask, range(10_000))
    assert [next(answers), next(answers)] == [0, 1]
    with pytest.raises(StoreFailure, match="no"):
        next(answers)
    # two were taken, and no more are asked for before one is
    assert len(asked) <= 2 + AHEAD * store.requests_at_once


def test_concurrent_map_keeps_problems_by_checkpoint(tmp_path: Path) -> None:
    files = {"a": b"1", "b": b"2"}
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch", ChainKey("flights"))
    made = [writer.commit(files=files).artifacts for _ in range(4)]
    writer.store.delete(f"{made[1].path}/a")
    writer.store.replace(f"{made[3].path}/a", b"another")
    writer.store.replace(f"{made[3].path}/b", b"another")

    found = verify_many(Remote(tmp_path / "store"), made)

    assert [len(each) for each in found] == [0, 1, 0, 2]
    assert "a is missing" in found[1][0]
    assert [each.split(" has ")[0].rpartition("/")[2] for each in found[3]] == ["a", "b"]
