"""A local disk that behaves as one in the network (NFS): what `LocalStore` asks of the system goes through it.

What it does, each with a chance, by a seed: a call is carried out and its answer is lost, so that the client repeats
it and is answered with what the first one has done (an exclusive open, a link: it exists; a deletion, a rename: it is
not there), or it ends with EIO, carried out or not; a handle is stale; a listing, or that a name is not there, is as
old as it was remembered.
"""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Iterator
from random import Random
from typing import IO, Any

import pytest

from trainflow.storage import atomic_files, local


class NFSDisk:
    """`lost`, `broken`, `stale`, `remembered`: chances of a lost answer, of EIO, of ESTALE, and of an old answer."""

    def __init__(
        self,
        random: Random,
        *,
        lost: float = 0.0,
        broken: float = 0.0,
        stale: float = 0.0,
        remembered: float = 0.0,
    ) -> None:
        self.lost, self.broken, self.stale, self.remembered = lost, broken, stale, remembered
        self._random = random
        self._absent: set[str] = set()
        self._listings: dict[str, set[str]] = {}
        self._stale_in_a_row = self._looks_left_alone = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have all stores on local disks use it."""
        for module in (local, atomic_files):
            monkeypatch.setattr(module, "os", self)
            monkeypatch.setattr(module, "open", self.open_file, raising=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    # -- calls that change something

    def link(self, source: Any, target: Any) -> None:
        self._absent.discard(os.fspath(target))  # the client looks it up anew
        self._before()
        os.link(source, target)
        self._after(FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)))

    def unlink(self, path: Any) -> None:
        os.unlink(path)
        self._after(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)))

    def replace(self, source: Any, target: Any) -> None:
        self._before()
        os.replace(source, target)
        self._absent.discard(os.fspath(target))
        self._after(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source)))

    # -- calls that look

    def open_file(self, path: Any, mode: str = "r") -> IO[Any]:
        """As the builtin."""
        if "r" in mode:
            self._look(os.fspath(path))
        file = builtins.open(path, mode)  # noqa: SIM115 - the caller's
        if "x" in mode and self._drawn(self.lost):
            file.close()
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        return file

    def open(self, path: Any, flags: int) -> int:
        if not flags & os.O_DIRECTORY:
            self._look(os.fsdecode(path))
        return os.open(path, flags)

    def listdir(self, path: str) -> list[str]:
        found = os.listdir(path)
        known = self._remember(path, set(found))
        return [name for name in found if name in known]

    def scandir(self, path: Any) -> _Scan:
        found = os.scandir(path)
        with found:
            entries = list(found)
        known = self._remember(os.fspath(path), {entry.name for entry in entries})
        return _Scan([entry for entry in entries if entry.name in known])

    def _remember(self, path: str, now: set[str]) -> set[str]:
        if path in self._listings and self._drawn(self.remembered):
            return self._listings[path]
        self._listings[path] = now
        return now

    def _look(self, path: str) -> None:
        # replaced by others twice while it was looked for, and then left alone for a while
        if self._looks_left_alone == 0 and self._drawn(self.stale):
            self._stale_in_a_row = (self._stale_in_a_row + 1) % 2
            self._looks_left_alone = 0 if self._stale_in_a_row else 4
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
        self._looks_left_alone = max(0, self._looks_left_alone - 1)
        if path in self._absent and self._drawn(self.remembered):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self._absent.discard(path)
        if not os.path.lexists(path):
            self._absent.add(path)

    # -- chances

    def _before(self) -> None:
        if self._drawn(self.broken):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _after(self, repeated: OSError) -> None:
        if self._drawn(self.lost):
            raise repeated
        self._before()

    def _drawn(self, chance: float) -> bool:
        return self._random.random() < chance


class _Scan:
    """As what `os.scandir` returns."""

    def __init__(self, entries: list[os.DirEntry[str]]) -> None:
        self._entries = entries

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        return iter(self._entries)

    def __exit__(self, *error: object) -> None:
        pass
