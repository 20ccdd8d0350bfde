"""Files of a split, bound to the content that the split names: when they are opened, and when all was read.

What was opened is what the split says, or `SampleChanged` says which file is another one now, and what it was. A file
that is replaced by another one while it is open is still read as it was; one that is written over in place is found
with the rows that are read of it then (`raise_if_written_over`), before they are handed out: later it may be again what
it was. One that user code reads on its own, and one that is replaced after it was read, are found by `check_unchanged`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from trainflow.concurrent_map import concurrent_map
from trainflow.errors import ChangedFile, SampleChanged
from trainflow.humanize import counted
from trainflow.observability.redaction import redact_text
from trainflow.samples.files.fingerprint import Content, read_content
from trainflow.samples.files.parquet_file import OpenFile, open_file
from trainflow.storage.store import Storage, StoreFile
from trainflow.storage.urls import open_storage

if TYPE_CHECKING:
    from trainflow.samples.splits.split_content import SampleFile, SplitContent

#: so many files are named
_NAMED = 3


def open_bound(storage: Storage, file: SampleFile) -> OpenFile:
    """Open a Parquet file of a split. Raises SampleChanged when it is not what the split says, or not there,
    SampleUnreadable."""
    try:
        opened = open_file(storage, file.path)
    except FileNotFoundError as error:
        raise changed([ChangedFile(file.path, file.fingerprint, None)]) from error
    except Exception as error:
        raise_if_changed(storage, file, error)
        raise
    if opened.content.fingerprint != file.fingerprint:
        opened.close()
        raise changed([ChangedFile(file.path, file.fingerprint, opened.content.fingerprint)])
    return opened


def raise_if_written_over(storage: Storage, file: SampleFile, opened: OpenFile) -> None:
    """Rows were read of an open file: raise SampleChanged where it has been written over in place since it was opened,
    and is another one. Costs one look at its status where it was not."""
    if opened.status is None:
        return
    now = storage.status(file.path)
    if now is None or now == opened.status or now.file != opened.status.file:
        return
    found = read_content(opened.source).fingerprint
    if found != file.fingerprint:
        raise changed([ChangedFile(file.path, file.fingerprint, found)])


def raise_if_changed(storage: Storage, file: SampleFile, error: Exception) -> None:
    """A file could not be read: raise SampleChanged where that is because it is another one by now."""
    try:
        found = _fingerprint_now(storage, file.path)
    except Exception:  # why it cannot be read, `error` says
        return
    if found != file.fingerprint:
        raise changed([ChangedFile(file.path, file.fingerprint, found)]) from error


def changes(split: SplitContent) -> tuple[ChangedFile, ...]:
    """The files of a split that are no longer what it names. One listing of each folder; a file is read only where the
    listing does not tell. Raises SampleUnreadable."""
    files = sorted(split.files, key=lambda file: file.path)
    if not files:
        return ()
    storage = open_storage(files[0].path, split.reading.storage_options, split.reading.root)
    folders = [(folder, list(inside)) for folder, inside in groupby(files, key=lambda file: _parts(file.path)[0])]
    requests = storage.requests_at_once
    listed = concurrent_map(requests, lambda each: storage.listing(each[0], recursive=False), folders)
    suspects: list[tuple[SampleFile, StoreFile | None]] = []
    for (_, inside), stored in zip(folders, listed, strict=True):
        suspects += _suspects(inside, stored or [])
    found = concurrent_map(requests, lambda each: _compared(storage, *each), suspects)
    return tuple(change for change in found if change is not None)


def check_unchanged(split: SplitContent) -> None:
    """Raises SampleChanged when a file of the split is no longer what it names, SampleUnreadable."""
    found = changes(split)
    if found:
        raise changed(found)


def changed(found: Sequence[ChangedFile]) -> SampleChanged:
    """The error that says so."""
    said = "; ".join(_sentence(change) for change in found[:_NAMED])
    more = f"; and {counted(len(found) - _NAMED, 'file')} more" if len(found) > _NAMED else ""
    return SampleChanged(f"{said}{more}; the split has to be made again", changes=tuple(found))


def _sentence(change: ChangedFile) -> str:
    path = redact_text(change.path)
    if change.found is None:
        return f"{path} ({_short(change.was)}) is gone since the split was made"
    return f"{path} has changed since the split was made, from {_short(change.was)} to {_short(change.found)}"


def _short(fingerprint: str) -> str:
    return fingerprint.removeprefix("sha256:")[:12]


def _suspects(files: Iterable[SampleFile], stored: Iterable[StoreFile]) -> list[tuple[SampleFile, StoreFile | None]]:
    """Files that the listing does not say to be what they were."""
    now = {each.path: each for each in stored}
    found = []
    for file in files:
        there = now.get(_parts(file.path)[1])
        same = there is not None and (there.size_bytes, there.version) == (file.size_bytes, file.hint)
        if not same:
            found.append((file, there))
    return found


def _compared(storage: Storage, file: SampleFile, there: StoreFile | None) -> ChangedFile | None:
    if there is None:
        return ChangedFile(file.path, file.fingerprint, None)
    try:
        found = _fingerprint_now(storage, file.path, there.version)
    except FileNotFoundError:
        found = None
    return None if found == file.fingerprint else ChangedFile(file.path, file.fingerprint, found)


def _fingerprint_now(storage: Storage, path: str, version: str = "") -> str:
    return content_now(storage, path, version).fingerprint


def content_now(storage: Storage, path: str, version: str = "") -> Content:
    """What a file holds now. Raises SampleUnreadable, of a file that is not there SampleFileMissing."""
    with storage.open(path) as source:
        return read_content(source, version, remote=storage.remote)._replace(tail=None)


def _parts(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name
