"""Many questions to a store: several at a time, and never more than it says. Copies of a process that answer."""

from __future__ import annotations

import subprocess
import sys
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


#: `check`: of a process that copied itself, what is left of that: no child, no descriptor
_COPIES = """
import os, signal, threading
from trainflow.concurrent_map import forked_map

me, descriptors = os.getpid(), set(os.listdir("/proc/self/fd"))

def where(number):
    return f"{number} {'here' if os.getpid() == me else 'copy'}"

def check(found, expected):
    assert found == expected, found
    assert set(os.listdir("/proc/self/fd")) == descriptors
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return
    raise AssertionError("a copy is left")

"""
_FORKED = {
    "each copy answers for its share": """
check(forked_map(3, where, range(7), list[str]),
      ["0 here", "1 copy", "2 copy", "3 here", "4 copy", "5 copy", "6 here"])
check(forked_map(9, where, range(2), list[str]), ["0 here", "1 copy"])
check(forked_map(1, where, range(2), list[str]), ["0 here", "1 here"])
check(forked_map(4, where, [], list[str]), [])
""",
    "what is larger than a pipe": """
check(forked_map(2, lambda number: "x" * 300_000, range(4), list[str]), ["x" * 300_000] * 4)
""",
    "one that is killed is answered for here": """
def killed(number):
    if number == 4 and os.getpid() != me:
        os.kill(os.getpid(), signal.SIGKILL)
    return where(number)
check(forked_map(3, killed, range(5), list[str]), ["0 here", "1 here", "2 copy", "3 here", "4 here"])
""",
    "what cannot be told is answered for here": """
check(forked_map(2, lambda number: number if os.getpid() == me else "?", range(4), list[int]), [0, 1, 2, 3])
""",
    "what fails in a copy is raised here": """
def fails(number):
    if number == 1:
        raise ValueError(where(number))
    return where(number)
try:
    forked_map(2, fails, range(4), list[str])
except ValueError as error:
    check(str(error), "1 here")
else:
    raise AssertionError
""",
    "an interruption leaves no copy": """
def interrupted(number):
    if os.getpid() == me:
        raise KeyboardInterrupt
    signal.pause()
try:
    forked_map(3, interrupted, range(4), list[str])
except KeyboardInterrupt:
    check(0, 0)
else:
    raise AssertionError
""",
    "no process is free": """
def refused():
    raise BlockingIOError(11, "Resource temporarily unavailable")
os.fork = refused
check(forked_map(3, where, range(3), list[str]), ["0 here", "1 here", "2 here"])
""",
    "a process with threads is not copied": """
done = threading.Event()
other = threading.Thread(target=done.wait)
other.start()
check(forked_map(3, where, range(3), list[str]), ["0 here", "1 here", "2 here"])
done.set()
other.join()
""",
    "what a copy was born with is not written twice": """
print("once", end="")
check(forked_map(2, where, range(2), list[str]), ["0 here", "1 copy"])
""",
}


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are looked up in /proc")
def test_forked_map_situations() -> None:
    """In processes of their own: this one has threads."""
    asked = {
        name: subprocess.Popen(
            [sys.executable, "-c", _COPIES + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name, code in _FORKED.items()
    }
    said = {name: (*process.communicate(timeout=PATIENCE), process.returncode) for name, process in asked.items()}
    assert {name: each for name, each in said.items() if each[1:] != ("", 0)} == {}
    assert said["what a copy was born with is not written twice"][0] == "once"
