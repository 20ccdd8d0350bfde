"""What on the way to a file keeps this process out: whose it is, its mode, and who this process is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

#: what to do about files that several users work with
_SHARE = (
    "have that user or root give access (a group that both are in: chgrp -R, chmod -R g+rwX, and umask 007 for all "
    "that write there), or run this as that user"
)


def keeps_out(path: str | os.PathLike[str], *, to_write: bool = False) -> str | None:
    """The first folder on the way to a path that this process may not pass, or what is there and may not be read (or
    written, with `to_write`), in words; None: nothing is seen that keeps it out. Raises nothing."""
    try:
        found = _obstacle(Path(path).absolute(), to_write=to_write)
        return None if found is None else f"{found} {_whose(found.stat())}; this process is {_user(os.geteuid())}"
    except OSError:
        return None


def of_another_user(errors: Iterable[BaseException], *, to_write: bool) -> str | None:
    """What keeps this process out of the file that one of these errors is about, and what to do; None: it is none on a
    disk of this machine."""
    files = [each.filename for each in errors if isinstance(each, PermissionError)]
    local = next((file for file in files if isinstance(file, str) and os.path.isabs(file)), None)
    whose = keeps_out(local, to_write=to_write) if local is not None else None
    return None if whose is None else f"{whose}: {_SHARE}"


def _obstacle(path: Path, *, to_write: bool) -> Path | None:
    effective = os.access in os.supports_effective_ids
    for each in reversed(path.parents):
        if not os.access(each, os.X_OK, effective_ids=effective):
            return each
    if not os.path.lexists(path):
        # what is not there is made in its folder
        folder = next(each for each in path.parents if each.exists())
        return folder if to_write and not os.access(folder, os.W_OK, effective_ids=effective) else None
    needed = os.R_OK | (os.W_OK if to_write else 0) | (os.X_OK if path.is_dir() else 0)
    return None if os.access(path, needed, effective_ids=effective) else path


def _whose(found: os.stat_result) -> str:
    return f"belongs to {_user(found.st_uid)}, group {_group(found.st_gid)}, mode {stat.filemode(found.st_mode)}"


def _user(uid: int) -> str:
    try:
        import pwd

        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except (ImportError, KeyError):
        return f"uid {uid}"


def _group(gid: int) -> str:
    try:
        import grp

        return grp.getgrgid(gid).gr_name
    except (ImportError, KeyError):
        return str(gid)
