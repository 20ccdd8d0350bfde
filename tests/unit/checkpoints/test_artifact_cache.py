"""What is kept on this machine of the files of checkpoints: believed by its digest, bounded, never written into."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trainflow.checkpoints import artifact_cache
from trainflow.checkpoints.artifact_cache import ArtifactCache
from trainflow.checkpoints.ledger.entries import ArtifactFile
from trainflow.identifiers import digest

Make = Callable[[bytes], tuple[ArtifactFile, Path]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(content: bytes) -> tuple[ArtifactFile, Path]:
        path = tmp_path / f"output-{len(list(tmp_path.iterdir()))}"
        path.write_bytes(content)
        return ArtifactFile(path.name, len(content), digest(content)), path

    return made


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    return ArtifactCache(tmp_path / "cache", 100)


@pytest.fixture(params=["small", "large"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Files are copied, or are one file under two names."""
    if request.param == "large":
        monkeypatch.setattr(artifact_cache, "SMALL_BYTES", 0)
        monkeypatch.setattr(artifact_cache, "clone", lambda *_: False)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return str(request.param)


@pytest.mark.usefixtures("size")
def test_what_was_put_is_there_when_its_source_is_gone(cache: ArtifactCache, make: Make, tmp_path: Path) -> None:
    file, path = make(b"content")
    assert not cache.place(file, tmp_path / "a" / "b")
    cache.put(file.sha256, path)
    path.unlink()
    assert cache.place(file, tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").read_bytes() == b"content"
    kept = cache.get(file.sha256)
    assert kept is not None
    assert kept.stat().st_mode & 0o777 == 0o444


def test_large_file_is_one_file_under_two_names_and_small_one_two_files(
    cache: ArtifactCache, make: Make, tmp_path: Path, size: str
) -> None:
    file, path = make(b"content")
    cache.put(file.sha256, path)
    cache.place(file, tmp_path / "for the trainer")
    links = (tmp_path / "for the trainer").stat().st_nlink
    assert links == (3 if size == "large" else 1)


def test_what_one_trainer_of_root_writes_is_not_in_the_file_of_another(
    cache: ArtifactCache, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_cache, "SMALL_BYTES", 0)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    file, path = make(b"content")
    cache.put(file.sha256, path)
    one, other = tmp_path / "one", tmp_path / "other"
    assert cache.place(file, one)
    assert cache.place(file, other)

    for trainers in (path, one):
        trainers.chmod(0o644)
        trainers.write_bytes(b"CONTENT")

    assert other.read_bytes() == b"content"


def test_file_that_its_trainer_still_writes_is_none_where_it_was_not_copied(
    cache: ArtifactCache, make: Make, tmp_path: Path, size: str
) -> None:
    file, path = make(b"content")
    with path.open("r+b") as held:  # a thread of the trainer has it open
        cache.put(file.sha256, path)
        held.write(b"CONTENT")
    assert cache.place(file, tmp_path / "target") == (tmp_path / "target").exists() == (size == "small")


def test_file_that_the_next_trainer_writes_into_is_none_where_it_was_not_copied(
    cache: ArtifactCache, make: Make, tmp_path: Path, size: str
) -> None:
    file, path = make(b"content")
    cache.put(file.sha256, path)
    cache.place(file, tmp_path / "target")
    (tmp_path / "target").chmod(0o644)
    (tmp_path / "target").write_bytes(b"CONTENT")
    found = cache.get(file.sha256)
    assert (found is not None and found.read_bytes() == b"content") == (size == "small")


def test_what_was_used_least_lately_goes_first(cache: ArtifactCache, make: Make) -> None:
    files = []
    for number in range(3):
        file, path = make(str(number).encode() * 30)
        files.append(file)
        cache.put(file.sha256, path)
        os.utime(cache.get(file.sha256) or path, (number, number))
    used = cache.get(files[0].sha256)  # that is a use
    assert used is not None
    newest, path = make(b"n" * 40)
    cache.put(newest.sha256, path)
    assert [cache.get(each.sha256) is not None for each in (*files, newest)] == [True, False, True, True]


def test_file_larger_than_all_that_may_be_kept_puts_nothing_out(cache: ArtifactCache, make: Make) -> None:
    small, path = make(b"small")
    cache.put(small.sha256, path)
    large, path = make(b"l" * 101)
    cache.put(large.sha256, path)
    assert (cache.get(small.sha256) is None, cache.get(large.sha256)) == (False, None)


def test_cache_of_nothing_keeps_nothing(make: Make, tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path / "cache", 0)
    file, path = make(b"content")
    cache.put_all([file], path.parent)
    assert not (tmp_path / "cache").exists()


def test_folder_that_cannot_be_written_is_no_failure(make: Make, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    cache = ArtifactCache(tmp_path / "cache", 100)
    file, path = make(b"content")
    cache.put(file.sha256, path)
    assert cache.get(file.sha256) is None
    assert not cache.place(file, tmp_path / "target")
