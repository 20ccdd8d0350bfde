from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainflow.storage import driver as storage_driver
from trainflow.storage.obstore import driver as driver_module
from trainflow.storage.obstore.buckets import Buckets
from trainflow.storage.obstore.driver import ObstoreDriver
from trainflow.storage.obstore.opened_stores import OpenedStore, OpenedStores


class Taken:
    """A bucket that takes anything."""

    def put(self, key: str, source: Path, **words: Any) -> None:
        self.key, self.words = key, words


@pytest.mark.parametrize(
    ("size", "part", "at_once"),
    [(1, 100, 6), (100, 100, 6), (101, 100, 6), (1000, 100, 6), (1001, 101, 5), (3000, 300, 2), (100_000, 10_000, 1)],
)
def test_upload_of_any_size_has_the_same_bytes_on_their_way(
    size: int, part: int, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_driver, "PART_BYTES", 100)
    monkeypatch.setattr(storage_driver, "MOST_PARTS", 10)
    taken = Taken()
    monkeypatch.setattr(OpenedStores, "_open", lambda *_: OpenedStore(taken, None))
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)

    ObstoreDriver(Buckets("S3Store", {}, {}, None), str).upload(tmp_path / "large", "bucket/large")

    in_parts = size > part
    assert taken.words == {"chunk_size": part, "max_concurrency": at_once, "use_multipart": in_parts}
    assert part * at_once <= 600 or at_once == 1


def test_download_of_file_that_became_shorter_between_two_tries_has_nothing_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = [b"longer than it is", b"short"]

    def first_part(_self: ObstoreDriver, _path: str, target: Path) -> Any:
        content = tries.pop(0)
        with target.open("r+b") as file:
            file.write(content)
        if tries:
            raise ConnectionError("reset")
        return driver_module._FetchedPart(len(content), len(content), None)

    def retry(call: Any) -> Any:
        try:
            return call()
        except ConnectionError:
            return call()

    monkeypatch.setattr(ObstoreDriver, "_first_part", first_part)
    ObstoreDriver(Buckets("S3Store", {}, {}, None), str).download("bucket/file", tmp_path / "file", retry)
    assert (tmp_path / "file").read_bytes() == b"short"
