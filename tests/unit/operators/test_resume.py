"""Saves inside a split: whole or not there, newest first, never mixed between tries."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainflow.errors import TaskError
from trainflow.operators.resume import SaveFolder, resume_folder_name


def test_nothing_saved_yet(tmp_path: Path) -> None:
    assert SaveFolder(tmp_path / "saves", "a1").latest() is None


def test_newest_save_counts_and_earlier_ones_of_the_attempt_go(tmp_path: Path) -> None:
    saves = SaveFolder(tmp_path, "a1")
    for step in range(3):
        with saves.saving({"step": step}) as folder:
            (folder / "weights").write_text(str(step))
    latest = saves.latest()
    assert latest is not None
    assert latest.state == {"step": 2}
    assert (latest.path / "weights").read_text() == "2"
    assert len(list(tmp_path.iterdir())) == 1


def test_later_try_reads_the_earlier_one_and_does_not_delete_it(tmp_path: Path) -> None:
    with SaveFolder(tmp_path, "a1").saving({"step": 1}):
        pass
    second = SaveFolder(tmp_path, "a2")
    first = second.latest()
    assert first is not None
    assert first.state == {"step": 1}
    with second.saving({"step": 2}):
        pass
    assert first.path.is_dir()
    # a zombie of the first try saves once more: the later try's save stays the newest
    with SaveFolder(tmp_path, "a1").saving({"step": 99}):
        pass
    latest = second.latest()
    assert latest is not None
    assert latest.state == {"step": 2}


def test_save_that_fails_half_way_is_none(tmp_path: Path) -> None:
    saves = SaveFolder(tmp_path, "a1")
    with saves.saving({"step": 1}):
        pass
    with pytest.raises(OSError, match="full"), saves.saving({"step": 2}) as folder:
        (folder / "weights").write_text("half")
        raise OSError("disk full")
    latest = saves.latest()
    assert latest is not None
    assert latest.state == {"step": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_leftover_of_a_killed_writer_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".writing-a1-00000001").mkdir()
    (tmp_path / "a0-00000001").mkdir()  # its state was lost with the disk's cache
    assert SaveFolder(tmp_path, "a2").latest() is None


def test_state_must_be_json(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no form in JSON"), SaveFolder(tmp_path, "a1").saving({"x": object()}):
        pass


def test_name_depends_on_all_parts() -> None:
    assert resume_folder_name("a", 1) == resume_folder_name("a", 1)
    assert len({resume_folder_name("a", 1), resume_folder_name("a", 2), resume_folder_name("a1")}) == 3
