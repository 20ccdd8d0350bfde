"""What keeps a process out, as one that is not root sees it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from trainflow.observability import file_access
from trainflow.observability.file_access import keeps_out, naming_file, refused_by_disk, unwritable
from trainflow.storage.errors import CheckpointFailures


@pytest.fixture(autouse=True)
def _modes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may do everything: what the mode gives the owner is looked at instead."""

    def access(path: os.PathLike[str], mode: int, **_: object) -> bool:
        return (Path(path).stat().st_mode >> 6) & mode == mode

    monkeypatch.setattr(file_access.os, "access", access)


@pytest.mark.parametrize(
    ("folder", "file", "to_write", "names"),
    [
        (0o000, 0o600, False, "folder"),
        (0o600, 0o600, False, "folder"),
        (0o700, 0o200, False, "file"),
        (0o700, 0o400, False, None),
        (0o700, 0o400, True, "file"),
        (0o700, 0o600, True, None),
        (0o500, None, True, "folder"),
        (0o500, None, False, None),
        (0o700, None, True, None),
    ],
)
def test_first_that_keeps_out_is_named_with_owner_and_mode(
    tmp_path: Path, folder: int, file: int | None, to_write: bool, names: str | None
) -> None:
    made = tmp_path / "folder"
    made.mkdir()
    path = made / "file"
    if file is not None:
        path.touch()
        path.chmod(file)
    made.chmod(folder)
    said = keeps_out(path, to_write=to_write)
    made.chmod(0o700)
    if names is None:
        assert said is None
        return
    assert said is not None
    assert said.startswith(f"{made if names == 'folder' else path} belongs to ")
    assert f"(uid {os.getuid()}), group " in said
    assert "; this process is " in said
    assert ("mode d" in said) == (names == "folder")


def test_error_of_a_store_says_how_two_users_share_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o000)
    error = PermissionError(13, "Permission denied", str(path))
    said = str(CheckpointFailures().failure("read", str(path), error))
    assert f"cannot be read: Permission denied: '{path}'; {path} belongs to " in said
    assert "umask 007" in said
    assert "credentials" not in said
    assert "check the credentials" in str(CheckpointFailures().failure("read", "s3://b/k", PermissionError("no")))


def test_path_on_which_nothing_can_be_looked_at_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> bool:
        raise OSError("the disk is gone")

    monkeypatch.setattr(file_access.os, "access", fails)
    assert keeps_out("/srv/store") is None


#: block size, fragment size, blocks: all, free, free to users; files: all, free, free to users; flags, longest name
_FINE = (4096, 4096, 1000, 900, 900, 500, 400, 400, 0, 255)


@pytest.mark.parametrize(
    ("disk", "uid", "says"),
    [
        (_FINE, 1000, None),
        ((4096, 4096, 1000, 0, 0, 500, 400, 400, 0, 255), 1000, "its disk is full: make room on it"),
        # what is kept for root
        ((4096, 4096, 1000, 50, 0, 500, 400, 400, 0, 255), 1000, "its disk is full: make room on it"),
        ((4096, 4096, 1000, 50, 0, 500, 400, 400, 0, 255), 0, None),
        ((4096, 4096, 1000, 900, 900, 500, 0, 0, 0, 255), 1000, "its disk takes no more files"),
        # btrfs has no such limit
        ((4096, 4096, 1000, 900, 900, 0, 0, 0, 0, 255), 1000, None),
        ((4096, 4096, 1000, 0, 0, 500, 0, 0, os.ST_RDONLY, 255), 0, "its disk is mounted read-only"),
    ],
)
def test_disk_that_takes_no_writes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: tuple[int, ...], uid: int, says: str | None
) -> None:
    monkeypatch.setattr(file_access.os, "geteuid", lambda: uid)
    monkeypatch.setattr(file_access.os, "statvfs", lambda _path: os.statvfs_result(disk))
    said = unwritable(tmp_path / "not there" / "file")
    assert said is None if says is None else said is not None and said.startswith(says)


def test_file_that_another_user_may_write_is_told_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "trainflow.db"
    file.touch()
    file.chmod(0o400)
    assert (said := unwritable(file)) is not None
    assert said.endswith("run this as that user, or set TRAINFLOW_HOME to a folder of your own")


_FULL = (4096, 4096, 1000, 0, 0, 500, 400, 400, 0, 255)
_NO_INODES = (4096, 4096, 1000, 900, 900, 500, 0, 0, 0, 255)
_NO_ROOM = "its disk is full: make room on it"
_NO_FILES = "its disk takes no more files ('df -i' shows that): delete some of the many on it"


def _error(*files: str | None, number: int = errno.ENOSPC) -> OSError:
    first, second = (*files, None, None)[:2]
    return OSError(number, "No space left on device", first, None, second)


@pytest.mark.parametrize(
    ("disk", "error", "place", "says"),
    [
        (_FULL, _error("/home/x/scratch"), "/store/a/model", f"/home/x/scratch cannot be written, {_NO_ROOM}"),
        (_FULL, _error("/store/a/m", "/home/x/m"), "/store/a/m", f"/home/x/m cannot be written, {_NO_ROOM}"),
        (_FULL, _error("/home/x/scratch"), "s3://bucket/model", f"/home/x/scratch cannot be written, {_NO_ROOM}"),
        # of the store itself, what reads it says more
        (_FULL, _error("/store/a/.tmp-model"), "/store/a/model", None),
        (
            _NO_INODES,
            _error("/store/a/.tmp-model"),
            "/store/a/model",
            f"/store/a/.tmp-model cannot be written, {_NO_FILES}",
        ),
        (_FINE, _error("/home/x/scratch"), "/store/a/model", None),
        (_FULL, _error(), "/store/a/model", None),
        (_FULL, _error("/home/x", number=errno.EIO), "/store/a/model", None),
    ],
)
def test_disk_that_did_not_take_a_file_is_named_unless_it_is_that_of_the_store(
    monkeypatch: pytest.MonkeyPatch, disk: tuple[int, ...], error: OSError, place: str, says: str | None
) -> None:
    monkeypatch.setattr(file_access.os, "statvfs", lambda _path: os.statvfs_result(disk))
    assert refused_by_disk([ValueError("x"), error], place) == says


def test_write_that_a_full_disk_refuses_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as raised, naming_file(tmp_path / "copy"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert raised.value.filename == str(tmp_path / "copy")
