"""The committed files of a checkpoint: whether each byte is as it was, and a copy of them to go on from.

Files of large checkpoints that were found whole on a local store are remembered, so that 20 GB are not read again for
every run. A file that has the size, the times and the inode that it had when its digest was found right is taken for
unchanged: a write changes the time of its last change of status, which no program can set. A hint that saves reading,
never what an audit goes by; checkpoints of few and small files are simply read. A second name of a file, which an
unchanged one gets on a local store, changes that time as well when it is given and when it goes: `remember_verified`
and `still_verified` follow it, where nothing else has changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from trainflow.checkpoints.file_progress import TOLD_BYTES, TOLD_FILES, FileProgress
from trainflow.checkpoints.ledger.entries import ArtifactFile, Artifacts, Checkpoint
from trainflow.checkpoints.ledger.entry_files import encode_entry
from trainflow.checkpoints.transfers import SMALL_BYTES, digest_file, digest_of, fetch_files
from trainflow.concurrent_map import concurrent_map
from trainflow.errors import ArtifactCorrupt, StoreFailure
from trainflow.humanize import counted
from trainflow.storage.local import CHUNK_BYTES
from trainflow.storage.store import Store, StoreFile

if TYPE_CHECKING:
    from trainflow.checkpoints.artifact_cache import ArtifactCache

_KEPT = 4
#: a checkpoint of more files is large, whatever its size: copies of so many take as long as those of gigabytes
FEW_FILES = 2_000
T = TypeVar("T")

#: size, time of the last change of content and of status in nanoseconds, device and inode
_Status = tuple[int, int, int, int, int]
#: of each file by its path, of the newest checkpoints by their artifacts' path
_VerifiedFiles = dict[str, dict[str, _Status]]
_DECODER = msgspec.json.Decoder(_VerifiedFiles)


def is_small(artifacts: Artifacts) -> bool:
    """Whether a checkpoint is read and copied each time it is used."""
    return artifacts.size <= SMALL_BYTES and len(artifacts.files) <= FEW_FILES


def is_verified(store: Store, artifacts: Artifacts) -> bool:
    """Whether all files of a large checkpoint are as they were when they were found whole."""
    if is_small(artifacts):
        return False
    known = _read(store, artifacts).get(artifacts.path)
    return known is not None and known == statuses(store, artifacts)


def is_whole(store: Store, artifacts: Artifacts, file: ArtifactFile) -> bool:
    """Whether one file of a checkpoint in a local store is as it was committed. Reads it, unless it is large and as it
    was when it was found whole."""
    now = statuses(store, Artifacts(artifacts.path, [file]))
    if not is_small(artifacts) and now:
        known = _read(store, artifacts).get(artifacts.path, {})
        if known.get(file.path) == now[file.path]:
            return True
    return _file_problem(store, artifacts, file) is None


def statuses(store: Store, artifacts: Artifacts) -> dict[str, _Status] | None:
    """The files now; None where one is missing or the store is elsewhere. Take them before the files are read."""
    if store.local_path(artifacts.path) is None:
        return None
    try:
        return {file.path: _status(path) for file in artifacts.files if (path := _local(store, artifacts, file))}
    except OSError:
        return None


def _local(store: Store, artifacts: Artifacts, file: ArtifactFile) -> Path | None:
    return store.local_path(artifacts.place(file))


def remember_verified(store: Store, artifacts: Artifacts, before: dict[str, _Status] | None) -> None:
    """The files, whose status was `before`, have been read since and are whole."""
    if is_small(artifacts) or before is None or before != statuses(store, artifacts):
        return
    known = _read(store, artifacts)
    known.pop(artifacts.path, None)
    for others in known.values():
        _follow(others, before)
    newest = dict([*known.items(), (artifacts.path, before)][-_KEPT:])
    with suppress(StoreFailure):
        store.replace(_place(artifacts), msgspec.json.encode(newest))


def _follow(known: dict[str, _Status], now: dict[str, _Status]) -> None:
    """The status of those files that have got another name since."""
    same = {_but_changed(status): status for status in now.values()}
    known.update({name: same.get(_but_changed(status), status) for name, status in known.items()})


def _but_changed(status: _Status) -> tuple[int, int, int, int]:
    size, written, _, device, inode = status
    return size, written, device, inode


@contextmanager
def still_verified(store: Store, artifacts: Artifacts | None) -> Iterator[None]:
    """Remember a large checkpoint that is known to be whole as that, while other names of its files are deleted."""
    known = artifacts is not None and store.local_path(artifacts.path) is not None and is_verified(store, artifacts)
    before = statuses(store, artifacts) if artifacts is not None and known else None
    yield
    if artifacts is not None and before is not None:
        now = statuses(store, artifacts)
        if now is not None and {**before, **now} == now and before != now:
            _follow(before, now)
            remember_verified(store, artifacts, before)


def seal_verified(store: Store, entry: Checkpoint) -> None:
    """Seal the artifacts of a committed checkpoint, with a copy of its entry beside them: the ledger can be repaired by
    it. Sealing changes the status of files that are known to be whole. Raises StoreFailure."""
    artifacts = entry.artifacts
    whole = is_verified(store, artifacts)
    store.seal(artifacts.path, encode_entry(entry))
    if whole:
        remember_verified(store, artifacts, statuses(store, artifacts))


def _read(store: Store, artifacts: Artifacts) -> _VerifiedFiles:
    [data] = store.read_many([_place(artifacts)])
    try:
        return _DECODER.decode(data) if data else {}
    except msgspec.MsgspecError:
        return {}


def _place(artifacts: Artifacts) -> str:
    # {chain}/artifacts/{attempt}
    return f"{artifacts.path.rsplit('/', 2)[0]}/verified.json"


def _status(path: Path) -> _Status:
    status = path.stat(follow_symlinks=False)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino


def verify(store: Store, artifacts: Artifacts) -> list[str]:
    """What is wrong with a checkpoint's files, a sentence each; empty when every byte is as it was committed."""
    look = partial(_file_problem, store, artifacts)
    return [problem for problem in _looked_at(store, look, artifacts.files, lambda file: file.size) if problem]


