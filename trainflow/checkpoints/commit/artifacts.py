"""The files of a checkpoint: written once, by one attempt, into a folder that no other attempt uses.

On a local store the trainer writes into a folder of the same disk, and what it wrote is taken over: the files of a
checkpoint are others than those that a process of the trainer may still have open. Elsewhere it writes into a scratch
folder that is uploaded. Nothing here makes a checkpoint: without its ledger entry the folder is an orphan.

Files are taken over so that nothing which a trainer has started can change them any more. A path can be closed to
others by its mode, and root ignores modes; an open descriptor or a mapping goes on writing whatever becomes of the
path. So a file is taken over as another inode under another path: as a clone where the file system shares blocks
copy-on-write, else as a copy. A large file that cannot be cloned is moved, and copied only when a process of this
machine still has it open after that: from then on it has no old path to be found by.

What is still being written when it is taken over - by a thread, by a saver that works in the background - is refused:
half of a model would be committed, with a digest that is right.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.output_checks import check_fit, resolve_links
from trainflow.checkpoints.file_progress import FileProgress
from trainflow.checkpoints.ledger.entries import ArtifactFile, Artifacts
from trainflow.checkpoints.transfers import Digests, digest_file, put_files
from trainflow.checkpoints.verified_artifacts import is_whole, remember_verified, statuses
from trainflow.concurrent_map import concurrent_map
from trainflow.errors import ArtifactsRefused, StoreFailure
from trainflow.failpoint import hit
from trainflow.storage.errors import failure
from trainflow.storage.local import clone, fsync_file, fsync_folder, make_folder
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


#: a file of at least so many bytes is shared with the checkpoint that has it already; what is smaller is one request
SHARED_BYTES = 8 << 20


def seal(
    store: Store,
    chain: ChainKey,
    attempt_id: str,
    folder: Path,
    earlier: Sequence[Artifacts] = (),
    *,
    begun: bool = False,
) -> Artifacts:
    """Take over what is in an output folder, or upload it; durable from now on.

    Large files with the bytes of a file of `earlier` checkpoints, which are kept as long as this one may be committed,
    are shared with those: by a second name of the committed file where the store knows such names, elsewhere they are
    not uploaded, and their place is named. Of the chain itself `earlier` has the head, as its first.

    `begun`: the upload of this very folder may have been cut short, what is there is not uploaded again.

    Uploading again is harmless. Raises ArtifactsRefused when there is nothing, or something that is no
    regular file, or is still being written; StoreFailure.
    """
    path = chain.attempt(attempt_id)
    own = store.local_path(path)
    before = as_left(folder)
    if not before:
        raise ArtifactsRefused(
            f"the training function wrote nothing into its output folder {folder}: "
            "save the model there (ctx.output), a checkpoint has at least one file",
            location=str(folder),
        )
    own_folder = f"{chain.artifacts}/"
    if own is None:
        files = _uploaded(store, path, folder, earlier_files(earlier, own_folder), begun=begun)
    else:
        files = _taken_over(folder, own)
    try:
        _refuse_written(folder, before, own, files)
    except OSError as error:
        raise failure("read", str(folder), error) from error
    made = Artifacts(path, files)
    if own is not None:
        _share(store, made, shared_with(files, earlier_files(earlier, own_folder)))
    hit("artifacts: sealed")
    remember_verified(store, made, statuses(store, made))
    return made


#: files of earlier checkpoints, by size and digest
Shared = dict[tuple[int, str], tuple[Artifacts, ArtifactFile]]


def earlier_files(earlier: Sequence[Artifacts], own: str) -> Shared:
    """The files of earlier checkpoints that may be shared. What another chain has in the `own` folder of artifacts is
    of a checkpoint that may be gone from the line."""
    found: Shared = {}
    for each in earlier:
        for file in each.files:
            if file.size >= SHARED_BYTES and (each.path.startswith(own) or not file.source.startswith(own)):
                found.setdefault(_key(file), (each, file))
    return found


def shared_with(files: Sequence[ArtifactFile], earlier: Shared) -> Shared:
    """The earlier files that are among these. Never all that a checkpoint has: by its own folder it is known
    to have been committed."""
    found = {key: earlier[key] for file in files if (key := _key(file)) in earlier}
    if all(_key(file) in found for file in files):
        found.pop(min(found), None)
    return found


def _key(file: ArtifactFile) -> tuple[int, str]:
    return file.size, file.sha256


def as_reference(file: ArtifactFile, found: Shared) -> ArtifactFile:
    """The file as an entry of an object store names it: by its place, where it is shared."""
    if _key(file) not in found:
        return file
    artifacts, same = found[_key(file)]
    return msgspec.structs.replace(file, source=artifacts.place(same))


def _share(store: Store, made: Artifacts, found: Shared) -> None:
    """Put a second name of the committed files in the place of files that were taken over and are the same: what is
    committed is out of the trainer's reach."""
    for file in made.files:
        if _key(file) in found:
            artifacts, same = found[_key(file)]
            if is_whole(store, artifacts, same):
                store.share(artifacts.place(same), made.place(file))


