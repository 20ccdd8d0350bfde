"""Go on with a ledger of which a part is lost for good: put back what is proven, and record what is not.

A copy of each checkpoint's entry lies beside its files as long as they are kept. Three things follow from that, in this
order:

- an entry that is missing, torn or another one, and whose copy follows the entry before it, byte for byte, is put back;
- a checkpoint that cannot be put back, because what was between is lost, and whose parent is the head and whose files
  are whole is committed again, as a new entry;
- everything else is lost: one entry says which, who accepted it and why, and the chain goes on from the head. What the
  lost checkpoints were trained on is trained again, by weights that have not seen it.

Until that entry is there the mark keeps every process from appending; killed anywhere, the command is given again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger import missing_entries
from trainflow.checkpoints.ledger.entries import Author, Checkpoint, LedgerEntry, Loss
from trainflow.checkpoints.ledger.entry_files import StorePages, decode_entry, encode_entry
from trainflow.checkpoints.ledger.fold import SealedEntry, fold
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.missing_checkpoints import named_in, traces, unrecorded
from trainflow.checkpoints.ledger.missing_entries import EntryEvidence, NewestEntry
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.checkpoints.verified_artifacts import seal_verified, verify
from trainflow.errors import ChainMoved, CheckpointError, LedgerCorrupt, LedgerTooNew
from trainflow.identifiers import digest
from trainflow.storage.exclusive_creation import created
from trainflow.storage.store import SEAL, Store

_AT_ONCE = 1024


class Copy(msgspec.Struct, frozen=True):
    """A checkpoint's entry, and the bytes of it that were found."""

    entry: Checkpoint
    data: bytes


class Damage(msgspec.Struct, frozen=True):
    """What is wrong with a ledger, and what can be done about it."""

    #: after what is there and what is put back, in one piece
    state: ChainState
    #: the last entry of that piece is one that accepts a loss
    accepted: Loss | None
    #: the newest entry that anything knows of
    newest: EntryEvidence
    #: entries to put back, in order
    restored: list[Copy]
    #: numbers of those of them in whose place is something else
    damaged: list[int]
    #: numbers of entries that are there and do not follow what is left
    untied: list[int]
    #: checkpoints to commit again, in order
    recovered: list[Checkpoint]
    #: checkpoint → how it is known
    lost: dict[str, str]

    @property
    def is_lossy(self) -> bool:
        """Whether something is lost that is not accepted yet."""
        return self.newest.sequence > self.state.sequence or bool(self.untied or self.lost)


def damage_of(ledger: Ledger) -> Damage | None:
    """What is wrong with a ledger; None: nothing is missing. Reads all of it, and the files of what can be recovered.
    Raises LedgerTooNew, whose entries must not be taken for damage; StoreFailure."""
    store, chain = ledger.store, ledger.chain
    copies = list(_copies(store, chain))
    walk = _LedgerWalk(store, chain, copies)
    walk.go()
    untied = sorted(number for number in missing_entries.listed(store, chain) if number > walk.state.sequence)
    newest = _newest(store, chain, walk, untied)
    found = unrecorded(_traces(ledger), walk.named)
    # an earlier command may have been cut short after it had set entries aside
    aside = [file.path for file in store.files(chain.set_aside)]
    manifests = [
        *(copy.entry for copy in copies),
        *_readable(store, chain, [*(chain.entry(number) for number in untied), *aside]),
    ]
    recovered = list(_recoverable(store, walk, manifests))
    lost = unrecorded(found, {each.id for each in recovered})
    damage = Damage(walk.state, walk.accepted, newest, walk.restored, walk.damaged, untied, recovered, lost)
    # a mark that is ahead of what was accepted: the command was cut short
    ahead = missing_entries.read_newest_entry(store, chain).sequence > walk.state.sequence
    return damage if damage.is_lossy or damage.restored or recovered or ahead else None


