"""What an attempt saved inside its split: files, and the exact position they belong to. One atomic unit.
`IntermediateSaves.newest` decides from which of them the next attempt resumes.

    {chain}/partials/{parent}.{digest}/{attempt}-{number}/files/…
    {chain}/partials/{parent}.{digest}/{attempt}-{number}/manifest.{row}.json

The middle name is a pure function of what is trained, so training the same again - on another host, with another
database - finds it. The manifest is written last, exclusively: without it there is no save. It holds digests of the
files and of itself; one that is torn or damaged is passed over for the one before.

The save that is furthest in the split is the newest, by whichever attempt and whatever the clocks said: all attempts at
a training read the same rows in the same order. So its row, which counts through all epochs, is in the manifest's name.
Two of a training are kept, and always the last one that an attempt has made itself. Those of a training whose parent is
no longer the head can never be committed, and the next commit clears them away.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit import artifacts as files_of
from trainflow.checkpoints.commit.artifacts import as_reference, digest_folder, earlier_files, shared_with, upload
from trainflow.checkpoints.ledger.entries import ArtifactFile, Artifacts
from trainflow.checkpoints.saves.training_identity import NO_PARENT
from trainflow.checkpoints.transfers import SMALL_FILE_BYTES, fetch_files
from trainflow.checkpoints.verified_artifacts import verify
from trainflow.errors import ArtifactCorrupt, StoreFailure
from trainflow.failpoint import hit
from trainflow.identifiers import attempt_time, canonical_json, digest
from trainflow.storage.errors import failure
from trainflow.storage.exclusive_creation import created
from trainflow.storage.local import make_folder
from trainflow.storage.store import Store, StoreFile

log = logging.getLogger(__name__)

#: how many saves of one training are kept: should the newest be damaged, there is one more
KEPT = 2
_MANIFEST = re.compile(r"manifest\.(\d{20})\.json")
_FILES = "files"


class IntermediateSave(msgspec.Struct, frozen=True):
    """One save: `position` says which rows its files have learnt from, `state` is what the trainer added, `split` is
    the digest of the content that the rows are of."""

    attempt_id: str
    number: int
    position: dict[str, Any]
    state: dict[str, Any]
    files: list[ArtifactFile]
    at: datetime
    split: str = ""

    @property
    def name(self) -> str:
        """The name of its folder: no other save has it."""
        return _name(self.attempt_id, self.number)


def _name(attempt_id: str, number: int) -> str:
    return f"{attempt_id}-{number:08d}"


class _Manifest(msgspec.Struct, frozen=True):
    digest: str
    save: IntermediateSave = msgspec.field(name="partial")


class _Complete(msgspec.Struct, frozen=True, order=True):
    """A save that has a manifest. They sort by how far in the split they are."""

    row: int
    #: of its folder
    name: str

    @property
    def manifest(self) -> str:
        """The path of its manifest, from the folder of the training."""
        return f"{self.name}/manifest.{self.row:020d}.json"


class IntermediateSaves:
    """The saves of one training (`name`), as one attempt sees them. Its own go below `scratch` first, unless the store
    is on this machine. `not_before`: earlier attempts were cleared away by a person, and are not gone on from. `begun`:
    the names of the trainings that had saved anything when the attempt began, where they were listed then. `kept`: how
    many are kept."""

    def __init__(
        self,
        store: Store,
        chain: ChainKey,
        name: str,
        attempt_id: str,
        scratch: Path,
        *,
        not_before: datetime | None = None,
        begun: Collection[str] | None = None,
        kept: int = KEPT,
    ) -> None:
        #: whether the chain has saves, so that a commit has something to clear away
        self.any = False
        self._store = store
        self._chain = chain
        self._training = f"{chain.partials}/{name}"
        self._attempt_id = attempt_id
        self._scratch = scratch
        self._begun = begun
        self._kept = kept
        #: names of saves that are not deleted
        self.held: set[str] = set()
        # attempt ids know milliseconds
        self._not_before = not_before and not_before.replace(microsecond=not_before.microsecond // 1000 * 1000)
        self._number = 0
        #: names of saves that were found damaged: no attempt goes on from them
        self._damaged: set[str] = set()

    @property
    def training(self) -> str:
        """The folder of the training, relative to the store."""
        return self._training

    def in_store(self, store: Store, *, kept: int) -> IntermediateSaves:
        """The saves of the same training, as the same attempt sees them, in another store."""
        name = self._training.rpartition("/")[2]
        return IntermediateSaves(
            store, self._chain, name, self._attempt_id, self._scratch, not_before=self._not_before, kept=kept
        )

    def newest(self, split: str = "", *, after: int = -1) -> tuple[IntermediateSave, Path] | None:
        """The newest save that is whole, and a local folder with its files; None to begin at the start of the split.
        `split`: one of other content is passed over. `after`: only one that is further than that row.

        One listing when the chain has no saves. Raises StoreFailure.
        """
        names = self._store.folders(self._chain.partials) if self._begun is None else self._begun
        self.any = bool(names)
        if self._training.rpartition("/")[2] not in names:
            return None
        complete = self._complete()
        for save in complete:
            if self._was_cleared(save):
                self._delete(save)
        for save in reversed([save for save in complete if save.row > after and not self._was_cleared(save)]):
            try:
                found = self._manifest(save)
                if found.split != split:
                    raise ArtifactCorrupt(f"its rows are those of {found.split}, not of {split}", location=save.name)
                return found, self._fetch(save.name, found)
            except (FileNotFoundError, ArtifactCorrupt) as error:
                self._damaged.add(save.name)
                log.warning("the save %s cannot be used (%s): the one before is tried", save.name, error)
        return None

    def begin(self) -> Path:
        """An empty folder to write the next save into."""
        self._number += 1
        folder = self._folder(self._number)
        try:
            shutil.rmtree(folder.parent, ignore_errors=True)
            make_folder(folder)
        except OSError as error:
            raise failure("create", str(folder), error) from error
        return folder

    def complete(
        self,
        position: Mapping[str, Any],
        state: Mapping[str, Any],
        now: datetime,
        *,
        split: str = "",
        number: int | None = None,
        left: files_of.Written | None = None,
    ) -> IntermediateSave:
        """What was written into the folder that `begin` gave (`number`: the so-manyth time, None: the last time), and
        is as it was `left`, is a save from now on. Raises StoreFailure, ArtifactsRefused."""
        number = number or self._number
        folder = self._folder(number)
        files = digest_folder(folder)
        if left is not None:
            files_of.refuse_written_since(folder, left)
        upload(self._store, f"{self._path(number)}/{_FILES}", folder, files)
        save = IntermediateSave(self._attempt_id, number, dict(position), dict(state), files, now, split)
        own = self._record(save)
        if not self._in_place(folder):
            shutil.rmtree(folder.parent, ignore_errors=True)
        self._forget_others(own)
        return save

    def publish(
        self,
        save: IntermediateSave,
        folder: Path,
        left: files_of.Written,
        earlier: Sequence[Artifacts] = (),
        *,
        begun: bool = False,
        going_on: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Upload a save that is whole in a local `folder`, and as it was `left` when all of it is uploaded. Files of
        `earlier` checkpoints, which are kept as long as it is of use, are named and not uploaded; nor is, where it was
        `begun` before, what is in the store already: no other save has its name. False where `going_on` said between
        two files that it is of no use any more. Raises StoreFailure, ArtifactsRefused."""
        path = f"{self._training}/{save.name}/{_FILES}"
        found = shared_with(save.files, earlier_files(earlier, f"{self._chain.artifacts}/"))
        files = [as_reference(file, found) for file in save.files]
        there = {file.path: file.size_bytes for file in self._store.files(path)} if begun else {}
        self.any = True
        away = [file for file in files if there.get(f"{path}/{file.path}") != file.size]
        for some in _one_large_or_many_small(away):
            if not going_on():
                return False
            upload(self._store, path, folder, some)
        files_of.refuse_written_since(folder, left)
        own = self._record(msgspec.structs.replace(save, files=files))
        self._forget_others(own)
        return True

    def _record(self, save: IntermediateSave) -> _Complete:
        """Write the manifest."""
        hit("save: files are in the store")
        own = _Complete(int(save.position["row"]), save.name)
        manifest = f"{self._training}/{own.manifest}"
        if not created(self._store, manifest, _encode(save)):
            raise StoreFailure(f"{self._store.uri(manifest)}: another attempt has written it", location=manifest)
        hit("save: saved")
        self.any = True
        return own

    def folder_of(self, number: int) -> Path:
        """The folder that `begin` gave, the so-manyth time."""
        return self._folder(number)

    def abandon(self) -> None:
        """Take away what `begin` has begun and was not completed. Never raises."""
        shutil.rmtree(self._folder(self._number).parent, ignore_errors=True)

    @property
    def number(self) -> int:
        """How often `begin` was called."""
        return self._number

    def _path(self, number: int) -> str:
        return f"{self._training}/{_name(self._attempt_id, number)}"

    def _folder(self, number: int) -> Path:
        path = self._path(number)
        base = self._store.local_path(path) or self._scratch / path.rpartition("/")[2]
        return base / _FILES

    def _in_place(self, folder: Path) -> bool:
        return self._store.local_path(self._training) in folder.parents

    def _complete(self) -> list[_Complete]:
        """The saves that have a manifest, the one that is furthest last."""
        inside = [file.path.removeprefix(f"{self._training}/").split("/") for file in self._store.files(self._training)]
        # a trainer's own files may have any name; they are one level deeper
        manifests = [(parts[0], _MANIFEST.fullmatch(parts[1])) for parts in inside if len(parts) == 2]
        return sorted(
            _Complete(int(found[1]), name) for name, found in manifests if found and _attempt_of(name) is not None
        )

    def _was_cleared(self, save: _Complete) -> bool:
        made = _attempt_of(save.name)
        own = save.name.startswith(f"{self._attempt_id}-")
        return self._not_before is not None and made is not None and made < self._not_before and not own

    def _manifest(self, save: _Complete) -> IntermediateSave:
        data = self._store.read(f"{self._training}/{save.manifest}")
        try:
            manifest = msgspec.json.decode(data, type=_Manifest)
        except msgspec.MsgspecError as error:
            raise ArtifactCorrupt(f"its manifest cannot be read: {error}", location=save.name) from None
        if data != _encode(manifest.save) or manifest.save.position["row"] != save.row:
            raise ArtifactCorrupt("its manifest is not what was written", location=save.name)
        return manifest.save

    def _fetch(self, name: str, save: IntermediateSave) -> Path:
        artifacts = Artifacts(f"{self._training}/{name}/{_FILES}", save.files)
        local = self._store.local_path(artifacts.path)
        if local is not None and not artifacts.owners:
            make_folder(local)  # a save without files has none
            _raise_if(verify(self._store, artifacts), name)
            return self._linked(local, artifacts, name)
        target = self._scratch / f"{name}-{os.urandom(4).hex()}"
        target.mkdir(parents=True)
        _raise_if(fetch_files(self._store, artifacts, target), name)
        return target

    def _linked(self, local: Path, artifacts: Artifacts, name: str) -> Path:
        """The files of a save under names of this attempt's own, where the disk is the same: the attempt that made it
        may live still, unheard, and deletes it when it has saved more."""
        if name.startswith(f"{self._attempt_id}-"):
            return local
        target = self._scratch / f"{name}-{os.urandom(4).hex()}"
        try:
            shutil.copytree(local, target, copy_function=os.link)
        except OSError:
            shutil.rmtree(target, ignore_errors=True)
            _raise_if(verify(self._store, artifacts), name)
            return local
        return target

    def _forget_others(self, own: _Complete) -> None:
        """Keep the furthest saves, and `own`, which was made just now, wherever it is: those before it may be useless
        for a reason that their names do not tell."""
        try:
            complete = self._complete()
            useful = [each for each in complete if each.name not in self._damaged and not self._was_cleared(each)]
            for each in complete:
                if each not in useful[-self._kept :] and each != own and each.name not in self.held:
                    self._delete(each)
        except StoreFailure as error:
            log.warning("older saves could not be cleared away, the commit will: %s", error)

    def _delete(self, save: _Complete) -> None:
        """The manifest first: half of a save is none."""
        self._store.delete(f"{self._training}/{save.manifest}")
        self._store.delete_folder(f"{self._training}/{save.name}")


