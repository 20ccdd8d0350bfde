"""What a child says at its end, among what else is written into the pipe."""

from __future__ import annotations

import pytest

from trainflow.execution.leftover_processes import CLEAN, parse_clean_pids


@pytest.mark.parametrize("garbage", [b"", b"x", b"\0\xffgarbage"[: CLEAN.size - 1]])
def test_said_clean_with_garbage_behind_it_gives_pids(garbage: bytes) -> None:
    assert list(parse_clean_pids(CLEAN.pack(41) + CLEAN.pack(42) + garbage)) == [41, 42]


def test_said_clean_of_garbage_alone_gives_no_error() -> None:
    assert list(parse_clean_pids(b"\xff" * 7)) == []
    assert 42 not in set(parse_clean_pids(b"\xff" * 13 + CLEAN.pack(42)))