def put_right(ledger: Ledger, damage: Damage, *, by: Author, now: datetime, reason: str = "") -> Loss | None:
    """Put back and set aside what `damage` names. Returns the entry that records the loss, None where nothing was lost.

    Raises ChainMoved when the ledger was changed meanwhile, StoreFailure.
    """
    store, chain = ledger.store, ledger.chain
    if damage.is_lossy and damage.newest.sequence > missing_entries.read_newest_entry(store, chain).sequence:
        # first of all: the steps below remove the other evidence of the loss, and a kill may come between them
        store.replace(chain.mark, msgspec.json.encode(NewestEntry(damage.newest.sequence)))
    folder = f"{chain.set_aside}/{now:%Y%m%dT%H%M%SZ}-{damage.state.sequence + 1}"
    for copy in damage.restored:
        if copy.entry.sequence in damage.damaged:
            _set_aside(store, chain, folder, copy.entry.sequence)
        if not created(store, chain.entry(copy.entry.sequence), copy.data):
            raise _moved(ledger, copy.entry.sequence)
    # the newest first: what is left is short until the loss is accepted
    for number in reversed(damage.untied):
        _set_aside(store, chain, folder, number)
    # those of another ledger than is left; they are made again
    for file in (*store.files(chain.snapshots), *store.files(chain.pages)):
        store.delete(file.path)
    state, entry = damage.state, None
    if damage.is_lossy:
        entry = _loss(damage, folder if damage.untied else "", by, now, reason)
        data = encode_entry(entry)
        if not created(store, chain.entry(entry.sequence), data):
            raise _moved(ledger, entry.sequence)
        missing_entries.write_newest_entry(store, chain, entry.sequence, digest(data))
    else:
        missing_entries.write_newest_entry(store, chain, state.sequence, state.digest)
    again = Ledger(store, chain)
    for manifest in damage.recovered:
        seal_verified(store, again.append(partial(_again, manifest)))
    return entry


def _loss(damage: Damage, folder: str, by: Author, now: datetime, reason: str) -> Loss:
    state = damage.state
    first = state.sequence + 1
    newest = damage.newest
    evidence = [f"{newest.what} knows of entry {newest.sequence}"] if newest.sequence >= first else []
    return Loss(
        **state.header(by, now),
        parent_id=state.head.id if state.head else None,
        first=first,
        last=max(newest.sequence, first),
        checkpoint_ids=sorted(damage.lost),
        evidence=[*evidence, *(f"{name}: {what}" for name, what in sorted(damage.lost.items()))],
        set_aside=folder,
        reason=reason,
    )


def _again(manifest: Checkpoint, state: ChainState) -> Checkpoint:
    """The manifest of a lost checkpoint, renumbered as the next entry after `state`."""
    return msgspec.structs.replace(
        manifest, sequence=state.sequence + 1, previous=state.digest, seal="", recovered=manifest.sequence
    )


class _LedgerWalk:
    """A walk from the first entry on, as far as one follows the other; what is missing or does not follow is taken from
    the copies."""

    def __init__(self, store: Store, chain: ChainKey, copies: Iterable[Copy]) -> None:
        self.state = ChainState()
        self.accepted: Loss | None = None
        self.restored: list[Copy] = []
        self.damaged: list[int] = []
        #: checkpoints that entries speak of
        self.named: set[str] = set()
        self.pages = StorePages(store, chain)
        self._store, self._chain = store, chain
        self._copies: dict[int, list[Copy]] = {}
        for copy in copies:
            self._copies.setdefault(copy.entry.sequence, []).append(copy)

    def go(self) -> None:
        while self._along_what_is_there() or self._one_copy():
            pass

    def _along_what_is_there(self) -> bool:
        first = self.state.sequence + 1
        paths = [self._chain.entry(number) for number in range(first, first + _AT_ONCE)]
        for path, data in zip(paths, self._store.read_many(paths), strict=True):
            if data is None or not self._take(data, self._store.uri(path)):
                return False
        return True

    def _one_copy(self) -> bool:
        number = self.state.sequence + 1
        for copy in self._copies.get(number, ()):
            if self._take(copy.data, f"copy of entry {number}"):
                self.restored.append(copy)
                # what is there does not follow: two entries of one number are never written, and the copy is older
                if self._store.exists(self._chain.entry(number)):
                    self.damaged.append(number)
                return True
        return False

    def _take(self, data: bytes, location: str) -> bool:
        try:
            entry = decode_entry(data, location=location)
            self.state = fold(self.state, [SealedEntry(entry, digest(data), location)], self.pages)
        except LedgerTooNew:
            raise
        except LedgerCorrupt:
            return False
        self.accepted = entry if isinstance(entry, Loss) else None
        self.named |= named_in([entry])
        return True


