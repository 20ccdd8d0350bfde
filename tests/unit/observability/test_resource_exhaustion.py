"""What ran out is said in a sentence, by the process that met it and by the one that saw it end."""

from __future__ import annotations

import errno
import os

import pytest

from trainflow.observability.resource_exhaustion import (
    BROKEN,
    exhausted_resource,
    exit_code_of,
    meaning_of_exit_code,
)


def caused(by: BaseException) -> BaseException:
    try:
        raise ValueError("cannot go on") from by
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "memory ran out"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "memory ran out"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"), "the disk is full: make room"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "quota"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "ulimit -n"),
        (OSError(errno.ENFILE, os.strerror(errno.ENFILE)), "fs.file-max"),
        (caused(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), "the disk is full"),
    ],
)
def test_exhausted_says_what_to_do_and_exit_code_says_same(error: BaseException, says: str) -> None:
    assert says in (exhausted_resource(error) or "")
    code = exit_code_of(error, BROKEN)
    assert code != BROKEN
    assert meaning_of_exit_code(code) == exhausted_resource(error)


def test_disk_without_inodes_is_not_called_full(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs_result((4096, 4096, 1000, 900, 900, 500, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _path: disk)
    said = exhausted_resource(caused(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")))
    assert said is not None
    assert "takes no more files ('df -i' shows that)" in said


@pytest.mark.parametrize("error", [ValueError("x"), OSError("x"), FileNotFoundError(errno.ENOENT, "x"), SystemExit(1)])
def test_exhaustion_of_other_error_is_none(error: BaseException) -> None:
    assert exhausted_resource(error) is None
    assert exit_code_of(error, BROKEN) == BROKEN


@pytest.mark.parametrize("code", [None, 0, 1, BROKEN, 137])
def test_exhaustion_of_other_exit_code_is_none(code: int | None) -> None:
    assert meaning_of_exit_code(code) is None
