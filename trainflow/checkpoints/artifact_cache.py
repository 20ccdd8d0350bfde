"""Files of checkpoints on this machine: what a store elsewhere holds under a digest need not be fetched from there.

A file is called after the digest of its content, and is believed only where it has that digest when it is used:
whatever has become of one, it is none, and it is never the only copy. Together they take at most so many bytes; what
was used least lately goes first. Processes need no lock: a file appears by a rename and goes by being unlinked.

A small file is copied, a large one shares its blocks where the file system can do that, or is one file under two names,
which is read-only from then on. Who may write into such a one all the same (root) is given a copy: two trainers of one
machine would have the same file, and what the one writes would be what the other goes on from. What is put in here is
one file with that of its trainer, who may spoil it: it is found to be none then.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from trainflow.checkpoints.ledger.entries import ArtifactFile
from trainflow.checkpoints.transfers import SMALL_BYTES, digest_file
from trainflow.storage.local import clone

_READ_ONLY = 0o444


class ArtifactCache:
    """Files in `folder`, at most `most_bytes` of them; 0: none are kept."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    def put(self, digest: str, path: Path) -> None:
        """Keep a file that has that digest. Never raises: without it the store is asked."""
        self._add(digest, path)
        self._trim()

    def put_all(self, files: Iterable[ArtifactFile], folder: Path) -> None:
        """Keep files of a folder. Never raises."""
        for file in files:
            self._add(file.sha256, folder / file.path)
        self._trim()

    def get(self, digest: str) -> Path | None:
        """The file that has that digest, to be read; None: it is not here. Another process may delete it."""
        path = self._place(digest)
        try:
            if not path.is_file():
                return None
            if digest_file(path)[1] == digest:
                os.utime(path)
                return path
            path.unlink(missing_ok=True)
        except OSError:
            pass
        return None

    def place(self, file: ArtifactFile, target: Path) -> bool:
        """Make `target`, which is not there, a file with that content for a trainer; whether it is one now."""
        found = self.get(file.sha256)
        if found is None:
            return False
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # root is kept from writing by no mode
            _share(found, target, file.size, link=os.geteuid() != 0)
        except OSError:
            target.unlink(missing_ok=True)
            return False
        return True

    def _add(self, digest: str, path: Path) -> None:
        target = self._place(digest)
        temporary = target.with_name(f".{target.name}-{os.urandom(4).hex()}")
        try:
            size = path.stat().st_size
            if size > self._most_bytes or target.exists():
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            _share(path, temporary, size)
            temporary.chmod(_READ_ONLY)
            os.utime(temporary)
            temporary.replace(target)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _trim(self) -> None:
        """Delete what was used least lately, as long as all of them are too many bytes."""
        with suppress(OSError):
            with os.scandir(self._folder) as entries:
                found = sorted((_used(entry) for entry in entries), reverse=True)
            left = self._most_bytes
            for _, size, path in found:
                left -= size
                if left < 0:
                    Path(path).unlink(missing_ok=True)

    def _place(self, digest: str) -> Path:
        return self._folder / digest.replace(":", "-")


def _used(entry: os.DirEntry[str]) -> tuple[int, int, str]:
    status = entry.stat(follow_symlinks=False)
    return status.st_mtime_ns, status.st_size, entry.path


def _share(source: Path, target: Path, size: int, *, link: bool = True) -> None:
    """Make `target` a file with the content of `source`. Raises OSError."""
    if clone(source, target):
        return
    if link and size > SMALL_BYTES:
        target.unlink(missing_ok=True)
        with suppress(OSError):  # another disk, or a file system without links
            os.link(source, target)
            return
    shutil.copyfile(source, target)
