"""What commits and looks at the head cost on a local disk: `python tests/benchmarks/bench_checkpoints.py [N [M]]`."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.ledger import missing_entries
from trainflow.checkpoints.ledger.entries import Checkpoint
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, append_many, day


def milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def report(what: str, samples: list[float]) -> None:
    ordered = sorted(samples)
    p95 = ordered[int(len(ordered) * 0.95)]
    print(f"{what:<64} median {statistics.median(ordered):8.3f} ms   p95 {p95:8.3f} ms")


class Quick(LocalStore):
    """Does not wait for the disk: only for making long ledgers."""

    def create_exclusive(self, path: str, data: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(data)


def long_ledger(entries: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, chain = LocalStore(Path(folder) / "store"), ChainKey("long")
        with patch.object(missing_entries, "raise_unless_whole"):
            append_many(Ledger(Quick(store.root), chain), entries)
        size = sum(file.size_bytes for file in store.files(chain.ledger))
        print(f"\n{entries:,} entries, {size / 1e6:,.0f} MB, nothing pruned")
        report("head, new reader", [milliseconds(lambda: Ledger(store, chain).state()) for _ in range(20)])
        reader = Ledger(store, chain)
        reader.state()
        report("head, reader that has looked before", [milliseconds(reader.state) for _ in range(100)])
        report("append, new writer (fsync included)", [
            milliseconds(lambda: append_many(Ledger(store, chain), 1)) for _ in range(20)
        ])  # fmt: skip
        report("all kept checkpoints, a line each", [milliseconds(lambda: Ledger(store, chain).kept())])
        report("audit, files not verified", [
            milliseconds(lambda: audit(reader, None, verify_files=False))
        ])  # fmt: skip
        for file in store.files(chain.snapshots):
            store.delete(file.path)
        report("head without any snapshot", [milliseconds(lambda: Ledger(store, chain).state())])


def main(entries: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder) / "store")
        writer = ChainWriter(store, Path(folder))
        parent: Checkpoint | None = None
        seals, commits = [], []
        for number in range(entries):
            started = time.perf_counter()
            request = writer.request(parent=parent, metrics={"auc": 0.5, "loss": 1.0})
            seals.append((time.perf_counter() - started) * 1e3)
            started = time.perf_counter()
            parent = commit(store, request, day(number))
            commits.append((time.perf_counter() - started) * 1e3)
        size = len(store.read(writer.chain.entry(entries)))
        print(f"{entries} entries of about {size} bytes")
        report("write and seal one small file (fsync included)", seals)
        report("commit, a new process's view each time, the first 100", commits[:100])
        report("commit, a new process's view each time, the last 100", commits[-100:])
        report("head, new reader", [milliseconds(lambda: Ledger(store, writer.chain).state()) for _ in range(20)])
        reader = Ledger(store, writer.chain)
        reader.state()
        report("head, reader that has looked before", [milliseconds(reader.state) for _ in range(100)])
        data = b"x" * size
        paths = [f"raw/{number}" for number in range(200)]
        report("create one entry's file (fsync of file and folder)", [
            milliseconds(lambda path=path: store.create_exclusive(path, data)) for path in paths
        ])  # fmt: skip
        for file in store.files(writer.chain.snapshots):
            store.delete(file.path)
        report("head without any snapshot", [milliseconds(lambda: Ledger(store, writer.chain).state())])
        report("audit, files verified", [milliseconds(lambda: audit(reader, None))])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
    long_ledger(int(sys.argv[2]) if len(sys.argv) > 2 else 100_000)
