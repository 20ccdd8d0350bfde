"""What lies in the folder of a chain, as one listing shows it: for stores in which each look is a request. The names
alone prove which entries there have to be, and the marks of their contents which of them were read before.

The artifacts of a chain may be many files, or few: where one request shows them with everything else they are looked at
too, and nothing about them has to be asked for afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.storage.store import SEAL, Store, StoreFile

#: the folder of the artifacts, which may hold many files, sorts before everything else that is looked at here
_FIRST = "artifacts0"
#: and that of the entries before those that may grow without end
_AFTER_ENTRIES = "ledger0"


class ChainListing(msgspec.Struct, frozen=True):
    """Files by what they are. `entries` by their number."""

    entries: dict[int, StoreFile]
    mark: StoreFile | None
    snapshots: list[StoreFile]
    pages: list[StoreFile]
    others: list[StoreFile]
    #: files below the folder of the artifacts; None: they were not looked at
    artifacts: list[StoreFile] | None = None
    #: numbers of entries that were not looked at: what wrote the newest snapshot had seen them all
    unseen: range = range(0)

    def below(self, folder: str, *, empty: bool = True) -> Iterator[str]:
        """The paths, from there, of files in one of the other folders of the chain; without the `empty` ones unless
        they are asked for."""
        found = (each for each in self.others if each.path.startswith(f"{folder}/"))
        return (each.path[len(folder) + 1 :] for each in found if empty or each.size_bytes)

    def of_attempt(self, chain: ChainKey, name: str) -> list[str]:
        """The paths of the artifacts of an attempt and, as the last, of their seal; of what was looked at."""
        folder = chain.attempt(name)
        found = [each.path for each in self.artifacts or () if each.path.startswith(f"{folder}/")]
        return [*found, *(each.path for each in self.artifacts or () if each.path == f"{folder}{SEAL}")]


def list_chain(
    store: Store, chain: ChainKey, *, with_artifacts: bool = False, every_entry: bool = True
) -> ChainListing:
    """Look, at the artifacts only where one request shows all files of the chain. Without `every_entry` a ledger that
    is longer than a request shows is looked at from its newest snapshot on: so many requests however long it is. Raises
    StoreFailure."""
    everything = store.files_if_few(chain.prefix) if with_artifacts else None
    if everything is not None:
        artifacts = [file for file in everything if file.path.startswith(f"{chain.artifacts}/")]
        others = [file for file in everything if file.path > f"{chain.prefix}/{_FIRST}"]
        return msgspec.structs.replace(listing_of(chain, others), artifacts=artifacts)
    if not every_entry:
        first, more = store.first_files_after(chain.prefix, _FIRST)
        found = _around_snapshot(store, chain, first) if more else listing_of(chain, first)
        if found is not None:
            return found
    return listing_of(chain, store.files_after(chain.prefix, _FIRST))


def _around_snapshot(store: Store, chain: ChainKey, first: Sequence[StoreFile]) -> ChainListing | None:
    """The chain without the entries between the `first` files and the newest snapshot; None: it has no such."""
    before = listing_of(chain, first)
    if not before.entries:
        return None
    after = listing_of(chain, store.files_after(chain.prefix, _AFTER_ENTRIES))
    names = (file.path.rpartition("/")[2].removesuffix(".json") for file in after.snapshots)
    newest = max((int(name) for name in names if name.isdecimal()), default=0)
    unseen = range(max(before.entries) + 1, newest)
    if not unseen:
        return None
    # the entry that the snapshot ends with, too
    recent = listing_of(chain, store.files_after(chain.ledger, f"{newest - 1:010d}.json"))
    return msgspec.structs.replace(
        after, entries={**before.entries, **recent.entries}, others=[*before.others, *after.others], unseen=unseen
    )


def listing_of(chain: ChainKey, files: Sequence[StoreFile]) -> ChainListing:
    """Sort what a listing showed."""
    found = ChainListing({}, next((each for each in files if each.path == chain.mark), None), [], [], [])
    for each in files:
        folder, _, name = each.path.rpartition("/")
        if folder == chain.ledger:
            number = name.removesuffix(".json")
            if name.endswith(".json") and number.isdecimal() and len(number) == 10:
                found.entries[int(number)] = each
        elif folder == chain.snapshots:
            found.snapshots.append(each)
        elif folder == chain.pages:
            found.pages.append(each)
        else:
            found.others.append(each)
    return found
