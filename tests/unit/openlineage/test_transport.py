"""Events that are appended to a file."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from trainflow.errors import DeliveryRefused
from trainflow.openlineage.transport import FileTransport

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_event_that_finds_no_room_leaves_no_part_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = FileTransport({"log_file_path": "events", "append": True}, tmp_path)
    transport.emit({"number": 1}, NOW)
    write, room = os.write, [4, 0]

    def of_a_full_disk(descriptor: int, data: bytes) -> int:
        left = room.pop(0)
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:left])

    with monkeypatch.context() as full:
        full.setattr(os, "write", of_a_full_disk)
        with pytest.raises(DeliveryRefused, match="No space left on device"):
            transport.emit({"number": 2}, NOW)
    transport.emit({"number": 3}, NOW)
    assert (tmp_path / "events").read_text() == '{"number":1}\n{"number":3}\n'


def test_event_that_is_written_in_parts_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with monkeypatch.context() as slow:
        slow.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
        FileTransport({"log_file_path": "events", "append": True}, tmp_path).emit({"number": 1}, NOW)
    assert (tmp_path / "events").read_text() == '{"number":1}\n'