def _looked_at(
    store: Store, look: Callable[[T], str | None], files: Sequence[T], size_of: Callable[[T], int]
) -> Iterator[str | None]:
    found = concurrent_map(store.requests_at_once, look, files)
    if len(files) < TOLD_FILES and sum(map(size_of, files)) < TOLD_BYTES:
        yield from found
        return
    with FileProgress("verifying the files", len(files)) as progress:
        for file, problem in zip(files, found, strict=True):
            progress.add(size_of(file))
            yield problem


def verify_many(store: Store, many: Sequence[Artifacts]) -> list[list[str]]:
    """The same of many checkpoints, in their order. A file that the store refuses to show is a problem like any."""

    def look(place: tuple[Artifacts, ArtifactFile]) -> str | None:
        try:
            return _file_problem(store, *place)
        except StoreFailure as error:
            return str(error)

    # what several have is read once
    places = {(each.place(file), file.size, file.sha256): (each, file) for each in many for file in each.files}
    answers = _looked_at(store, look, list(places.values()), lambda place: place[1].size)
    found = dict(zip(places, answers, strict=True))
    return [
        [problem for file in each.files if (problem := found[each.place(file), file.size, file.sha256])]
        for each in many
    ]


def _file_problem(store: Store, artifacts: Artifacts, file: ArtifactFile) -> str | None:
    path = artifacts.place(file)
    try:
        # what is small is one request
        size, found = digest_of(store.chunks(path) if file.size > CHUNK_BYTES else iter([store.read(path)]))
    except FileNotFoundError:
        return f"{store.uri(path)} is missing"
    if (size, found) == (file.size, file.sha256):
        return None
    committed = f"{counted(file.size, 'byte')} and {file.sha256}"
    return f"{store.uri(path)} has {counted(size, 'byte')} and {found}, committed were {committed}"


