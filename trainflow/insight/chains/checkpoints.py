"""What chains have committed: checkpoints, whether the files of these are intact, entries; and which stages of other
pipelines build on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from trainflow.checkpoints.chain import OfChain
from trainflow.checkpoints.ledger.entries import Checkpoint, LedgerEntry
from trainflow.checkpoints.ledger.entry_files import decode_entry
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary, last_number, with_numbers
from trainflow.checkpoints.stages.dependents import declared_dependents, still_needed
from trainflow.checkpoints.verified_artifacts import download, verify_many
from trainflow.errors import InputError, LedgerCorrupt, NotFound
from trainflow.identifiers import did_you_mean
from trainflow.storage.store import Store
from trainflow.workspace.names import checkpoint_named
from trainflow.workspace.pipelines import PipelineChain


class CheckpointLine(OfChain, frozen=True, kw_only=True):
    """A checkpoint whose files are kept. `partitions`: trained from the root up to it; `size` in bytes; `metrics`: what
    the trainer returned; `scores`: of samples it had not seen; `on_line`: false where a rewind left it behind."""

    number: int
    id: str
    parent_id: str | None
    watermark: datetime
    partitions: int
    size: int
    at: datetime
    run_id: str
    metrics: dict[str, float]
    scores: dict[str, float]
    on_line: bool
    head: bool
    aliases: list[str]


class VerifiedCheckpoint(OfChain, frozen=True, kw_only=True):
    """A checkpoint whose files were read. `problems`: what is not as it was committed."""

    number: int
    id: str
    ok: bool
    files: int
    bytes: int
    problems: list[str]


class Verification(msgspec.Struct, frozen=True):
    """Verification of all that were asked for."""

    ok: bool
    checkpoints: list[VerifiedCheckpoint]


class LedgerLine(OfChain, frozen=True, kw_only=True):
    """An entry as it lies in the store. `entry`: its number; `content` is None where it cannot be read, and `problem`
    says why."""

    entry: int
    location: str
    content: LedgerEntry | None
    problem: str | None


def checkpoints_of(chains: Sequence[PipelineChain]) -> list[CheckpointLine]:
    """The checkpoints whose files are kept, oldest first, chain by chain. Raises LedgerCorrupt, StoreFailure."""
    ledgers = [chain.ledger() for chain in chains]
    return [_line(ledger, each, ledger.state()) for ledger in ledgers for each in ledger.kept()]


def _line(ledger: Ledger, summary: CheckpointSummary, state: ChainState) -> CheckpointLine:
    names = ("number", "id", "parent_id", "watermark", "partitions", "size", "at", "run_id", "metrics", "scores")
    return CheckpointLine(
        **ledger.chain.names,
        **{name: getattr(summary, name) for name in names},
        on_line=summary.on_line,
        head=state.head is not None and state.head.id == summary.id,
        aliases=sorted(alias for alias, checkpoint_id in state.promoted.items() if checkpoint_id == summary.id),
    )


class CheckpointDetail(msgspec.Struct, frozen=True):
    """One checkpoint as its ledger entry says. `uri`: where its files are; `of`: the newest number of the chain;
    `parent`: the number of its parent, where that is kept."""

    checkpoint: Checkpoint
    uri: str
    of: int
    parent: int | None

    @property
    def document(self) -> dict[str, Any]:
        """The entry with `uri` beside its keys, as programs read it."""
        return {**msgspec.to_builtins(self.checkpoint), "uri": self.uri}


def checkpoint_detail(chain: PipelineChain, which: str) -> CheckpointDetail:
    """The checkpoint of a number, an id, an alias, or the head. Raises InputError, CheckpointNotFound,
    LedgerCorrupt."""
    ledger = chain.ledger()
    checkpoint = checkpoint_named(ledger, which)
    parent = ledger.find(checkpoint.parent_id) if checkpoint.parent_id else None
    return CheckpointDetail(
        checkpoint,
        ledger.store.uri(checkpoint.artifacts.path),
        ledger.state().last_number,
        parent.number if parent else None,
    )


class CheckpointFile(NamedTuple):
    """A file of a checkpoint: its `size` in bytes, its digest as it was committed, and where it is."""

    name: str
    size: int
    digest: str
    store: Store
    place: str

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Content from `start` up to `end`, in pieces. Raises StoreFailure."""
        if (start, end) == (0, self.size):
            return self.store.chunks(self.place)
        return self.store.part(self.place, start, end)


def checkpoint_file(chain: PipelineChain, which: str, name: str) -> CheckpointFile:
    """A file of a checkpoint, by the path that the ledger has for it. Raises NotFound, CheckpointNotFound,
    LedgerCorrupt, StoreFailure."""
    ledger = chain.ledger()
    checkpoint = checkpoint_named(ledger, which)
    for file in checkpoint.artifacts.files:
        if file.path == name:
            return CheckpointFile(file.path, file.size, file.sha256, ledger.store, checkpoint.artifacts.place(file))
    hint = did_you_mean(name, [file.path for file in checkpoint.artifacts.files])
    raise NotFound(f"checkpoint {checkpoint.number} of {ledger.chain} has no file '{name}'{hint}")


