"""An object store that asks for patience: some is given, and not for ever."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.chain_work import SAMPLES
from trainflow.checkpoints.audit.audit import audit
from trainflow.errors import StoreFailure
from trainflow.storage import retries
from trainflow.storage.fsspec_driver import FsspecDriver
from trainflow.storage.object_store import ObjectStore
from trainflow.testing.chains import ChainWriter


class Throttled:
    """A file system that refuses so many requests in a row, and then does what it is asked."""

    def __init__(self, inner: Any, error: Callable[[], Exception]) -> None:
        self._inner = inner
        self._error = error
        self.refuses = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found) or name == "invalidate_cache":
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.refuses > 0:
                self.refuses -= 1
                raise self._error()
            return found(*args, **kwargs)

        return call


def slow_down() -> Exception:
    """As s3fs passes it on."""
    return OSError(errno.EBUSY, "Please reduce your request rate.")


def too_many() -> Exception:
    """As gcsfs does."""
    error = RuntimeError("quota")
    error.code = 429  # type: ignore[attr-defined]
    return error


@contextmanager
def throttled(error: Callable[[], Exception]) -> Iterator[tuple[ObjectStore, Throttled, list[float]]]:
    import fsspec

    memory, base = fsspec.core.url_to_fs(f"memory://{uuid.uuid4().hex}")
    filesystem, waits = Throttled(memory, error), list[float]()
    try:
        driver = FsspecDriver(filesystem, "memory")
        yield ObjectStore(lambda: (driver, base), url="memory://x", sleep=waits.append), filesystem, waits
    finally:
        with suppress(FileNotFoundError):
            memory.rm(base, recursive=True)


@pytest.mark.parametrize("error", [slow_down, too_many])
def test_store_that_asks_for_patience_gets_some(tmp_path: Path, error: Callable[[], Exception]) -> None:
    with throttled(error) as (store, filesystem, waits):
        calls: list[Callable[[], object]] = [
            lambda: store.create_exclusive("a/b", b"x"),
            lambda: store.replace("a/c", b"y"),
            lambda: store.put_file(Path(__file__), "a/d"),
            lambda: store.get_file("a/b", tmp_path / "b"),
            lambda: [store.read("a/b"), *store.read_many(["a/c"])],
            lambda: list(store.chunks("a/b")),
            lambda: (store.files("a"), store.folders("")),
            lambda: store.exists("a/b"),
            lambda: store.delete("a/c"),
            lambda: store.delete_folder("a"),
        ]
        for call in calls:
            filesystem.refuses = 2
            call()
            assert filesystem.refuses == 0

        assert len(waits) == 2 * len(calls)
        assert all(0.5 <= wait <= 2.0 for wait in waits)


def test_patience_ends_and_message_says_what_to_do() -> None:
    with throttled(slow_down) as (store, filesystem, waits):
        filesystem.refuses = 1_000
        with pytest.raises(StoreFailure, match="asks for fewer requests, and went on asking: try again later"):
            store.create_exclusive("a/b", b"x")

        assert len(waits) == retries.TRIES - 1
        assert sum(waits) < 60
        filesystem.refuses = 0
        assert store.files("") == []


def test_error_of_another_kind_is_not_waited_for() -> None:
    with throttled(lambda: PermissionError(errno.EACCES, "no")) as (store, filesystem, waits):
        filesystem.refuses = 1
        with pytest.raises(StoreFailure, match="the right to read"):
            store.read("a")
        assert waits == []


def test_throttled_in_middle_of_file_goes_on_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainflow.storage.object_store.CHUNK_BYTES", 4)
    with throttled(slow_down) as (store, _, waits):
        store.replace("a/b", b"0123456789")
        inner = store._driver.open

        class Refusing:
            """Every other read is refused."""

            def __init__(self, file: Any) -> None:
                self._file, self._times = file, 0

            def __enter__(self) -> Refusing:
                return self

            def __exit__(self, *_: object) -> None:
                self._file.close()

            def read(self, count: int) -> bytes:
                self._times += 1
                if self._times % 2:
                    raise slow_down()
                return bytes(self._file.read(count))

        monkeypatch.setattr(store._driver, "open", lambda *args, **words: Refusing(inner(*args, **words)))
        assert list(store.chunks("a/b")) == [b"0123", b"4567", b"89"]
        assert len(waits) == 4


def test_throttled_among_many_files_asks_again_for_refused_ones_only() -> None:
    with throttled(slow_down) as (store, filesystem, waits):
        for number in range(6):
            store.replace(f"a/{number}", b"%d" % number)
        asked: list[list[str]] = []
        inner = filesystem._inner.cat

        def cat(paths: list[str], on_error: str) -> dict[str, Any]:
            asked.append([path[-1] for path in paths])
            found: dict[str, Any] = inner(paths, on_error=on_error)
            # half of them, each time
            return found | {path: slow_down() for path in paths[len(paths) // 2 :] if len(paths) > 1}

        filesystem.cat = cat  # type: ignore[attr-defined]
        paths = [f"a/{number}" for number in (0, 1, 2, 9, 4, 5)]
        assert store.read_many(paths) == [b"0", b"1", b"2", None, b"4", b"5"]
        assert asked == [["0", "1", "2", "9", "4", "5"], ["9", "4", "5"], ["4", "5"], ["5"]]
        assert len(waits) == 3


def test_throttled_store_commits_in_end(tmp_path: Path) -> None:
    with throttled(slow_down) as (store, filesystem, waits):
        writer = ChainWriter(store, tmp_path)
        for _ in range(4):
            filesystem.refuses = 3
            writer.commit()

        assert audit(writer.ledger, SAMPLES).problems == []
        assert len(waits) == 12
