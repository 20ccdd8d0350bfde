"""Work on many files says how far it is, work on few says nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trainflow.checkpoints.file_progress import TOLD_BYTES, TOLD_FILES, FileProgress, tell_files


@pytest.fixture
def told() -> Iterator[list[str | None]]:
    said: list[str | None] = []
    tell_files(said.append)
    yield said
    tell_files(None)


def work(total: int, size_bytes: int = 1) -> None:
    with FileProgress("reading", total) as progress:
        for _ in range(total):
            progress.add(size_bytes)


def test_file_progress_many_files_are_told_in_steps_and_their_end(told: list[str | None]) -> None:
    work(2 * TOLD_FILES + 1)

    assert told == ["reading: 500 of 1,001 files", "reading: 1,000 of 1,001 files", None]


def test_file_progress_large_files_are_told_one_by_one(told: list[str | None]) -> None:
    work(3, TOLD_BYTES)

    assert told == ["reading: 1 of 3 files", "reading: 2 of 3 files", None]


@pytest.mark.parametrize(("total", "size_bytes"), [(0, 1), (1, TOLD_BYTES), (TOLD_FILES, 1)])
def test_file_progress_few_files_say_nothing(told: list[str | None], total: int, size_bytes: int) -> None:
    work(total, size_bytes)

    assert told == []


def test_file_progress_work_that_fails_is_over(told: list[str | None]) -> None:
    with pytest.raises(OSError, match="disk"), FileProgress("reading", 3) as progress:
        progress.add(TOLD_BYTES)
        raise OSError("disk")

    assert told == ["reading: 1 of 3 files", None]


def test_file_progress_log_has_every_twentieth(told: list[str | None], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    work(41 * TOLD_FILES)

    assert [record.getMessage() for record in caplog.records] == [
        "reading: 500 of 20,500 files",
        "reading: 10,500 of 20,500 files",
    ]
