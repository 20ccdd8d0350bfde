"""Files that several checkpoints have: which are in use, and the deletion of checkpoints of which some are.

A checkpoint whose file has the bytes of its parent's names where those are and has no copy (`ArtifactFile.source`). So
files outlive the checkpoint that wrote them: a file stays as long as a kept checkpoint, of this chain or of one that is
registered with it, names it. Sources lead to who wrote the bytes and never to another source, so nothing has to be
followed.

A run under way names nothing that is not in use already: what it commits may only name files that its parent has, and
the parent is the head, or what another chain goes on from, and is kept. Which one that is a chain says with its first
entry; it registers before, and then looks whether the checkpoint is still kept. So who deletes looks for such chains
after the prune is recorded, and leaves all files to the next prune or sweep while there is one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from trainflow.checkpoints.ledger.entries import Artifacts, Checkpoint
from trainflow.checkpoints.ledger.entry_files import ChainListing, decode_entry
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import CheckpointSummary
from trainflow.checkpoints.stages.dependents import is_awaited, registered_chains
from trainflow.errors import LedgerCorrupt
from trainflow.storage.store import SEAL


class SharedFiles(NamedTuple):
    """Files in the artifacts of a chain that are not deleted with their folder: paths in the store."""

    #: checkpoints in use name them as the source of their own
    named: set[str]
    #: all there are, while a chain is about to begin: it may name those of a checkpoint
    awaited: set[str]

    @property
    def of_checkpoints(self) -> set[str]:
        """What stays of checkpoints that are pruned."""
        return self.named | self.awaited


def shared_files(ledger: Ledger, now: datetime) -> SharedFiles:
    """The files of a chain that stay, whatever becomes of their checkpoint. Raises LedgerCorrupt, StoreFailure."""
    store, chain = ledger.store, ledger.chain
    registered = store.files(chain.dependents)
    listed = [file.path.removeprefix(f"{chain.dependents}/") for file in registered]
    keys = [key for key in registered_chains(store, chain, listed) if key != chain]
    # read anew, and once
    others = [Ledger(store, key, of_one_task=True, has_few_files=False) for key in keys]
    folder, awaited = f"{chain.artifacts}/", is_awaited(chain, others, registered, now)
    return SharedFiles(
        {source for each in (ledger, *others) for source in _sources_in_use(each, folder)},
        {file.path for file in store.files(chain.artifacts)} if awaited else set(),
    )


def _sources_in_use(ledger: Ledger, folder: str) -> Iterator[str]:
    """What the kept checkpoints of a chain, the one it is stopped over and those that are lost name in a folder."""
    state = ledger.state()
    if state.stopped is not None:
        yield from sources_in(state.stopped.artifacts, folder)
    if any(owner.startswith(folder) for owner in state.shared):
        for each in checkpoints_with_sources(ledger, ledger.kept()):
            yield from sources_in(each.artifacts, folder)
    # what was lost with its entry is for a person to delete; a copy of that may lie beside its files
    for data in ledger.store.read_many([f"{ledger.chain.attempt(name)}{SEAL}" for name in state.lost]):
        copy = _copy_of(data)
        if copy is not None:
            yield from sources_in(copy.artifacts, folder)


def _copy_of(data: bytes | None) -> Checkpoint | None:
    try:
        entry = decode_entry(data, location="copy") if data else None
    except LedgerCorrupt:
        return None
    return entry if isinstance(entry, Checkpoint) else None


def checkpoints_with_sources(ledger: Ledger, summaries: Iterable[CheckpointSummary]) -> list[Checkpoint]:
    """The checkpoints, of these, that name files of others; in full. Raises LedgerCorrupt, StoreFailure."""
    numbers = [each.sequence for each in summaries if each.owners]
    locations = [ledger.store.uri(ledger.chain.entry(number)) for number in numbers]
    found: list[Checkpoint] = []
    for data, location in zip(ledger.read_entries(numbers) if numbers else [], locations, strict=True):
        if data is None:
            raise LedgerCorrupt(f"ledger entry {location} is missing although later ones are there", location=location)
        entry = decode_entry(data, location=location)
        if isinstance(entry, Checkpoint):
            found.append(entry)
    return found


def sources_in(artifacts: Artifacts, folder: str) -> Iterator[str]:
    """The sources of files, of those that are in a folder (which ends with a slash)."""
    return (file.source for file in artifacts.files if file.source.startswith(folder))


def delete_artifacts(
    ledger: Ledger, names: Iterable[str], shared: Collection[str], seen: ChainListing | None = None
) -> None:
    """Delete the files of checkpoints of the chain, but for `shared`: those that a listing has `seen`, which no attempt
    adds to any more, or what is there. Raises StoreFailure."""
    store, chain = ledger.store, ledger.chain
    if seen is not None and seen.artifacts is not None:
        # the files first: a seal without files is found again, files without a seal are an attempt's
        going = sorted((path for name in names for path in seen.of_attempt(chain, name)), key=lambda path: SEAL in path)
        if going := [path for path in going if path not in shared]:
            store.delete_many(going)
        return
    for name in names:
        folder = chain.attempt(name)
        store.delete_sealed(folder, keeping=[path for path in shared if path.startswith(f"{folder}/")])


def delete_freed(
    ledger: Ledger, gone: Sequence[CheckpointSummary], kept: Collection[str], shared: Collection[str]
) -> None:
    """Delete files that pruned checkpoints alone have named, in folders of the chain of which the owner is not `kept`
    either. What a kill leaves of them is found by a sweep. Raises LedgerCorrupt, StoreFailure."""
    folder = f"{ledger.chain.artifacts}/"
    named = {source for each in checkpoints_with_sources(ledger, gone) for source in sources_in(each.artifacts, folder)}
    free = [path for path in named.difference(shared) if path[len(folder) :].partition("/")[0] not in kept]
    if free:
        ledger.store.delete_many(sorted(free))
