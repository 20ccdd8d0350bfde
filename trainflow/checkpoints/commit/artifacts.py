"""The files of a checkpoint: written once, by one attempt, into a folder that no other attempt uses.

On a local store the trainer writes into a folder of the same disk, and what it wrote is taken over: the files of a
checkpoint are others than those that a process of the trainer may still have open. Elsewhere it writes into a scratch
folder that is uploaded. Nothing here makes a checkpoint: without its ledger entry the folder is an orphan.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.output_checks import check_fit, resolve_links
from trainflow.checkpoints.commit.sealed_files import Written, take_over, written, written_since
from trainflow.checkpoints.ledger.entries import ArtifactFile, Artifacts, Checkpoint
from trainflow.checkpoints.verified_artifacts import SMALL_BYTES, is_verified, remember_verified, statuses
from trainflow.concurrent_map import concurrent_map
from trainflow.errors import ArtifactCorrupt, ArtifactsRefused, StoreFailure
from trainflow.failpoint import hit
from trainflow.pluralize import counted
from trainflow.storage.errors import failure
from trainflow.storage.local import CHUNK_BYTES, fsync_file, fsync_folder, make_folder
from trainflow.storage.store import Store


def output_folder(store: Store, chain: ChainKey, attempt_id: str, scratch: Path) -> Path:
    """Where an attempt writes: on the store's own disk when that is local, below `scratch` otherwise."""
    local = store.local_path(f"{chain.outputs}/{attempt_id}")
    folder = local if local is not None else scratch / attempt_id / "output"
    try:
        make_folder(folder)
    except OSError as error:
        raise failure("create", str(folder), error) from error
    return folder


def seal(store: Store, chain: ChainKey, attempt_id: str, folder: Path) -> Artifacts:
    """Take over what is in an output folder, or upload it; durable from now on.

    Uploading again after a kill is harmless. Raises ArtifactsRefused when there is nothing, or something that is no
    regular file, or is still being written; StoreFailure.
    """
    path = chain.attempt(attempt_id)
    own = store.local_path(path)
    before = _as_left(folder)
    if not before:
        raise ArtifactsRefused(
            f"the training function wrote nothing into its output folder {folder}: "
            "save the model there (ctx.output), a checkpoint has at least one file",
            location=str(folder),
        )
    files = digest_folder(folder) if own is None else _taken_over(folder, own)
    upload(store, path, folder if own is None else own, files)
    try:
        _refuse_written(folder, before, own, files)
    except OSError as error:
        raise failure("read", str(folder), error) from error
    hit("artifacts: sealed")
    made = Artifacts(path, files)
    remember_verified(store, made, statuses(store, made))
    return made


def _as_left(folder: Path) -> Written:
    """An output folder as the trainer has left it, its links resolved. Raises as `digest_folder`."""
    try:
        check_fit(folder)
        resolve_links(folder)
        return written(folder)
    except OSError as error:
        raise failure("read", str(folder), error) from error


def _refuse_written(folder: Path, before: Written, own: Path | None, files: list[ArtifactFile]) -> None:
    """Raise ArtifactsRefused where the output folder does not hold any more what was taken over; OSError. A file with
    another time is read: what it says may be late on a disk in the network."""
    taken = {file.path: (file.size, file.sha256) for file in files}
    for name in written_since(folder, before, own):
        places = (place / name for place in (folder, own) if place is not None)
        path = next((place for place in places if place.is_file()), None)
        if path is None or name not in taken or _digest(_chunks(path)) != taken[name]:
            raise ArtifactsRefused(
                f"{folder / name} was written while the checkpoint was taken over: something that the trainer has "
                "started is still writing (a thread, a saver in the background); wait for its end before the training "
                "function returns",
                location=str(folder),
            )


def _taken_over(folder: Path, own: Path) -> list[ArtifactFile]:
    """The files of an output folder as files of the store. Raises as `digest_folder`."""
    try:
        pairs = [(path, own / path.relative_to(folder)) for path in sorted(_regular_files(folder, durable=False))]
        for _, target in pairs:
            make_folder(target.parent)
        take_over(pairs)
    except OSError as error:
        raise failure("write", str(own), error) from error
    return digest_folder(own)


def digest_folder(folder: Path) -> list[ArtifactFile]:
    """The files of a folder with their digests, durable from now on. Links to what is in the folder become that.
    Raises ArtifactsRefused for what can never be committed, before anything is read; StoreFailure."""
    try:
        check_fit(folder)
        resolve_links(folder)
        return [_describe(folder, path) for path in sorted(_regular_files(folder))]
    except OSError as error:
        raise failure("write", str(folder), error) from error


def upload(store: Store, path: str, folder: Path, files: list[ArtifactFile]) -> None:
    """Copy the files to `path` in the store, unless `folder` is that place."""
    if store.local_path(path) == folder:
        return
    for file in files:
        store.put_file(folder / file.path, f"{path}/{file.path}")
        hit("artifacts: a file is in the store")


