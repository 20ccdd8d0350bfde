"""What in an output folder can never be committed: links that lead out of it, sockets and pipes, names that no ledger
or store can hold, files that may not be read. Cheap enough to be asked at every save: nothing is opened.

A link to what is in the folder itself (`latest -> step-100`) is no mistake: `resolve_links` puts the content in its
place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from trainflow.errors import ArtifactsRefused

#: the longest path below the output folder, in bytes: object stores hold 1024, and most of that is the chain's own
LONGEST_PATH_BYTES = 700


def check_fit(folder: Path) -> None:
    """Raise ArtifactsRefused for the first thing in an output folder that can never be committed. A folder that is not
    there holds nothing."""
    for entry in _entries(folder):
        path = Path(entry.path)
        problem = _problem_with_name(os.fsencode(path.relative_to(folder))) or _problem_with(entry, folder)
        if problem:
            raise _refused(path, problem)


def resolve_links(folder: Path) -> None:
    """Put the content in the place of each link to something in the folder. Raises ArtifactsRefused for other links."""
    for entry in list(_entries(folder)):
        if not entry.is_symlink():
            continue
        problem = _problem_with_link(entry, folder)
        if problem:
            raise _refused(Path(entry.path), problem)
        target, path = Path(os.path.realpath(entry.path)), Path(entry.path)
        path.unlink()
        if target.is_dir():
            shutil.copytree(target, path, symlinks=False)
        else:
            shutil.copy2(target, path)


def _refused(path: Path, problem: str) -> ArtifactsRefused:
    return ArtifactsRefused(f"{shown(path)} {problem}", location=shown(path), for_good=True)


def shown(path: Path) -> str:
    """A path for people and for JSON, whatever bytes its name has."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Entries below a folder; links are not followed."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:  # a temporary folder that its writer removed in between
        return
    for entry in entries:
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(Path(entry.path))


def _problem_with_name(name: bytes) -> str:
    if len(name) > LONGEST_PATH_BYTES:
        return f"has a path of {len(name)} bytes below the output folder, at most {LONGEST_PATH_BYTES} can be kept"
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return "has a name that is not UTF-8, which no ledger can hold: rename it"
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        return "has a control character in its name, which stores do not hold: rename it"
    return ""


def _problem_with(entry: os.DirEntry[str], folder: Path) -> str:
    if entry.is_symlink():
        return _problem_with_link(entry, folder)
    if entry.is_dir(follow_symlinks=False):
        return "" if os.access(entry.path, os.R_OK | os.X_OK) else "may not be listed: give its owner the right to"
    if not entry.is_file(follow_symlinks=False):
        gone = not os.path.lexists(entry.path)
        return "" if gone else "is a socket, a pipe or a device: a checkpoint holds files only, remove it"
    if not os.access(entry.path, os.R_OK) and os.path.lexists(entry.path):
        return "may not be read: give its owner the right to"
    return ""


def _problem_with_link(entry: os.DirEntry[str], folder: Path) -> str:
    target, root = Path(os.path.realpath(entry.path)), Path(os.path.realpath(folder))
    if not target.exists():
        return "is a link to nothing: remove it, or write what it should point to"
    if not target.is_relative_to(root):
        return (
            f"is a link to {shown(target)}, outside of the output folder, and a checkpoint holds its own files only: "
            "copy what it points to into its place"
        )
    place = Path(os.path.realpath(entry.path.rpartition("/")[0]))
    if place.is_relative_to(target):
        return "is a link to a folder that it is in itself: remove it"
    if not (target.is_file() or target.is_dir()):
        return "is a link to a socket, a pipe or a device: remove it"
    return ""