def verify_uploaded(store: Store, artifacts: Artifacts, listed: Sequence[StoreFile] | None = None) -> list[str]:
    """Verify as `verify` does, but by size only where the store is elsewhere: uploads are checked, a read is a
    download. `listed`: all artifacts of the chain, where they were listed just now."""
    if store.local_path(artifacts.path) is not None:
        return _verify_unless_remembered(store, artifacts)
    own = f"{artifacts.path.rpartition('/')[0]}/"
    folders = [each for each in (artifacts.path, *artifacts.owners) if listed is None or not each.startswith(own)]
    listed = [*(listed or ()), *(file for folder in folders for file in store.files(folder))]
    sizes = {file.path: file.size_bytes for file in listed}
    problems: list[str] = []
    for file in artifacts.files:
        path = artifacts.place(file)
        if path not in sizes:
            # a listing may be late: what it does not show is asked for
            problems += verify(store, Artifacts(artifacts.path, [file]))
        elif sizes[path] != file.size:
            problems.append(f"{store.uri(path)} has {counted(sizes[path], 'byte')}, {file.size} were written")
    return problems


def fetch(store: Store, checkpoint: Checkpoint, into: Path, cache: ArtifactCache | None = None) -> Path:
    """A local folder with the checkpoint's files, every digest checked: a copy below `into`, or for a large one in a
    local store the committed files themselves, which are read-only.

    A copy that is there already and whole is used again, and so is what the `cache` has. Raises ArtifactCorrupt,
    StoreFailure.
    """
    artifacts = checkpoint.artifacts
    local = store.local_path(artifacts.path)
    if local is not None and not is_small(artifacts) and not artifacts.owners:
        raise_if_damaged(store, checkpoint)
        return local
    target = into / checkpoint.id
    if target.is_dir() and not differences(target, artifacts):
        return target
    return download(store, checkpoint, target, cache if local is None else None)


def download(store: Store, checkpoint: Checkpoint, target: Path, cache: ArtifactCache | None = None) -> Path:
    """Make `target` a folder with the checkpoint's files, every digest checked, in the place of what was there. What
    the `cache` has comes from there. Raises ArtifactCorrupt, StoreFailure."""
    copy = target.with_name(f".{target.name}-{os.urandom(8).hex()}")
    try:
        away = [file for file in checkpoint.artifacts.files if cache is None or not cache.place(file, copy / file.path)]
        artifacts = Artifacts(checkpoint.artifacts.path, away)
        copied: list[str] = []
        try:
            copied = fetch_files(store, artifacts, copy)
        except FileNotFoundError as error:
            _raise_if([f"{store.uri(str(error))} is missing"], checkpoint)
        # what is wrong in the store says more, and is what has to be mended
        _raise_if((verify(store, checkpoint.artifacts) or copied) if copied else [], checkpoint)
        if cache is not None:
            cache.put_all(away, copy)
        shutil.rmtree(target, ignore_errors=True)
        copy.rename(target)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return target


def differences(folder: Path, artifacts: Artifacts) -> list[str]:
    """What is wrong with a copy of the files in a local folder, a sentence each."""
    problems: list[str] = []
    with FileProgress("verifying the copies of the files", len(artifacts.files)) as progress:
        for file in artifacts.files:
            path = folder / file.path
            if not path.is_file():
                problems.append(f"{path} is missing")
            elif digest_file(path) != (file.size, file.sha256):
                problems.append(f"{path} differs from what was committed")
            progress.add(file.size)
    return problems


def is_here(store: Store, artifacts: Artifacts) -> bool:
    """Whether files of checkpoints are on this machine, where other programs can write into them."""
    return store.local_path(artifacts.path) is not None


def raise_if_damaged(store: Store, checkpoint: Checkpoint) -> None:
    """Raise ArtifactCorrupt where a file in a local store is not as it was committed; StoreFailure. Nothing on this
    machine can have changed one that is elsewhere."""
    if store.local_path(checkpoint.artifacts.path) is not None:
        _raise_if(_verify_unless_remembered(store, checkpoint.artifacts), checkpoint)


def _verify_unless_remembered(store: Store, artifacts: Artifacts) -> list[str]:
    if is_verified(store, artifacts):
        return []
    before = statuses(store, artifacts)
    problems = verify(store, artifacts)
    if not problems:
        remember_verified(store, artifacts, before)
    return problems


def _raise_if(problems: list[str], checkpoint: Checkpoint) -> None:
    if problems:
        raise ArtifactCorrupt(
            f"checkpoint {checkpoint.number} ({checkpoint.id}) is damaged: {'; '.join(problems)}. Restore "
            "the files from a backup or rewind the chain to an earlier checkpoint: "
            "'trainflow checkpoints rewind PIPELINE'",
            location=checkpoint.artifacts.path,
        )