def verify(store: Store, artifacts: Artifacts) -> list[str]:
    """What is wrong with a checkpoint's files, a sentence each; empty when every byte is as it was committed."""
    found = concurrent_map(store.requests_at_once, lambda file: _problem(store, artifacts, file), artifacts.files)
    return [problem for problem in found if problem]


def verify_many(store: Store, many: Sequence[Artifacts]) -> list[list[str]]:
    """The same of many checkpoints, in their order. A file that the store refuses to show is a problem like any."""

    def look(place: tuple[Artifacts, ArtifactFile]) -> str | None:
        try:
            return _problem(store, *place)
        except StoreFailure as error:
            return str(error)

    places = [(artifacts, file) for artifacts in many for file in artifacts.files]
    answers = concurrent_map(store.requests_at_once, look, places)
    return [[problem for problem in islice(answers, len(artifacts.files)) if problem] for artifacts in many]


def _problem(store: Store, artifacts: Artifacts, file: ArtifactFile) -> str | None:
    path = f"{artifacts.path}/{file.path}"
    try:
        # what is small is one request
        size, found = _digest(store.chunks(path) if file.size > CHUNK_BYTES else iter([store.read(path)]))
    except FileNotFoundError:
        return f"{store.uri(path)} is missing"
    if (size, found) == (file.size, file.sha256):
        return None
    committed = f"{counted(file.size, 'byte')} and {file.sha256}"
    return f"{store.uri(path)} has {counted(size, 'byte')} and {found}, committed were {committed}"


def verify_uploaded(store: Store, artifacts: Artifacts) -> list[str]:
    """Verify as `verify` does, but by size only where the store is elsewhere: uploads are checked, a read is a
    download."""
    if store.local_path(artifacts.path) is not None:
        return _verify_unless_remembered(store, artifacts)
    sizes = {file.path: file.size_bytes for file in store.files(artifacts.path)}
    problems: list[str] = []
    for file in artifacts.files:
        path = f"{artifacts.path}/{file.path}"
        if path not in sizes:
            # a listing may be late: what it does not show is asked for
            problems += verify(store, Artifacts(artifacts.path, [file]))
        elif sizes[path] != file.size:
            problems.append(f"{store.uri(path)} has {counted(sizes[path], 'byte')}, {file.size} were written")
    return problems


def fetch(store: Store, checkpoint: Checkpoint, into: Path) -> Path:
    """A local folder with the checkpoint's files, every digest checked: a copy below `into`, or for a large one in a
    local store the committed files themselves, which are read-only.

    A copy that is there already and whole is used again. Raises ArtifactCorrupt, StoreFailure.
    """
    artifacts = checkpoint.artifacts
    local = store.local_path(artifacts.path)
    if local is not None and artifacts.size > SMALL_BYTES:
        raise_if_damaged(store, checkpoint)
        return local
    target = into / checkpoint.id
    if target.is_dir() and not differences(target, artifacts):
        return target
    return _download(store, checkpoint, target)


def _download(store: Store, checkpoint: Checkpoint, target: Path) -> Path:
    partial = target.with_name(f".{target.name}-{os.urandom(8).hex()}")
    try:
        for file in checkpoint.artifacts.files:
            path = f"{checkpoint.artifacts.path}/{file.path}"
            try:
                store.get_file(path, partial / file.path)
            except FileNotFoundError:
                _raise_if([f"{store.uri(path)} is missing"], checkpoint)
        copied = differences(partial, checkpoint.artifacts)
        # what is wrong in the store says more, and is what has to be mended
        _raise_if((verify(store, checkpoint.artifacts) or copied) if copied else [], checkpoint)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def differences(folder: Path, artifacts: Artifacts) -> list[str]:
    """What is wrong with a copy of the files in a local folder, a sentence each."""
    problems: list[str] = []
    for file in artifacts.files:
        path = folder / file.path
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif _digest(_chunks(path)) != (file.size, file.sha256):
            problems.append(f"{path} differs from what was committed")
    return problems


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
            f"checkpoint {checkpoint.id} (sequence {checkpoint.sequence}) is damaged: {'; '.join(problems)}. Restore "
            "the files from a backup or rewind the chain to an earlier checkpoint: 'trainflow checkpoints rewind'",
            location=checkpoint.artifacts.path,
        )


def _regular_files(folder: Path, *, durable: bool = True) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _regular_files(path, durable=durable)
            if durable:
                fsync_folder(path)
        elif entry.is_file(follow_symlinks=False):
            yield path
        else:
            raise ArtifactsRefused(f"{path} has become a link or a special file meanwhile", location=str(path))
    if durable:
        fsync_folder(folder)


def _describe(folder: Path, path: Path) -> ArtifactFile:
    size, found = _digest(_chunks(path))
    fsync_file(path)
    return ArtifactFile(path.relative_to(folder).as_posix(), size, found)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _digest(chunks: Iterator[bytes]) -> tuple[int, str]:
    size, found = 0, hashlib.sha256()
    for chunk in chunks:
        size += len(chunk)
        found.update(chunk)
    return size, f"sha256:{found.hexdigest()}"