def clear_saves(store: Store, chain: ChainKey, head_id: str | None) -> int:
    """Delete the saves of trainings that start from anything but `head_id`: the fence lets none of them be committed.
    Returns of how many trainings. Raises StoreFailure; what is left then is found by the next one."""
    gone = [name for name, parent in trainings(store, chain) if parent != head_id]
    for name in gone:
        store.delete_folder(f"{chain.partials}/{name}")
    return len(gone)


def drop_training(store: Store, chain: ChainKey, parent_id: str | None) -> None:
    """Delete the saves of trainings that start from `parent_id`: the split is begun anew. Raises StoreFailure."""
    for name, parent in trainings(store, chain):
        if parent == parent_id:
            store.delete_folder(f"{chain.partials}/{name}")


def old_saves(
    store: Store, chain: ChainKey, head_id: str | None, before: datetime
) -> Iterator[tuple[str, list[StoreFile]]]:
    """The folders, with their files, of saves that a commit was killed before it cleared away: of trainings that do
    not start from the head, untouched since `before`. Those of the head stay, however old, and so does what has a name
    that no attempt here gives."""
    for name, parent in trainings(store, chain):
        if parent != head_id:
            files = store.files(f"{chain.partials}/{name}")
            times = [file.modified for file in files if file.modified is not None]
            if times and max(times) <= before:
                yield f"{chain.partials}/{name}", files