def as_left(folder: Path) -> Written:
    """A folder as the trainer has left it, its links resolved. Raises as `digest_folder`."""
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
        if path is None or name not in taken or digest_file(path) != taken[name]:
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


def _uploaded(store: Store, path: str, folder: Path, earlier: Shared, *, begun: bool) -> list[ArtifactFile]:
    """Upload the files of an output folder, but for those that are in the store already. Their digests are taken
    meanwhile: only a file that has the size of an earlier one waits for its own. Raises as `digest_folder`."""
    there = {file.path: file.size_bytes for file in store.files(path)} if begun else {}
    sizes = {size for size, _ in earlier}
    try:
        names = [each.relative_to(folder).as_posix() for each in sorted(_regular_files(folder, durable=False))]
        size_of = {name: (folder / name).stat().st_size for name in names}
        left = [name for name in names if there.get(f"{path}/{name}") != size_of[name]]
        doubtful = [name for name in left if size_of[name] in sizes]
        with Digests() as digests:
            for name in (*doubtful, *(name for name in names if name not in doubtful)):
                digests.take(folder / name)
            put_files(store, folder, path, [name for name in left if name not in doubtful])
            for name in doubtful:
                if digests.of(folder / name) not in earlier:
                    put_files(store, folder, path, [name])
            files = [ArtifactFile(name, *digests.of(folder / name)) for name in names]
    except StoreFailure:
        raise
    except FileNotFoundError as error:
        raise StoreFailure(f"{error.filename} cannot be read: it is gone", location=str(folder)) from error
    except OSError as error:
        raise failure("read", str(folder), error) from error
    found = shared_with(files, earlier)
    # the one that is never shared
    put_files(
        store, folder, path, [each.path for each in files if each.path in doubtful and _is_own(each, earlier, found)]
    )
    return [as_reference(file, found) for file in files]


def _is_own(file: ArtifactFile, earlier: Shared, found: Shared) -> bool:
    return _key(file) in earlier and _key(file) not in found


#: of more files than these so many are digested and made durable side by side
_FEW_FILES, _AT_ONCE = 16, 8


def digest_folder(folder: Path) -> list[ArtifactFile]:
    """The files of a folder with their digests, durable from now on. Links to what is in the folder become that.
    Raises ArtifactsRefused for what can never be committed, before anything is read; StoreFailure."""
    try:
        check_fit(folder)
        resolve_links(folder)
        paths = sorted(_regular_files(folder))
        # a disk that waits for one file is faster with others beside it: 7 times for files of some bytes
        at_once = _AT_ONCE if len(paths) > _FEW_FILES else 1
        files = []
        with FileProgress("making the files durable", len(paths)) as progress:
            for file in concurrent_map(at_once, partial(_describe, folder), paths):
                files.append(file)
                progress.add(file.size)
        return files
    except OSError as error:
        raise failure("write", str(folder), error) from error


def upload(store: Store, path: str, folder: Path, files: list[ArtifactFile]) -> None:
    """Copy the files to `path` in the store, unless `folder` is that place, and but for those that are elsewhere in
    the store."""
    if store.local_path(path) != folder:
        put_files(store, folder, path, [file.path for file in files if not file.source])


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
    size, found = digest_file(path)
    fsync_file(path)
    return ArtifactFile(path.relative_to(folder).as_posix(), size, found)


