"""Where an attempt saves how far it got inside its split, so that the next try goes on from there.

Each save is a folder of its own, `{attempt}-{number}`: written under a temporary name, renamed when it is complete.
A reader therefore never sees half of one, and a zombie of an earlier try never writes into what a later one reads.
Attempt ids sort by time: the last name is the newest save.

The folder is in the home, so it is there for tries on the same host (or hosts that share the home); elsewhere a try
starts the split again from its parent checkpoint, which costs time and is never wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainflow.errors import TaskError
from trainflow.identifiers import canonical_json

_STATE = "state.json"
_TEMPORARY = ".writing-"


@dataclass(frozen=True)
class Saved:
    """A complete save of an earlier moment: `state` as it was given, and the folder with what was written beside it."""

    state: dict[str, Any]
    path: Path


def resume_folder_name(*parts: object) -> str:
    """The name of the folder that the tries of one training share: a pure function of what they train."""
    return hashlib.sha256(canonical_json(list(parts))).hexdigest()[:24]


class SaveFolder:
    """The saves of all tries of one training."""

    def __init__(self, path: Path, attempt_id: str) -> None:
        self.path = path
        self._attempt_id = attempt_id
        self._count = 0

    def latest(self) -> Saved | None:
        """The newest complete save of any try, or None."""
        for folder in sorted(self._complete(), reverse=True):
            with contextlib.suppress(OSError, ValueError):
                return Saved(state=json.loads((folder / _STATE).read_text()), path=folder)
        return None

    @contextmanager
    def saving(self, state: dict[str, Any]) -> Iterator[Path]:
        """A folder to write into; complete, and the only save of this attempt, once the block ends without an error.

        Raises TaskError when `state` has no form in JSON.
        """
        try:
            encoded = canonical_json(state)
        except (TypeError, ValueError) as error:
            raise TaskError(f"the state to save has no form in JSON: {error}") from None
        name = self._next_name()
        writing = self.path / f"{_TEMPORARY}{name}"
        writing.mkdir(parents=True)
        try:
            yield writing
            (writing / _STATE).write_bytes(encoded)
            writing.rename(self.path / name)
        except BaseException:
            shutil.rmtree(writing, ignore_errors=True)
            raise
        self._forget_earlier(name)

    def _complete(self) -> list[Path]:
        if not self.path.is_dir():
            return []
        return [folder for folder in self.path.iterdir() if not folder.name.startswith(_TEMPORARY)]

    def _next_name(self) -> str:
        self._count += 1
        while (self.path / f"{self._attempt_id}-{self._count:08d}").exists():
            self._count += 1
        return f"{self._attempt_id}-{self._count:08d}"

    def _forget_earlier(self, newest: str) -> None:
        """Drop this attempt's earlier saves; those of other tries stay, one of them may still be read from."""
        for folder in self._complete():
            if folder.name.startswith(f"{self._attempt_id}-") and folder.name < newest:
                shutil.rmtree(folder, ignore_errors=True)