def trainings(store: Store, chain: ChainKey, listed: Iterable[str] | None = None) -> Iterator[tuple[str, str | None]]:
    """(name, parent) of the trainings that have saved anything. `listed`: the paths of the files in the folder of the
    saves, where it was listed just now."""
    names = store.folders(chain.partials) if listed is None else sorted({path.partition("/")[0] for path in listed})
    for name in names:
        parent, dot, rest = name.rpartition(".")
        if dot and len(rest) == 24:
            yield name, None if parent == NO_PARENT else parent


def _one_large_or_many_small(files: Iterable[ArtifactFile]) -> list[list[ArtifactFile]]:
    """What is uploaded between two looks at whether it is still of use."""
    small = [file for file in files if file.size <= SMALL_FILE_BYTES]
    return [*([file] for file in files if file.size > SMALL_FILE_BYTES), *([small] if small else [])]


def _attempt_of(name: str) -> datetime | None:
    """When the attempt that saved `name` was made; None for what is no save."""
    attempt, _, number = name.rpartition("-")
    return attempt_time(attempt) if number.isdigit() else None


def _encode(save: IntermediateSave) -> bytes:
    content = msgspec.to_builtins(save)
    return canonical_json({"digest": digest(canonical_json(content)), "partial": content})


def _raise_if(problems: list[str], name: str) -> None:
    if problems:
        raise ArtifactCorrupt("; ".join(problems), location=name)