#: of the files of one folder so many bytes, and so many files, are copied before the rest is moved
COPIED_BYTES, COPIED_FILES = 64 << 20, 2_000
#: what shares no blocks of so many files in a row does it of none. A try costs more than a copy: ext4 flushes at once
_CLONES_TRIED = 8

_Inode = tuple[int, int]
#: size and time of the last write in nanoseconds, of each file by its path below a folder
Written = dict[str, tuple[int, int]]


def written(folder: Path) -> Written:
    """How the files of a folder, and of those below it, are at this moment. Raises OSError."""
    found: Written = {}
    folders = [folder]
    while folders:
        with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    found[os.path.relpath(entry.path, folder)] = status.st_size, status.st_mtime_ns
    return found


def written_since(folder: Path, before: Written, taken: Path | None) -> list[str]:
    """The files of an output folder that are not as they were `before`, are new or are gone. `taken`: where files of it
    were moved to. Raises OSError."""
    now = {**(written(taken) if taken is not None else {}), **written(folder)}
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def refuse_written_since(folder: Path, left: Written) -> None:
    """Raise ArtifactsRefused where a save was written to after it was left; StoreFailure. Before its digests were taken
    they would be right, and its rows not those of its position; before it was uploaded it would be damaged."""
    try:
        changed = written_since(folder, left, None)
    except OSError as error:
        raise failure("read", str(folder), error) from error
    if changed:
        raise ArtifactsRefused(
            f"{folder / changed[0]} was written after ctx.save had returned: what is saved must not be written to any "
            "more, by no thread either; write each save into the folder that is given for it",
            location=str(folder),
        )


def take_over(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Make each second path of `pairs` hold the content of the first. Folders are there. Raises OSError."""
    moved: list[Path] = []
    left, refused = COPIED_BYTES, 0
    with FileProgress("taking over the files", len(pairs)) as progress:
        for number, (source, target) in enumerate(pairs):
            status = source.stat()
            if refused < _CLONES_TRIED and clone(source, target):
                refused = 0
            else:
                refused += 1
                is_here = status.st_dev == target.parent.stat().st_dev
                few = status.st_size <= left and number < COPIED_FILES
                # by another name of its own it could be written to after it was moved
                if (few or not is_here or status.st_nlink > 1) and _copied(source, target, or_else=is_here):
                    left -= status.st_size
                else:
                    source.rename(target)
                    moved.append(target)
            progress.add(status.st_size)
    held = open_somewhere({_inode(path) for path in moved}) if moved else set()
    for path in moved:
        if _inode(path) in held:
            copy = path.with_name(f".tmp-{path.name}-{os.urandom(8).hex()}")
            shutil.copyfile(path, copy)
            status = path.stat()  # afterwards: so it is seen that it was written meanwhile
            os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
            copy.replace(path)


def _copied(source: Path, target: Path, *, or_else: bool) -> bool:
    """Copy a file; with `or_else` False where there is no room for that, and nothing is left then. Raises OSError."""
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        target.unlink(missing_ok=True)
        if not or_else or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    return True


def open_somewhere(inodes: Collection[_Inode]) -> set[_Inode]:
    """Which of these files a process has open or mapped; all of them where that cannot be known."""
    try:
        processes = [name for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return set(inodes)
    if str(os.getpid()) not in processes:
        return set(inodes)
    return {inode for process in processes for inode in _used_by(process) if inode in inodes}


def _used_by(process: str) -> Iterator[_Inode]:
    folder = f"/proc/{process}/fd"
    # of another user, or gone meanwhile
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):
                status = os.stat(f"{folder}/{name}")
                yield status.st_dev, status.st_ino
    with suppress(OSError), open(f"/proc/{process}/maps", encoding="utf-8", errors="replace") as lines:
        yield from _mapped(lines)


def _mapped(lines: Iterable[str]) -> Iterator[_Inode]:
    for line in lines:
        _, mode, _, device, inode, *_ = line.split(maxsplit=5)
        if mode.endswith("s") and inode != "0":
            major, minor = (int(part, 16) for part in device.split(":"))
            yield os.makedev(major, minor), int(inode)


def _inode(path: Path) -> _Inode:
    status = path.stat()
    return status.st_dev, status.st_ino
