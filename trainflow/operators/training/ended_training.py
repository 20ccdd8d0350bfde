"""A training that has ended, on this machine, until its checkpoint is committed: a kill while its files are uploaded
does not cost the training.

The record lies beside the saves of the training (`Home.local_saves`), so it is of this run and this home, and goes with
them. The next attempt uploads what is missing into the same folder of the store, under the id of the attempt that
trained: that folder only ever gets these files, and they are the same as long as their sizes, times and inodes are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trainflow.checkpoints.commit import artifacts
from trainflow.checkpoints.ledger.entries import Artifacts
from trainflow.checkpoints.verified_artifacts import verify_uploaded
from trainflow.errors import ArtifactsRefused, StoreFailure
from trainflow.identifiers import attempt_time
from trainflow.settings.home import ENDED_TRAINING
from trainflow.storage.atomic_files import replace_whole

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.artifact_cache import ArtifactCache
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.settings.home import Home

#: size, time of the last change of content and of status in nanoseconds, device and inode
_Status = tuple[int, int, int, int, int]


class EndedTraining(msgspec.Struct, frozen=True):
    """What a training function has returned and left in its output folder. `artifacts`: all of it is in the store."""

    attempt_id: str
    output: str
    metrics: dict[str, float | str]
    files: dict[str, _Status]
    artifacts: Artifacts | None = None


_DECODER = msgspec.json.Decoder(EndedTraining)


class OutputSealer:
    """Puts the files that a training has left into the chain's store. `here`: the folder of the training's saves on
    this machine; None where the store is on it. `earlier` are the checkpoints that were trained on from."""

    def __init__(
        self,
        ledger: Ledger,
        here: Path | None,
        output: Path,
        ti: TaskInstance,
        cache: ArtifactCache,
        earlier: Callable[[], Sequence[Artifacts]],
    ) -> None:
        self._ledger = ledger
        self._here = here
        #: of the attempt whose files these are
        self.output = output
        self._ti = ti
        self._cache = cache
        self._earlier = earlier
        #: the output of a training whose files are not in the store yet
        self.kept: Path | None = None

    def ended(self) -> EndedTraining | None:
        """The training that an earlier attempt of this run has ended, and whose files are here or in the store. Raises
        StoreFailure."""
        found = None if self._here is None else read_ended(self._here, self._ti.cleared_at)
        if found is not None and found.artifacts is not None and verify_uploaded(self._ledger.store, found.artifacts):
            return None
        return found

    def end(self, metrics: Mapping[str, float | str]) -> EndedTraining:
        """Record that the training of this attempt has ended."""
        if self._here is None:
            return EndedTraining(self._ti.attempt_id, str(self.output), dict(metrics), {})
        return record_ended(self._here, self._ti.attempt_id, self.output, metrics)

    def seal(self, ended: EndedTraining) -> Artifacts:
        """Put its files into the store, or go on with an upload that was cut short. Raises as `artifacts.seal`."""
        if ended.artifacts is not None:
            return ended.artifacts
        output, begun = Path(ended.output), ended.attempt_id != self._ti.attempt_id
        self.output = output
        self.kept = None if self._here is None else output
        if begun:
            self._ti.log.info("training has ended in an earlier attempt: the upload of its files goes on")
        try:
            made = self._sealed(ended, output, begun=begun)
        except (StoreFailure, ArtifactsRefused):
            uploaded = self._uploaded_meanwhile(ended)
            if uploaded is None:
                raise
            return uploaded
        if self._here is not None:
            record_uploaded(self._here, ended, made)
            self._cache.put_all(made.files, output)  # what trains next goes on from them
        self.kept = None
        shutil.rmtree(output, ignore_errors=True)
        return made

    def _sealed(self, ended: EndedTraining, output: Path, *, begun: bool) -> Artifacts:
        ledger = self._ledger
        try:
            made = artifacts.seal(ledger.store, ledger.chain, ended.attempt_id, output, self._earlier(), begun=begun)
        except ArtifactsRefused as error:
            if begun and not output.exists():  # nothing is wrong with what was trained
                raise StoreFailure(f"{output} cannot be read: it is gone", location=str(output)) from error
            raise
        # one that removes them may be half way: what is left is no checkpoint
        if ended.files and (missing := ended.files.keys() - {file.path for file in made.files}):
            raise StoreFailure(f"{output / min(missing)} cannot be read: it is gone", location=str(output))
        return made

    def _uploaded_meanwhile(self, ended: EndedTraining) -> Artifacts | None:
        """What another attempt has put into the store, and removed here: one that was given up lives on unheard. None
        where there is no such one, or what it put there is not whole."""
        found = self.ended()
        if found is None or found.attempt_id != ended.attempt_id or found.artifacts is None:
            return None
        self.kept = None
        return found.artifacts

    def refused(self, *, for_good: bool) -> None:
        """Take the record back: what was left cannot be committed. Where that is `for_good` a person may look at it."""
        if self._here is not None:
            forget_ended(self._here)
        self.kept = self.output if for_good else None


def local_saves(home: Home, training: str, run_id: str) -> Path:
    """Where saves of a training are on this machine. Those of another run are not gone on from: a gate may have refused
    what came of them, and forgotten those in the store."""
    return home.local_saves / hashlib.sha256(f"{training}\n{run_id}".encode()).hexdigest()[:24]


def record_ended(folder: Path, attempt_id: str, output: Path, metrics: Mapping[str, float | str]) -> EndedTraining:
    """Record that a training has ended, in the folder of its saves. Never raises: without it a kill costs more."""
    ended = EndedTraining(attempt_id, str(output), dict(metrics), {})
    with suppress(OSError):
        ended = msgspec.structs.replace(ended, files=_statuses(output))
        _write(folder, ended)
    return ended


def record_uploaded(folder: Path, ended: EndedTraining, artifacts: Artifacts) -> None:
    """Record that its files are in the store, so that they are needed here no more. Never raises."""
    with suppress(OSError):
        _write(folder, msgspec.structs.replace(ended, artifacts=artifacts))


def forget_ended(folder: Path) -> None:
    """Delete the record: what was left can not be committed. Never raises."""
    with suppress(OSError):
        (folder / ENDED_TRAINING).unlink(missing_ok=True)


def read_ended(folder: Path, not_before: datetime | None) -> EndedTraining | None:
    """The training that has ended; None where there is none, its files are not what they were, or it began before a
    person cleared the task."""
    try:
        ended = _DECODER.decode((folder / ENDED_TRAINING).read_bytes())
        made = attempt_time(ended.attempt_id)
        if made is None or (not_before is not None and made < not_before):
            return None
        if ended.artifacts is None and (not ended.files or _statuses(Path(ended.output)) != ended.files):
            return None
    except (OSError, msgspec.MsgspecError):
        return None
    return ended


def _write(folder: Path, ended: EndedTraining) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    replace_whole(folder / ENDED_TRAINING, msgspec.json.encode(ended))


def _statuses(output: Path) -> dict[str, _Status]:
    found: dict[str, _Status] = {}
    for place, _, names in os.walk(output):
        for name in names:
            path = os.path.join(place, name)
            status = os.stat(path, follow_symlinks=False)
            times = status.st_mtime_ns, status.st_ctime_ns
            found[os.path.relpath(path, output)] = status.st_size, *times, status.st_dev, status.st_ino
    return found