def _copies(store: Store, chain: ChainKey) -> Iterator[Copy]:
    """The copies beside artifacts that can be read."""
    paths = [f"{chain.attempt(name)}{SEAL}" for name in store.folders(chain.artifacts)]
    for first in range(0, len(paths), _AT_ONCE):
        some = paths[first : first + _AT_ONCE]
        for path, data in zip(some, store.read_many(some), strict=True):
            entry = _checkpoint(data, store.uri(path))
            if entry is not None and data is not None and f"{entry.artifacts.path}{SEAL}" == path:
                yield Copy(entry, data)


def _readable(store: Store, chain: ChainKey, paths: list[str]) -> Iterator[Checkpoint]:
    for first in range(0, len(paths), _AT_ONCE):
        some = paths[first : first + _AT_ONCE]
        for path, data in zip(some, store.read_many(some), strict=True):
            entry = _checkpoint(data, store.uri(path))
            if entry is not None and entry.artifacts.path == chain.attempt(entry.id):
                yield entry


def _checkpoint(data: bytes | None, location: str) -> Checkpoint | None:
    try:
        entry: LedgerEntry | None = decode_entry(data, location=location) if data else None
    except LedgerTooNew:
        raise
    except LedgerCorrupt:
        return None
    return entry if isinstance(entry, Checkpoint) else None


def _newest(store: Store, chain: ChainKey, walk: _LedgerWalk, untied: list[int]) -> EntryEvidence:
    beside = missing_entries.entry_evidence(store, chain)
    if walk.accepted is not None:
        # of before it was accepted: the command was cut short before the mark was renewed
        beside = [each for each in beside if each.sequence > walk.accepted.last]
    if untied:
        beside.append(EntryEvidence(untied[-1], f"entry {untied[-1]}, which is there,"))
    return max([EntryEvidence(0, ""), *beside], key=lambda each: each.sequence)


def _traces(ledger: Ledger) -> dict[str, str]:
    try:
        return traces(ledger)
    except LedgerCorrupt:
        # a chain that goes on from this one is short itself: what it stands on is found when that was put right
        return traces(ledger, (), ())


def _recoverable(store: Store, walk: _LedgerWalk, manifests: Iterable[Checkpoint]) -> Iterator[Checkpoint]:
    """One child after the other of the head, the newest where there are several, as long as the rules take it and its
    files are whole."""
    children: dict[str | None, list[Checkpoint]] = {}
    for each in manifests:
        children.setdefault(each.parent_id, []).append(each)
    state, seen = walk.state, set(walk.named)
    while True:
        head = state.head.id if state.head else None
        found = [each for each in children.get(head, ()) if each.id not in seen]
        for each in sorted(found, key=lambda each: each.sequence, reverse=True):
            seen.add(each.id)
            following = _followed_by(state, each, walk.pages)
            if following is not None and not verify(store, each.artifacts):
                state = following
                yield each
                break
        else:
            return


def _followed_by(state: ChainState, manifest: Checkpoint, pages: StorePages) -> ChainState | None:
    entry = _again(manifest, state)
    data = encode_entry(entry)
    try:
        return fold(state, [SealedEntry(entry, digest(data), "to be recovered")], pages)
    except LedgerCorrupt:
        return None


def _set_aside(store: Store, chain: ChainKey, folder: str, number: int) -> None:
    """Move away an entry that does not follow the one before it."""
    path = chain.entry(number)
    store.replace(f"{folder}/{number:010d}.json", store.read(path))
    store.delete(path)


def _moved(ledger: Ledger, number: int) -> CheckpointError:
    return ChainMoved(
        f"chain {ledger.chain}: entry {number} was written meanwhile; nothing more was changed. Look again",
        expected_sequence=number - 1,
        head_sequence=number,
    )
