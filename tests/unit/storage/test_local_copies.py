"""Copies of small files of a store: when they are believed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from trainflow.storage.local_copies import MOST_BYTES, LocalCopies
from trainflow.storage.store import TIMES

MD5 = hashlib.md5(b"content", usedforsecurity=False).hexdigest()


@pytest.fixture
def copies(tmp_path: Path) -> LocalCopies:
    return LocalCopies(tmp_path / "copies", "s3://bucket")


@pytest.mark.parametrize(
    ("kept_with", "asked_with", "known"),
    [
        ("etag", "etag", True),
        ("etag", "another", False),
        ("etag", "", False),
        ("etag", MD5, False),
        ("", MD5, True),
        ("", "mgNkuembtIDdJeHwKEyFVQ==", True),
        ("", hashlib.md5(b"other", usedforsecurity=False).hexdigest(), False),
        ("", "", False),
        (f"{TIMES}1", f"{TIMES}1", False),
    ],
)
def test_copy_is_believed_only_by_the_mark_of_its_content(
    copies: LocalCopies, kept_with: str, asked_with: str, known: bool
) -> None:
    copies.keep("a/b.json", b"content", kept_with)
    assert copies.read("a/b.json", asked_with) == (b"content" if known else None)


def test_copy_that_was_changed_on_this_machine_is_none(copies: LocalCopies, tmp_path: Path) -> None:
    copies.keep("a/b.json", b"content", "etag")
    [file] = (tmp_path / "copies").iterdir()
    for damaged in (file.read_bytes()[:-1], file.read_bytes().replace(b"content", b"CONTENT"), b"", b"\xff\n"):
        file.write_bytes(damaged)
        assert copies.read("a/b.json", "etag") is None


def test_copy_of_another_store_or_path_is_none(copies: LocalCopies, tmp_path: Path) -> None:
    copies.keep("a/b.json", b"content", "etag")
    assert copies.read("a/c.json", "etag") is None
    assert LocalCopies(tmp_path / "copies", "s3://other").read("a/b.json", "etag") is None


def test_copy_of_what_is_large_or_cannot_be_written_is_not_kept(copies: LocalCopies, tmp_path: Path) -> None:
    copies.keep("large", bytes(MOST_BYTES + 1), "etag")
    assert not (tmp_path / "copies").exists()
    (tmp_path / "copies").write_text("in the way")
    copies.keep("a/b.json", b"content", "etag")
    assert copies.read("a/b.json", "etag") is None
