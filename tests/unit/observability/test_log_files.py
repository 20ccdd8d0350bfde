from __future__ import annotations

import os
from pathlib import Path

from trainflow.observability.log_files import parts, rotate


def test_rotate_small_or_missing_log_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    assert not rotate(path, 10, 2)
    path.write_bytes(b"0123456789")
    assert not rotate(path, 10, 2)
    assert [each.name for each in parts(path)] == ["a.log"]


def test_rotate_open_log_restarts_and_older_parts_move_up(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for letter in (b"a", b"b", b"c", b"d"):
        os.write(descriptor, letter * 15)
        assert rotate(path, 10, 2)
    os.write(descriptor, b"e")
    os.close(descriptor)
    assert [each.read_bytes() for each in parts(path)] == [b"c" * 10, b"d" * 10, b"e"]
    assert (tmp_path / "a.log.1").stat().st_mode & 0o777 == 0o600


def test_rotate_without_backups_only_empties(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * 100)
    assert rotate(path, 10, 0)
    assert [each.read_bytes() for each in parts(path)] == [b""]
