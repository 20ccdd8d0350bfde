"""Saves of a training program: complete folders it leaves in one place, which the attempt puts into the store.

The program writes into a folder whose name begins with a dot, `save.json` among its files:

    {"position": {"row": 1000, …}, "state": {…}}

and renames it to a name without the dot when it is complete; names sort as the saves came. The attempt takes complete
ones away, so the program never looks at one again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from trainflow.errors import ArtifactsRefused, InputError, TrainflowError
from trainflow.operators.training.save_points import Saved, StoredSaves, Write, rows_of

SAVE_FILE = "save.json"


class SaveFile(msgspec.Struct, frozen=True):
    """What `save.json` holds."""

    position: dict[str, Any]
    state: dict[str, Any] = msgspec.field(default_factory=dict)


class FolderSaves:
    """The program's side."""

    def __init__(self, folder: Path, saved: Saved | None) -> None:
        self._folder = folder
        self._saved = saved
        self._count = 0

    def newest(self) -> Saved | None:
        """What the attempt found in the store when it started the program."""
        return self._saved

    def report(self) -> None:
        """Do nothing: the attempt reports."""

    def put(self, position: dict[str, Any], state: dict[str, Any], write: Write) -> None:
        """Leave one for the attempt."""
        self._count += 1
        writing = self._folder / f".{self._count:08d}"
        try:
            writing.mkdir()
            write(writing)
            (writing / SAVE_FILE).write_bytes(msgspec.json.encode(SaveFile(position, state)))
            writing.rename(self._folder / writing.name[1:])
        except BaseException:
            shutil.rmtree(writing, ignore_errors=True)
            raise


class SignalStopRequest:
    """How a program is told to stop: SIGTERM. Only one that asks for it listens; any other ends by it."""

    def __init__(self) -> None:
        self.requested = False

    def hold(self) -> None:
        """Listen. Outside of the main thread that cannot be done: SIGTERM ends the program then."""
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, self._told)

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True


class SavesFolder:
    """The attempt's side: `collect` puts the newest complete save into the store. Raises ArtifactsRefused for what can
    never be committed, and nothing else."""

    def __init__(self, folder: Path, saves: StoredSaves, log: Any) -> None:
        self._folder = folder
        self._saves = saves
        self._log = log

    def collect(self) -> None:
        """Take the newest one; those before it are of no use."""
        self._saves.report()
        complete = self._complete()
        if not complete:
            return
        try:
            self._take(complete[-1])
        except (TrainflowError, OSError) as error:
            if isinstance(error, ArtifactsRefused) and error.for_good:
                raise
            self._log.warning("a save of the training command was not kept: %s", error)
        for folder in complete:
            shutil.rmtree(folder, ignore_errors=True)

    def _complete(self) -> list[Path]:
        try:
            names = sorted(name for name in os.listdir(self._folder) if not name.startswith("."))
        except FileNotFoundError:
            return []
        return [self._folder / name for name in names]

    def _take(self, folder: Path) -> None:
        file = folder / SAVE_FILE
        try:
            save = msgspec.json.decode(file.read_bytes(), type=SaveFile)
        except (OSError, msgspec.MsgspecError) as error:
            raise InputError(f"{file} cannot be read: {error}") from None
        rows_of(save.position)
        file.unlink()
        self._saves.put(save.position, save.state, lambda target: _move(folder, target))


def _move(source: Path, target: Path) -> None:
    """All that is in `source`; renamed where both are on one disk."""
    for entry in list(source.iterdir()):
        shutil.move(entry, target / entry.name)