class CheckpointPlace(OfChain, frozen=True, kw_only=True):
    """Where the files of a checkpoint are. `path`: the folder on this machine; None: the store is elsewhere; `uri`:
    the same for people. `elsewhere`: files of it that lie with an earlier checkpoint, and are not in the folder."""

    number: int
    id: str
    path: str | None
    uri: str
    elsewhere: int


def checkpoint_place(chain: PipelineChain, which: str) -> CheckpointPlace:
    """Where the files of a checkpoint are. Raises NotFound, CheckpointNotFound, LedgerCorrupt, StoreFailure."""
    ledger = chain.ledger()
    checkpoint = checkpoint_named(ledger, which)
    path = ledger.store.local_path(checkpoint.artifacts.path)
    return CheckpointPlace(
        **ledger.chain.names,
        number=checkpoint.number,
        id=checkpoint.id,
        path=None if path is None else str(path),
        uri=ledger.store.uri(checkpoint.artifacts.path),
        elsewhere=sum(bool(file.source) for file in checkpoint.artifacts.files) if path is None else 0,
    )


class Export(OfChain, frozen=True, kw_only=True):
    """A checkpoint of which all files were copied to a folder."""

    number: int
    id: str
    folder: str
    files: int
    bytes: int


def export(chain: PipelineChain, which: str, folder: Path) -> Export:
    """Copy the files of a checkpoint - a number, an id or the head - to a folder that is empty or not there yet: all of
    them, with the digests that were committed, or nothing. In an object store its own folder may lack what did not
    change since an earlier one. Raises InputError, CheckpointNotFound, ArtifactCorrupt, StoreFailure."""
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty: name a folder that is, or that is not there yet")
    ledger = chain.ledger()
    checkpoint = checkpoint_named(ledger, which)
    download(ledger.store, checkpoint, folder)
    return Export(
        **ledger.chain.names,
        number=checkpoint.number,
        id=checkpoint.id,
        folder=str(folder),
        files=len(checkpoint.artifacts.files),
        bytes=checkpoint.artifacts.size,
    )


def verify(chains: Sequence[PipelineChain], which: str, *, every: bool) -> Verification:
    """Read the files of a checkpoint of each chain, or with `every` of all that are kept. Raises InputError,
    LedgerCorrupt, StoreFailure."""
    ledgers = [chain.ledger() for chain in chains]
    found = [each for ledger in ledgers for each in _verified(ledger, _to_verify(ledger, which, every=every))]
    return Verification(all(each.ok for each in found), found)


def _to_verify(ledger: Ledger, which: str, *, every: bool) -> list[Checkpoint]:
    kept = {each.id for each in ledger.kept()}
    if every:
        return [entry for entry in ledger.entries() if isinstance(entry, Checkpoint) and entry.id in kept]
    return [checkpoint_named(ledger, which)] if kept else []


def _verified(ledger: Ledger, checkpoints: list[Checkpoint]) -> list[VerifiedCheckpoint]:
    found = verify_many(ledger.store, [checkpoint.artifacts for checkpoint in checkpoints])
    return [
        VerifiedCheckpoint(
            **ledger.chain.names,
            number=checkpoint.number,
            id=checkpoint.id,
            ok=not problems,
            files=len(checkpoint.artifacts.files),
            bytes=checkpoint.artifacts.size,
            problems=problems,
        )
        for checkpoint, problems in zip(checkpoints, found, strict=True)
    ]


def ledger_lines(chains: Sequence[PipelineChain]) -> list[LedgerLine]:
    """Every entry there is, also those that the ledger itself would stop at. Raises StoreFailure."""
    return [each for chain in chains for each in _lines(chain.ledger())]


def _lines(ledger: Ledger) -> list[LedgerLine]:
    found, newest = [], 0
    for file in ledger.store.files(ledger.chain.ledger):
        name = file.path.rpartition("/")[2].removesuffix(".json")
        if not name.isdecimal():
            continue
        location = ledger.store.uri(file.path)
        entry, problem = None, None
        try:
            [entry] = with_numbers([decode_entry(ledger.store.read(file.path), location=location)], newest)
            newest = last_number(newest, entry)
        except LedgerCorrupt as error:
            problem = str(error)
        found.append(
            LedgerLine(**ledger.chain.names, entry=int(name), location=location, content=entry, problem=problem)
        )
    return found


def numbers_by_id(lines: Iterable[LedgerLine]) -> dict[str, int]:
    """What people call the checkpoints that were committed by these entries."""
    return {each.content.id: each.content.number for each in lines if isinstance(each.content, Checkpoint)}


class DependentStage(msgspec.Struct, frozen=True):
    """A stage. `at`: which checkpoint its runs start from; `once`: only its first run does; `held`: how many
    checkpoints are kept for it."""

    chain: str
    at: str
    once: bool
    held: int


class Dependents(msgspec.Struct, frozen=True):
    """All of them."""

    dependents: list[DependentStage]


def dependents_of(chain: PipelineChain) -> Dependents:
    """The stages that have run at least once. Raises StoreFailure, LedgerCorrupt."""
    ledger = chain.ledger()
    kept = ledger.kept()
    return Dependents(
        [
            DependentStage(
                str(each.chain),
                each.at,
                each.once,
                len(still_needed(each, Ledger(ledger.store, each.chain).state(), kept)),
            )
            for each in declared_dependents(ledger.store, ledger.chain)
        ]
    )
