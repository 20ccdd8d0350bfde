"""A training that has ended, on this machine, until its checkpoint is committed: a kill while its files are uploaded
does not cost the training.

The record lies beside the saves of the training (`Home.local_saves`), so it is of this run and this home, and goes with
them. The next attempt uploads what is missing into the same folder of the store, under the id of the attempt that
trained: that folder only ever gets these files, and they are the same as long as their sizes, times and inodes are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

from trainflow.checkpoints.ledger.entries import Artifacts
from trainflow.identifiers import attempt_time

_NAME = "ended.json"

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
        (folder / _NAME).unlink(missing_ok=True)


def read_ended(folder: Path, not_before: datetime | None) -> EndedTraining | None:
    """The training that has ended; None where there is none, its files are not what they were, or it began before a
    person cleared the task."""
    try:
        ended = _DECODER.decode((folder / _NAME).read_bytes())
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
    temporary = folder / f".{_NAME}-{os.urandom(4).hex()}"
    try:
        temporary.write_bytes(msgspec.json.encode(ended))
        temporary.replace(folder / _NAME)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _statuses(output: Path) -> dict[str, _Status]:
    found: dict[str, _Status] = {}
    for place, _, names in os.walk(output):
        for name in names:
            path = os.path.join(place, name)
            status = os.stat(path, follow_symlinks=False)
            times = status.st_mtime_ns, status.st_ctime_ns
            found[os.path.relpath(path, output)] = status.st_size, *times, status.st_dev, status.st_ino
    return found
