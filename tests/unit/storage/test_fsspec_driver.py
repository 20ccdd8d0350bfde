from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainflow.storage.fsspec_driver import FsspecDriver


class Sending:
    """A file system. `words`: with which a file was sent."""

    def put_file(self, source: str, path: str, **words: int) -> None:
        self.words = words


class LikeS3(Sending):
    async def _put_file(self, lpath: str, rpath: str, chunksize: Any = None, max_concurrency: Any = None) -> None: ...


class LikeGoogle(Sending):
    async def _put_file(self, lpath: str, rpath: str, chunksize: int = 50 << 20) -> None: ...


class LikeAzure(Sending):
    async def _put_file(self, lpath: str, rpath: str, max_concurrency: Any = None) -> None: ...


@pytest.mark.parametrize(
    ("kind", "size", "words"),
    [
        (LikeS3, 1 << 30, {"chunksize": 8 << 20, "max_concurrency": 3}),
        (LikeS3, 10_000 * (48 << 20), {"chunksize": 48 << 20, "max_concurrency": 1}),
        (LikeGoogle, 1 << 30, {"chunksize": 16 << 20}),
        (LikeGoogle, (10_000 * (48 << 20)) - 1, {"chunksize": 96 << 20}),
        (LikeAzure, 1 << 30, {}),
        (Sending, 1 << 30, {}),
    ],
)
def test_upload_has_little_of_a_file_in_memory(
    kind: type[Sending], size: int, words: dict[str, int], tmp_path: Path
) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
    filesystem = kind()
    FsspecDriver(filesystem, "s3").upload(tmp_path / "large", "bucket/large")
    assert filesystem.words == words
    assert all(value % (256 << 10) == 0 for name, value in filesystem.words.items() if name == "chunksize")
