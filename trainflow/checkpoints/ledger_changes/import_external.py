"""A folder of checkpoints that trainflow did not write, from which a chain may begin: found by a date in its name.

Read, never written. What is adopted is named by its folder, the watermark its name says, and the digest of every file:
those too whose names begin with `.` or `_`, which are the shards of a distributed checkpoint. What the glob of a person
leaves out is told.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

import msgspec

from trainflow.checkpoints.ledger.entries import Adoption, ArtifactFile
from trainflow.checkpoints.ledger_changes.import_spec import Adopt
from trainflow.clock import ensure_utc
from trainflow.errors import ArtifactCorrupt, CheckpointNotFound
from trainflow.humanize import counted
from trainflow.observability.redaction import redact_text
from trainflow.samples.partitions import label
from trainflow.samples.pattern import PathPattern, glob_expression
from trainflow.samples.spec import Samples
from trainflow.samples.table.readiness import Readiness, judge
from trainflow.storage.store import Storage
from trainflow.storage.urls import open_storage

_CHUNK_BYTES = 8 << 20
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class ExternalCheckpoint(msgspec.Struct, frozen=True):
    """A folder that may be adopted."""

    folder: str
    watermark: datetime


def find(adopt: Adopt, root: Path | None, now: datetime) -> ExternalCheckpoint:
    """The folder that is meant. Raises CheckpointNotFound when none is there and ready, SampleUnreadable."""
    storage, pattern = open_storage(adopt.path, adopt.storage_options, root), adopt.pattern()
    offset = timedelta(seconds=adopt.offset_seconds)
    if adopt.watermark is not None:
        named = ensure_utc(adopt.watermark) - offset
        folder = pattern.render(named)
        problem = _problem(adopt, storage, folder, named, now)
        if problem:
            raise CheckpointNotFound(f"adopt: the checkpoint {redact_text(folder)} cannot be adopted: {problem}")
        return ExternalCheckpoint(folder, ensure_utc(adopt.watermark))
    seen = ""
    for named in sorted(_dates(storage, pattern, ()), reverse=True):
        problem = _problem(adopt, storage, pattern.render(named), named, now)
        if not problem:
            return ExternalCheckpoint(pattern.render(named), named + offset)
        seen = seen or f"; the newest, {label(named)}: {problem}"
    raise CheckpointNotFound(f"adopt: no checkpoint in {redact_text(adopt.path)} is ready{seen}")


def matches_glob(name: str, glob: str) -> bool:
    """Whether a file (named relative to its folder) is of the checkpoint: a glob means hidden names too."""
    return glob_expression(glob).fullmatch(name) is not None


def files_outside_glob(adopt: Adopt, folder: str, root: Path | None) -> list[str]:
    """The names in a folder that the glob leaves out. Raises SampleUnreadable."""
    storage = open_storage(adopt.path, adopt.storage_options, root)
    found = storage.listing(folder, recursive=True) or ()
    return [file.path for file in found if not matches_glob(file.path, adopt.files)]


def describe(adopt: Adopt, folder: str, root: Path | None) -> list[ArtifactFile]:
    """The files of a folder with their digests: reads all of them. Raises SampleUnreadable."""
    storage = open_storage(adopt.path, adopt.storage_options, root)
    names = [
        file.path for file in storage.listing(folder, recursive=True) or () if matches_glob(file.path, adopt.files)
    ]
    described = []
    for name in names:
        with storage.open(f"{folder}/{name}") as file:
            described.append(ArtifactFile(name, *_digest(file)))
    return described


def problems(adoption: Adoption, storage_options: dict[str, Any], root: Path | None) -> list[str] | None:
    """What is wrong with the adopted files now, a sentence each; None: the folder has gone. Raises SampleUnreadable."""
    storage = open_storage(adoption.uri, storage_options, root)
    there = {file.path for file in storage.listing(adoption.uri, recursive=True) or ()}
    if not there:
        return None
    found = []
    for each in adoption.files:
        if each.path not in there:
            found.append(f"{adoption.uri}/{each.path} is missing")
            continue
        with storage.open(f"{adoption.uri}/{each.path}") as file:
            if _digest(file) != (each.size, each.sha256):
                found.append(f"{adoption.uri}/{each.path} is not what was adopted")
    return found


def fetch(adoption: Adoption, storage_options: dict[str, Any], root: Path | None, into: Path) -> Path:
    """A copy of the adopted files below `into`, every digest checked; a whole copy that is there is used again.

    Always a copy: what reads it cannot write into a folder that belongs to another program. Raises ArtifactCorrupt,
    SampleUnreadable.
    """
    target = into / "adopted"
    if target.is_dir() and all(_is(target / each.path, each) for each in adoption.files):
        return target
    storage = open_storage(adoption.uri, storage_options, root)
    partial = target.with_name(f".{target.name}-{os.urandom(8).hex()}")
    try:
        for each in adoption.files:
            copy = partial / each.path
            copy.parent.mkdir(parents=True, exist_ok=True)
            with storage.open(f"{adoption.uri}/{each.path}") as file, copy.open("wb") as out:
                shutil.copyfileobj(file, out, _CHUNK_BYTES)
            if not _is(copy, each):
                raise ArtifactCorrupt(
                    f"{adoption.uri}/{each.path} is not what the chain adopted "
                    f"({counted(each.size, 'byte')}, {each.sha256}): "
                    "restore the file, or begin another branch",
                    location=adoption.uri,
                )
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _problem(adopt: Adopt, storage: Storage, folder: str, named: datetime, now: datetime) -> str:
    table = Samples(path=adopt.path, length_seconds=60, start=_EPOCH, files=adopt.files, ready=adopt.ready)
    state = judge(table, named, storage.listing(folder, recursive=True), now, lambda files: 0, matches_glob)
    if state.presence is Readiness.READY and not state.files:
        return f"it has no file that matches {adopt.files}"
    return "" if state.presence is Readiness.READY else state.reason


def _dates(storage: Storage, pattern: PathPattern, above: tuple[str, ...]) -> Iterator[datetime]:
    """The dates of the folders there are."""
    segment = pattern.segments[len(above)]
    folder = "/".join((pattern.root.rstrip("/"), *above)) if above else pattern.root
    for name in storage.names(folder) or ():
        if segment.expression.fullmatch(name) is None:
            continue
        names = (*above, name)
        if len(names) < len(pattern.segments):
            yield from _dates(storage, pattern, names)
        elif (moment := pattern.earliest(names)) is not None and pattern.names(moment) == names:
            yield moment


def _is(path: Path, described: ArtifactFile) -> bool:
    try:
        with path.open("rb") as file:
            return _digest(file) == (described.size, described.sha256)
    except OSError:
        return False


def _digest(file: IO[bytes]) -> tuple[int, str]:
    size, found = 0, hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        size += len(chunk)
        found.update(chunk)
    return size, f"sha256:{found.hexdigest()}"
